//! A small HTTP/1.1 server: every request goes to a function of the test and is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Say {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
}

impl Say {
    pub(crate) fn status(status: u16) -> Say {
        Say { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Say {
        Say { body: body.into(), ..Say::status(200) }
    }

    pub(crate) fn json(value: serde_json::Value) -> Say {
        Say::ok(value.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Say {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Say {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Say {
        self.cut = Some(bytes);
        self
    }
}

/// The server.
pub(crate) struct Site {
    pub base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Answer = dyn Fn(&Asked) -> Say + Send + Sync;

impl Site {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept): (Arc<Answer>, _) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), kept.clone()));
            }
        });
        Site { base, asked }
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Method and target of each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }
}

async fn serve(stream: TcpStream, answer: Arc<Answer>, kept: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream).await {
        kept.lock().unwrap().push(asked.clone());
        let say = answer(&asked);
        let mut head = format!("HTTP/1.1 {} x\r\n", say.status);
        let head_only = asked.method == "HEAD";
        if !say.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) && say.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", say.body.len()));
        }
        for (name, value) in &say.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body = if head_only { &[][..] } else { &say.body[..say.cut.unwrap_or(say.body.len())] };
        if stream.write_all(head.as_bytes()).await.is_err()
            || stream.write_all(body).await.is_err()
            || say.cut.is_some()
        {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    asked.method = words.next()?.to_owned();
    asked.target = words.next()?.to_owned();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(length) = asked.header("content-length").and_then(|n| n.parse().ok()) {
        asked.body = vec![0; length];
        stream.read_exact(&mut asked.body).await.ok()?;
    }
    Some(asked)
}
