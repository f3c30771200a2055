//! `portolan check` and `portolan migrate`, as operators run them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_testkit::{Child, Pushed, Site, postgres};
use serde_json::Value;

use crate::crash::{check, shared};

fn portolan(args: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_portolan")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A registry with some images; its server is stopped.
async fn filled(data: &Path) -> Vec<Pushed> {
    let server = Child::start(data, &[]).await.unwrap();
    let site = server.site().unwrap();
    let login_server = site.make_registry("moved").await.unwrap();
    let mut images = Vec::new();
    for n in 0..12u8 {
        let layers = [vec![n; 700_000], vec![n / 4; 60_000]];
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        images.push(site.push_image(&login_server, &format!("app{}", n % 3), &format!("v{n}"), &layers).await.unwrap());
    }
    let token = site.token(&login_server, "repository:app0:pull,push").await.unwrap();
    site.start_upload(&login_server, &token, "app0").await.unwrap();
    let (code, _, log) = server.terminate().await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    images
}

/// Every image can be pulled, byte for byte.
async fn pulled(site: &Site, images: &[Pushed]) {
    let found = site.arm("GET".parse().unwrap(), &Site::registry_path("moved"), None).await.unwrap();
    let found: Value = found.json().await.unwrap();
    let login_server = found["properties"]["loginServer"].as_str().unwrap().to_owned();
    for (n, image) in images.iter().enumerate() {
        let repo = format!("app{}", n % 3);
        let token = site.token(&login_server, &format!("repository:{repo}:pull")).await.unwrap();
        let get = |what: String| {
            let req = site.registry(&login_server, &token, "GET".parse().unwrap(), &format!("/v2/{repo}/{what}"));
            async { req.send().await.unwrap().bytes().await.unwrap().to_vec() }
        };
        assert_eq!(get(format!("manifests/v{n}")).await, image.manifest);
        for layer in image.layers.iter().chain([&image.config]) {
            assert_eq!(portolan_testkit::Digest::of(&get(format!("blobs/{layer}")).await), *layer);
        }
    }
}

#[tokio::test]
async fn a_damaged_store_is_told_repaired_and_healed_by_a_push() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (code, _, text) = check(&["--data", path(&data)]);
    assert!(code == Some(3) && text.contains("there is no store"), "{code:?} {text}");
    let images = filled(&data).await;
    let args = ["--data", path(&data)];
    let (code, report, text) = check(&args);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((&report["checked"]["manifests"], &report["checked"]["tags"]), (&12.into(), &12.into()));

    let hex = images[5].layers[0].hex();
    std::fs::remove_file(data.join("blobs/sha256").join(&hex[..2]).join(&hex)).unwrap();
    let (code, report, text) = check(&args);
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(report["damagedImages"][0]["tags"], serde_json::json!(["v5"]));
    let (code, _, _) = check(&["--data", path(&data), "--repair"]);
    assert_eq!(code, Some(2), "only a push can bring the content back");

    let server = Child::start(&data, &[]).await.unwrap();
    let (code, _, text) = check(&args);
    assert!(code == Some(3) && text.contains("another server is running"), "{code:?} {text}");
    let site = server.site().unwrap();
    let found = site.arm("GET".parse().unwrap(), &Site::registry_path("moved"), None).await.unwrap();
    let found: Value = found.json().await.unwrap();
    let login_server = found["properties"]["loginServer"].as_str().unwrap();
    let layers = [vec![5; 700_000], vec![1; 60_000]];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let again = site.push_image(login_server, "app2", "v5", &layers).await.unwrap();
    assert_eq!(again.digest, images[5].digest);
    pulled(&site, &images).await;
    server.terminate().await.unwrap();
    let (code, _, text) = check(&args);
    assert_eq!(code, Some(0), "{text}");
}

