//! Clients that mean harm: what they send is refused with the right words, changes nothing,
//! costs little, and nobody else notices.

mod content;
mod frames;
mod requests;
mod uploads;

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// A server with a registry, and a token for two of its repositories.
struct Target {
    t: TestServer,
    login: String,
    token: String,
}

/// One answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Answer { status, head, body: bytes[end..].to_vec() }
    }

    fn header(&self, name: &str) -> &str {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("")
    }

    /// Status and the specification's code, from a body of the specification's shape.
    fn refusal(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(1), "{body}");
        assert!(body["errors"][0]["message"].as_str().is_some_and(|m| !m.is_empty() && m.len() < 2_000), "{body}");
        (self.status, body["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

impl Target {
    async fn start() -> Target {
        let t = TestServer::start().await;
        let login = t.site.make_registry("hostile").await.unwrap();
        let scope = "repository:a:pull,push,delete repository:b:pull,push registry:catalog:*";
        let token = t.site.token(&login, scope).await.unwrap();
        Target { t, login, token }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.t.server.http.unwrap()).await.unwrap()
    }

    /// Everything the server says to these bytes, until it closes or has nothing more to
    /// say; whether it closed.
    async fn raw(&self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let (mut read, mut write) = self.connect().await.into_split();
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            // A server that hangs up in the middle is one of the right answers.
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut all = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        let closed = loop {
            match tokio::time::timeout(Duration::from_secs(2), read.read(&mut piece)).await {
                Ok(Ok(0) | Err(_)) => break true,
                Ok(Ok(n)) => all.extend_from_slice(&piece[..n]),
                Err(_) => break false,
            }
        };
        sending.abort();
        (all, closed)
    }

    /// A request as it is, on a connection of its own.
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n",
            self.login, self.token
        );
        if !headers.iter().any(|(name, _)| ["content-length", "transfer-encoding"].contains(name)) {
            request += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (request + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        let mut stream = self.connect().await;
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Answer::read(&answer)
    }

    async fn blob(&self, repo: &str, bytes: &[u8]) -> portolan_types::Digest {
        self.t.site.push_blob(&self.login, &self.token, repo, bytes).await.unwrap()
    }

    async fn begin(&self, repo: &str) -> String {
        let begun = self.send("POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"").await;
        assert_eq!(begun.status, 202, "{begun:?}");
        begun.header("location").to_owned()
    }

    /// The server answers as before, and no handler has panicked.
    async fn unharmed(self) {
        let metrics = self.t.get(format!("{}/metrics", self.t.http())).await.text().await.unwrap();
        let panics = metrics.lines().find(|l| l.starts_with("portolan_http_panics_total ")).unwrap();
        assert_eq!(panics, "portolan_http_panics_total 0");
        let base = self.send("GET", "/v2/", &[], b"").await;
        assert_eq!(base.status, 200, "{base:?}");
        self.t.server.shutdown().await.unwrap();
    }
}
