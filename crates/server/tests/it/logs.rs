//! The access and the audit log: one line of JSON for each thing, and never a secret.

use std::path::{Path, PathBuf};

use portolan_server::sink::LogTarget;
use portolan_testkit::Site;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::TestServer;

struct Logs {
    t: TestServer,
    dir: tempfile::TempDir,
}

impl Logs {
    async fn start() -> Logs {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| LogTarget::File(dir.path().join(name));
        let (access, audit) = (at("access.log"), at("audit.log"));
        let t = TestServer::start_with(move |s| (s.access_log, s.audit_log) = (access, audit)).await;
        Logs { t, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the audit log holds now: its lines are there when an answer is.
    fn audit(&self) -> Vec<Value> {
        lines(&self.path("audit.log"))
    }

    /// What the access log holds, once everything that is over was written.
    fn access(&self) -> Vec<Value> {
        self.t.server.app.access.flush();
        lines(&self.path("access.log"))
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn find<'a>(lines: &'a [Value], event: &str, outcome: &str) -> &'a Value {
    let found = lines.iter().rev().find(|l| l["event"] == event && l["outcome"] == outcome);
    found.unwrap_or_else(|| panic!("no {event} {outcome} in {lines:#?}"))
}

#[tokio::test]
async fn changes_sign_ins_and_refusals_are_in_the_audit_log_before_they_are_answered() {
    let logs = Logs::start().await;
    let t = &logs.t;
    let login = t.site.make_registry("audited").await.unwrap();
    let made = logs.audit();
    assert_eq!(find(&made, "registry.change", "success")["principal_kind"], "sp");
    assert_eq!(find(&made, "sign_in", "success")["principal_id"], t.site.bootstrap.client_id.as_str());

    let pushed = t.site.push_image(&login, "team/app", "v1", &[b"layer"]).await.unwrap();
    let push = find(&logs.audit(), "manifest.push", "success").clone();
    assert_eq!(
        (&push["registry"], &push["repository"], &push["reference"]),
        (&json!("audited"), &json!("team/app"), &json!("v1"))
    );
    assert_eq!((&push["status"], &push["client"]), (&json!(201), &json!("127.0.0.1")));
    assert!(uuid::Uuid::try_parse(push["request_id"].as_str().unwrap()).is_ok());
    find(&logs.audit(), "blob.push", "success");

    let token = t.site.token(&login, "repository:team/app:pull,delete").await.unwrap();
    let ask = |method: Method, path: String| t.site.registry(&login, &token, method, &path).send();
    // A token that may not push: refused, and told of.
    let put = t.site.put_manifest(&login, &token, "team/app", "v2", &pushed.manifest).await.unwrap();
    assert!([401, 403].contains(&put.status().as_u16()), "{}", put.status());
    assert_eq!(find(&logs.audit(), "manifest.push", "denied")["reference"], "v2");
    ask(Method::DELETE, format!("/v2/team/app/manifests/{}", pushed.digest)).await.unwrap();
    find(&logs.audit(), "manifest.delete", "success");

    let wrong = t.site.sign_in(&t.site.bootstrap.client_id, "not-the-secret", "x/.default").await.unwrap();
    assert_eq!(wrong.status(), 401);
    let denied = find(&logs.audit(), "sign_in", "denied").clone();
    assert_eq!(
        (&denied["principal_kind"], &denied["principal_id"]),
        (&json!("claimed"), &json!(t.site.bootstrap.client_id))
    );

    let path = format!("{}/listCredentials", Site::registry_path("audited"));
    let credentials: Value = t.site.arm(Method::POST, &path, Some(json!({}))).await.unwrap().json().await.unwrap();
    find(&logs.audit(), "credentials.read", "success");

    // Reading is not the audit log's business, nor is the challenge that every push begins with.
    let before = logs.audit().len();
    ask(Method::GET, "/v2/team/app/tags/list".into()).await.unwrap();
    t.site.client.post(format!("https://{login}/v2/team/app/blobs/uploads/")).send().await.unwrap();
    assert_eq!(logs.audit().len(), before);

    // Nowhere a secret.
    let all = format!(
        "{}{}",
        std::fs::read_to_string(logs.path("audit.log")).unwrap(),
        logs.access().iter().map(Value::to_string).collect::<String>()
    );
    let password = credentials["passwords"][0]["value"].as_str().unwrap();
    for secret in [t.site.bootstrap.client_secret.as_str(), password, token.as_str(), "not-the-secret", "sig="] {
        assert!(!all.contains(secret), "a secret is in the log: {secret}");
    }
    logs.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_access_line_says_who_asked_what_and_how_it_went() {
    let logs = Logs::start().await;
    let t = &logs.t;
    let login = t.site.make_registry("access").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let res = t
        .site
        .registry(&login, &token, Method::GET, "/v2/a/manifests/v1?sig=SECRET")
        .header("user-agent", "evil\"agent\u{1b}[31m".replace('\u{1b}', "\\e"))
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .send()
        .await
        .unwrap();
    let id = res.headers()["x-ms-request-id"].to_str().unwrap().to_owned();
    let body = res.bytes().await.unwrap();
    let line = loop {
        if let Some(line) = logs.access().into_iter().find(|l| l["request_id"] == id.as_str()) {
            break line;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(line["log"], "access");
    assert_eq!((&line["method"], &line["route"]), (&json!("GET"), &json!("/v2/{name}/manifests/{reference}")));
    assert_eq!((&line["path"], &line["status"]), (&json!("/v2/a/manifests/v1"), &json!(404)));
    assert_eq!((&line["bytes_out"], &line["whole"]), (&json!(body.len()), &json!(true)));
    assert_eq!((&line["principal_kind"], &line["client"]), (&json!("sp"), &json!("127.0.0.1")));
    assert_eq!(line["principal_id"], t.site.bootstrap.client_id.as_str());
    assert_eq!(line["user_agent"], "evil\"agent\\e[31m");
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert!(line["ms"].is_number() && line["scheme"] == "https");
    assert!(portolan_types::Timestamp::parse(line["time"].as_str().unwrap()).is_some());

    // Bytes that came are counted too, and a request that is refused at the rim has a line.
    let form = [("grant_type", "nonsense")];
    t.site.client.post(format!("https://{login}/oauth2/token")).form(&form).send().await.unwrap();
    let line = loop {
        if let Some(line) =
            logs.access().into_iter().rev().find(|l| l["route"] == "/oauth2/token" && l["status"] == 400)
        {
            break line;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(line["bytes_in"], "grant_type=nonsense".len());
    logs.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_in_the_audit_log() {
    use tokio::io::AsyncWriteExt;
    let logs = Logs::start().await;
    let t = &logs.t;
    let login = t.site.make_registry("leaves").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let head = format!(
        "PUT /v2/a/manifests/v1 HTTP/1.1\r\nhost: {login}\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let in_flight = || t.server.app.metrics.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    while in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let lines = logs.audit();
    let left = lines.iter().find(|l| l["event"] == "manifest.push").unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(["abandoned", "failed"].contains(&left["outcome"].as_str().unwrap()), "{left}");
    logs.t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn files_are_opened_anew_when_asked() {
    let logs = Logs::start().await;
    logs.t.site.make_registry("before").await.unwrap();
    std::fs::rename(logs.path("audit.log"), logs.path("audit.log.1")).unwrap();
    logs.t.server.reload();
    logs.t.site.make_registry("after").await.unwrap();
    let paths = |name: &str| {
        let all = lines(&logs.path(name)).into_iter().filter(|l| l["event"] == "registry.change");
        all.map(|l| l["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((paths("audit.log.1"), paths("audit.log")), (vec!["before".to_owned()], vec!["after".to_owned()]));
    logs.t.server.shutdown().await.unwrap();
}