/// Killed again and again, the move goes on; at the end everything is there, and the source
/// is out of service until it is taken back.
#[tokio::test]
async fn a_registry_moves_to_postgres_and_s3_though_the_move_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let images = filled(&data).await;
    let target = folder.path().join("target.toml");
    let moved = folder.path().join("moved");
    std::fs::write(&target, format!("data = \"{}\"\n{}", moved.display(), shared(&postgres::database()))).unwrap();
    let args = ["migrate", "--from-data", path(&data), "--to-config", path(&target), "-o", "json"];
    let mut finished = false;
    for millis in [30, 60, 90, 120, 150, 180] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            println!("moved within {millis} ms");
            finished = true;
            break;
        }
    }
    if !finished {
        let (code, out, err) = portolan(&args);
        if code == Some(0) {
            let report: Value = serde_json::from_str(&out).unwrap();
            println!("{report}");
            assert_eq!(report["left"][0].as_str().unwrap().split(' ').next(), Some("1"), "the upload: {report}");
        } else {
            // The last kill came between the mark on the source and the end of the process.
            assert!(code == Some(3) && err.contains("was moved before"), "{code:?} {err}");
        }
    }
    let (code, report, text) = check(&["--config", path(&target)]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(report["checked"]["manifests"], 12);
    let server = Child::start(&moved, &["--config", path(&target)]).await.unwrap();
    pulled(&server.site().unwrap(), &images).await;
    server.terminate().await.unwrap();

    let refused = Child::start(&data, &[]).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("this store was moved to"), "{refused}");
    let (code, _, err) = portolan(&args);
    assert!(code == Some(3) && err.contains("was moved before"), "{code:?} {err}");
    assert_eq!(portolan(&["migrate", "--take-back", "--from-data", path(&data)]).0, Some(0));
    let (code, _, err) = portolan(&args);
    assert!(code == Some(3) && err.contains("the target is not empty"), "{code:?} {err}");
    let server = Child::start(&data, &[]).await.unwrap();
    pulled(&server.site().unwrap(), &images).await;
    server.terminate().await.unwrap();
}

#[tokio::test]
async fn an_owner_can_be_made_when_every_secret_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Child::start(&data, &[]).await.unwrap();
    server.site().unwrap().make_registry("lost1").await.unwrap();
    let (code, _, said) = portolan(&["recover-owner", "--data", path(&data)]);
    assert_eq!(code, Some(3), "a server has it: {said}");
    server.terminate().await.unwrap();

    let bootstrap = data.join("bootstrap.json");
    let before: Value = serde_json::from_slice(&std::fs::read(&bootstrap).unwrap()).unwrap();
    std::fs::remove_file(&bootstrap).unwrap();
    let (code, printed, said) = portolan(&["recover-owner", "--data", path(&data)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(printed.trim_end().ends_with("bootstrap.json"), "{printed}");
    let after: Value = serde_json::from_slice(&std::fs::read(&bootstrap).unwrap()).unwrap();
    assert_eq!(after["tenantId"], before["tenantId"]);
    assert_ne!(after["clientId"], before["clientId"]);
    assert!(!format!("{printed}{said}").contains(after["clientSecret"].as_str().unwrap()), "shown in the file alone");

    // The server takes it, and tells it the address it has now.
    let server = Child::start(&data, &[]).await.unwrap();
    let site = server.site().unwrap();
    let found = site.arm("GET".parse().unwrap(), &Site::registry_path("lost1"), None).await.unwrap();
    assert_eq!(found.status(), 200);
    let text = |value: &Value, member: &str| value[member].as_str().unwrap().to_owned();
    let (id, secret) = (text(&before, "clientId"), text(&before, "clientSecret"));
    let old = site.sign_in(&id, &secret, &format!("{}/.default", site.url)).await.unwrap();
    assert_eq!(old.status(), 200, "owners that there were stay");
    server.terminate().await.unwrap();

    let (code, _, said) = portolan(&["recover-owner", "--data", path(&dir.path().join("none"))]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("there is no store"), "{said}");
}
