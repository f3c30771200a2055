//! Traces, as a collector gets them: real requests, OTLP over HTTP, decoded.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use portolan_testkit::Child;
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A batch as it came: the request's head, and what it held.
struct Batch {
    head: String,
    request: ExportTraceServiceRequest,
}

/// Takes batches; ends with the test.
async fn collector() -> (String, mpsc::Receiver<Batch>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (sender, batches) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take(stream, sender.clone()));
        }
    });
    (base, batches)
}

async fn take(stream: TcpStream, sender: mpsc::Sender<Batch>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head).await {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a content-length")];
        stream.read_exact(&mut body).await.unwrap();
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("protobuf");
        let _ = sender.send(Batch { head, request }).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).await.unwrap();
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|a| a.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(n) => n.to_string(),
        other => format!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn a_request_is_a_span_with_its_storage_below_and_its_caller_above() {
    let (base, mut batches) = collector().await;
    let data = tempfile::tempdir().unwrap();
    let headers = data.path().join("headers");
    std::fs::write(&headers, "x-collector-key: let-us-in\n").unwrap();
    let config = data.path().join("p.toml");
    let text = format!(
        "otlp_endpoint = '{base}'\notlp_headers_file = '{}'\notlp_service_name = 'portolan-test'\n",
        headers.display()
    );
    std::fs::write(&config, text).unwrap();
    let child = Child::start(&data.path().join("data"), &["--config", config.to_str().unwrap()]).await.unwrap();
    let site = child.site().unwrap();
    let login = site.make_registry("traced").await.unwrap();
    site.push_image(&login, "a", "v1", &[b"one"]).await.unwrap();
    let token = site.token(&login, "repository:a:pull").await.unwrap();
    let get = |parent: &'static str| {
        let req = site.registry(&login, &token, reqwest::Method::GET, "/v2/a/tags/list");
        req.header("traceparent", parent).send()
    };
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let traced = get("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").await.unwrap();
    let request_id = traced.headers()["x-ms-request-id"].to_str().unwrap().to_owned();
    assert_eq!(traced.status(), 200);
    // This client says that it does not want it traced.
    get("00-ffffffffffffffffffffffffffffffff-b7ad6b7169203331-00").await.unwrap();
    // What waits is sent before the server ends.
    let (code, _, log) = child.terminate().await.unwrap();
    assert_eq!(code, Some(0), "{log}");

    let mut spans = Vec::new();
    while let Ok(Some(batch)) = tokio::time::timeout(Duration::from_secs(1), batches.recv()).await {
        assert!(batch.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", batch.head);
        assert!(batch.head.contains("x-collector-key: let-us-in"), "{}", batch.head);
        for resource in batch.request.resource_spans {
            let service = resource.resource.unwrap().attributes.into_iter().find(|a| a.key == "service.name").unwrap();
            assert_eq!(service.value.unwrap().value, Some(Value::StringValue("portolan-test".into())));
            spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
        }
    }
    let names: Vec<_> = spans.iter().map(|s| s.name.as_str()).collect();
    let of = |name: &str| spans.iter().filter(|s| s.name == name).collect::<Vec<_>>();
    let [request] = of("GET /v2/{name}/tags/list")[..] else { panic!("{names:?}") };
    assert_eq!(
        (hex(&request.trace_id), hex(&request.parent_span_id)),
        (TRACE.to_owned(), "b7ad6b7169203331".to_owned())
    );
    // SPAN_KIND_SERVER
    assert_eq!(request.kind, 2);
    for (key, value) in [
        ("http.route", "/v2/{name}/tags/list"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("portolan.request_id", &request_id),
        ("server.address", &login),
    ] {
        assert_eq!(attribute(request, key).as_deref(), Some(value), "{key}: {request:?}");
    }
    let below: Vec<_> = spans.iter().filter(|s| s.parent_span_id == request.span_id).map(|s| s.name.as_str()).collect();
    assert!(below.contains(&"db.read"), "{below:?} of {names:?}");
    // A write runs to its end in a task of its own, and is part of the trace all the same.
    let [push] = of("PUT /v2/{name}/manifests/{reference}")[..] else { panic!("{names:?}") };
    assert!(spans.iter().any(|s| s.name == "db.write" && s.trace_id == push.trace_id), "{names:?}");
    assert!(spans.iter().all(|s| hex(&s.trace_id) != "f".repeat(32)));
    // Nothing of a span is secret.
    let all = format!("{spans:?}");
    assert!(!all.contains(token.as_str()) && !all.contains(&site.bootstrap.client_secret));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_traces_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("p.toml");
    // Port 9 (discard): nobody listens.
    std::fs::write(&config, "otlp_endpoint = 'http://127.0.0.1:9'\n").unwrap();
    let child = Child::start(&data.path().join("data"), &["--config", config.to_str().unwrap()]).await.unwrap();
    let site = child.site().unwrap();
    let login = site.make_registry("faraway").await.unwrap();
    site.push_image(&login, "a", "v1", &[b"one"]).await.unwrap();
    let (code, _, log) = child.terminate().await.unwrap();
    assert_eq!(code, Some(0), "{log}");
}
