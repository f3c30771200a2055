//! The one way out for `git`: a proxy on the loopback, which connects where the rules permit
//! ([`Egress`]) and nowhere else.
//!
//! git looks names up by itself, follows redirects and fetches what submodules name. Behind
//! this door all of that is judged by the address that a connection goes to, when it is made.
//! The door stands for one fetch, asks for a password that only that git is told, and closes
//! with it. It speaks HTTP/1.1: `CONNECT` for TLS, and one request on a connection otherwise.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_api::egress::Egress;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections at one time.
const CONNECTIONS_MAX: usize = 32;
/// How long a head may take to come, and a connection to be made, in seconds.
const OPEN_SECS_MAX: u64 = 10;

/// An open door; it closes when dropped.
pub(super) struct Door {
    address: SocketAddr,
    password: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Door {
    /// Open one.
    pub(super) async fn open(egress: Arc<Egress>) -> io::Result<Door> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
        let password = portolan_types::digest::hex(&bytes);
        let expected = format!("Basic {}", STANDARD.encode(format!("git:{password}")));
        let accepting = tokio::spawn(accept(listener, egress, expected.into()));
        Ok(Door { address, password, accepting })
    }

    /// What `http_proxy` and `https_proxy` are to say.
    pub(super) fn url(&self) -> String {
        format!("http://git:{}@{}", self.password, self.address)
    }
}

async fn accept(listener: TcpListener, egress: Arc<Egress>, expected: Arc<str>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Connections end with the door.
    let mut all = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else { continue };
        let (egress, expected) = (egress.clone(), expected.clone());
        all.spawn(async move {
            let _permit = permit;
            if let Err(error) = serve(client, &egress, &expected).await {
                tracing::debug!(%error, "a connection of git ended");
            }
        });
        while all.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, egress: &Egress, expected: &str) -> io::Result<()> {
    let limit = Duration::from_secs(OPEN_SECS_MAX);
    let (head, rest) = tokio::time::timeout(limit, head(&mut client)).await??;
    let Some(asked) = Asked::read(&head) else { return answer(&mut client, "400 Bad Request", "").await };
    if asked.authorization.as_deref() != Some(expected) {
        let ask = "Proxy-Authenticate: Basic realm=\"door\"\r\n";
        return answer(&mut client, "407 Proxy Authentication Required", ask).await;
    }
    let connect = async {
        let addresses = egress.resolve(&asked.host, asked.port).await?;
        TcpStream::connect(addresses.as_slice()).await
    };
    let mut server = match tokio::time::timeout(limit, connect).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            // curl shows a refused tunnel by its status alone; the reason is in the words.
            tracing::info!(host = asked.host, "git was kept from connecting");
            return answer(&mut client, "403 Not open to builds", "").await;
        }
        Ok(Err(_)) | Err(_) => return answer(&mut client, "502 Bad Gateway", "").await,
    };
    match &asked.forward {
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Some(head) => server.write_all(head.as_bytes()).await?,
    }
    server.write_all(&rest).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn answer(client: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// The head of a request, and what came after it.
async fn head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
            return Ok((head, rest));
        }
        if bytes.len() > HEAD_BYTES_MAX || client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// What a request asks of a proxy.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    host: String,
    port: u16,
    authorization: Option<String>,
    /// The head to send on, for a request that is no `CONNECT`.
    forward: Option<String>,
}

impl Asked {
    fn read(head: &str) -> Option<Asked> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let mut authorization = None;
        let mut kept = String::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            match name.to_ascii_lowercase().as_str() {
                "proxy-authorization" => authorization = Some(value.trim().to_owned()),
                "proxy-connection" | "connection" | "keep-alive" => {}
                _ => kept.extend([line, "\r\n"]),
            }
        }
        if method == "CONNECT" {
            let (host, port) = target.rsplit_once(':')?;
            return Some(Asked { host: bare(host)?, port: port.parse().ok()?, authorization, forward: None });
        }
        let rest = target.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        // One request a connection: who answers it then ends it.
        let forward = format!("{method} {slash}{path} {version}\r\n{kept}Connection: close\r\n\r\n");
        Some(Asked { host: bare(host)?, port, authorization, forward: Some(forward) })
    }
}

/// A host as it is looked up.
fn bare(host: &str) -> Option<String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fine = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b':');
    (!host.is_empty() && host.bytes().all(fine)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_a_proxy() {
        let asked = Asked::read("CONNECT h.example:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eA==\r\n\r\n");
        let expected =
            Asked { host: "h.example".into(), port: 443, authorization: Some("Basic eA==".into()), forward: None };
        assert_eq!(asked, Some(expected));
        let asked =
            Asked::read("GET http://[::1]:8080/a?b HTTP/1.1\r\nHost: h\r\nProxy-Connection: x\r\n\r\n").unwrap();
        assert_eq!((asked.host.as_str(), asked.port), ("::1", 8080));
        assert_eq!(asked.forward.as_deref(), Some("GET /a?b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        for bad in
            ["", "GET / HTTP/1.1\r\n", "CONNECT h HTTP/1.1\r\n", "GET http://h/\r\n", "CONNECT a b:1 HTTP/1.1\r\n"]
        {
            assert_eq!(Asked::read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_gets_through_without_the_password_or_to_a_closed_address() {
        // Something to reach.
        let inside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = inside.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = inside.accept().await {
                let _ =
                    peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret").await;
            }
        });
        let ask = async |door: &Door, password: &str| {
            let mut peer = TcpStream::connect(door.address).await.unwrap();
            let authorization = STANDARD.encode(format!("git:{password}"));
            let head = format!("GET http://{target}/ HTTP/1.1\r\nProxy-Authorization: Basic {authorization}\r\n\r\n");
            peer.write_all(head.as_bytes()).await.unwrap();
            let mut text = String::new();
            peer.read_to_string(&mut text).await.unwrap();
            text
        };
        let open =
            Door::open(Arc::new(Egress { allow: vec!["127.0.0.0/8".parse().unwrap()], private: false })).await.unwrap();
        assert!(ask(&open, &open.password).await.ends_with("secret"));
        assert!(ask(&open, "guess").await.starts_with("HTTP/1.1 407"));
        let closed = Door::open(Arc::new(Egress { allow: Vec::new(), private: true })).await.unwrap();
        assert!(ask(&closed, &closed.password).await.starts_with("HTTP/1.1 403"));
    }
}
