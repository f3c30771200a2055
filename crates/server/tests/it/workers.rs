//! `portolan worker`: builds on other machines, over a real PostgreSQL and a real bucket, and
//! what becomes of them when such a machine is gone.

use std::time::{Duration, Instant};

use portolan_testkit::Child;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::builds::{Yard, dockerfile};
use crate::two_servers::Setup;

/// A worker is missed after three seconds.
const SHARED: &str = "build_here = false\nbuild_lost_secs = 3\n";

/// A server that builds nothing itself.
async fn yard(setup: &Setup) -> Yard {
    let child = setup.start("a").await.unwrap();
    let site = child.site().unwrap();
    let login_server = site.make_registry("yard1").await.unwrap();
    Yard { child, site, registry: "yard1", login_server, data: tempfile::tempdir().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_survives_the_machine_it_was_on() {
    let setup = Setup::of_one(SHARED);
    let yard = yard(&setup).await;
    // Workers call the server as its clients do.
    let public = format!("public_address = '{}'\n", yard.site.url.trim_start_matches("https://"));
    let one = setup.worker("one", &format!("{public}metrics_listen = '127.0.0.1:0'\n")).await.unwrap();
    assert!(one.ready.starts_with("portolan worker ready: one slots=2 (http://127.0.0.1:"), "{}", one.ready);
    yard.base().await;

    // It tells operators how it is, and nobody else anything.
    let ops = one.ready.split_once('(').unwrap().1.split_once(')').unwrap().0.to_owned();
    let ask = async |path: &str| yard.site.client.get(format!("{ops}{path}")).send().await.unwrap();
    assert_eq!(ask("/healthz").await.status(), StatusCode::OK);
    assert_eq!(ask("/readyz").await.status(), StatusCode::OK);
    assert_eq!(ask("/v2/").await.status(), StatusCode::NOT_FOUND);
    let metrics = ask("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("\nportolan_runs_running "), "{metrics}");

    let slow = "FROM busybox:1\nRUN echo begun && sleep 600\n";
    let run = yard.order(dockerfile(slow), json!({})).await;
    yard.follow(&run, Some(" begun\r\n")).await;
    let two = setup.worker("two", &public).await.unwrap();
    one.kill9().await.unwrap();
    let anew = "one left this run; two begins it anew (attempt 2 of 3)\r\n";
    yard.follow(&run, Some(anew)).await;
    // From the beginning.
    let begun_again = async || {
        let (log, complete) = yard.follow(&run, Some(anew)).await;
        assert_eq!(complete, None, "{log}");
        log.split_once(anew).is_some_and(|(_, rest)| rest.contains(" begun\r\n"))
    };
    let bound = Instant::now() + Duration::from_secs(60);
    while !begun_again().await {
        assert!(Instant::now() < bound, "the step does not begin again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Told to stop, a worker gives its build back; and the next one takes it.
    let drained = tokio::spawn(async move {
        two.signal(rustix::process::Signal::TERM).unwrap();
        two.wait().await.unwrap()
    });
    let three = setup.worker("three", &public).await.unwrap();
    let (log, _) = yard.follow(&run, Some("two left this run; three begins it anew (attempt 2 of 3)")).await;
    let (code, _, ended) = drained.await.unwrap();
    assert_eq!(code, Some(0), "{ended}\n{log}");

    // A cancel goes through the database to the machine that has the build.
    yard.json(Method::POST, &format!("runs/{run}/cancel"), None).await;
    let ended = yard.ended(&run).await;
    assert_eq!((ended.status(), ended.complete.as_str()), ("Canceled", "canceled"), "{}", ended.log);

    // And the rest is as on a server.
    let image = json!({"imageNames": ["app:v1"]});
    let done = yard.built(dockerfile("FROM busybox:1\nRUN echo made > /made\n"), image).await;
    assert!(done.log.contains(" digest: sha256:"), "{}", done.log);
    let (code, _, log) = three.terminate().await.unwrap();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_cannot_start_with() {
    let refused = async |data: &std::path::Path, more: &[&str]| match Child::start_worker(data, more).await {
        Ok(child) => panic!("{}", child.ready),
        Err(why) => format!("{why:#}"),
    };
    let dir = tempfile::tempdir().unwrap();
    // Run over another engine, this suite names a database and a bucket itself.
    if portolan_testkit::postgres::chosen_for(dir.path()).is_none() {
        let why = refused(dir.path(), &[]).await;
        assert!(why.contains("the embedded one belongs to a single server"), "{why}");
    }
    let setup = Setup::new(SHARED);
    std::fs::create_dir_all(setup.data("a")).unwrap();
    std::fs::write(setup.data("a").join("master.key"), "00".repeat(32)).unwrap();
    let why = match setup.worker("early", "").await {
        Ok(child) => panic!("{}", child.ready),
        Err(why) => format!("{why:#}"),
    };
    assert!(why.contains("no server has used this database yet"), "{why}");
    let server = setup.start("a").await.unwrap();
    // Another key opens nothing.
    std::fs::write(setup.data("a").join("master.key"), "11".repeat(32)).unwrap();
    let why = match setup.worker("wrong", "").await {
        Ok(child) => panic!("{}", child.ready),
        Err(why) => format!("{why:#}"),
    };
    assert!(why.contains("master key"), "{why}");
    server.terminate().await.unwrap();
}
