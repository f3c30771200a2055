//! What is measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use sha2::Digest as _;

use super::load::{Client, Sample, chunked, drive, empty, full};
use super::servers::{REPO, Server};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SMALL_BYTES: usize = 10 * KIB;
const RANGE_BYTES: usize = 64 * KIB;
const MEDIUM_BYTES: usize = 100 * MIB;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone, Copy)]
enum Operation {
    Ping,
    ManifestGet,
    SmallGet,
    Range,
    MediumGet,
    SmallPush,
    ManifestPut,
    LargePush(usize),
}

/// One case.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) conns: usize,
    operation: Operation,
}

/// Every case, in the order of the report.
pub(super) fn all(conns: usize, large_bytes: usize) -> Vec<Case> {
    let case = |name, what: &str, conns, operation| Case { name, what: what.to_owned(), conns, operation };
    vec![
        case("ping", "GET /v2/", conns, Operation::Ping),
        case("manifest-get", "manifest GET by tag", conns, Operation::ManifestGet),
        case("blob-10k-get", "blob GET 10 KiB", conns, Operation::SmallGet),
        case("range-64k", "range GET 64 KiB", conns, Operation::Range),
        case("blob-100m-get", "blob GET 100 MiB", 4, Operation::MediumGet),
        case("blob-10k-push", "blob push 10 KiB", conns, Operation::SmallPush),
        case("manifest-put", "manifest PUT", conns, Operation::ManifestPut),
        case("blob-1g-push", &format!("blob push {} MiB", large_bytes / MIB), 1, Operation::LargePush(large_bytes)),
    ]
}

/// Bytes that do not compress and are the same in every run for one seed.
fn content(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn digest(pieces: impl Iterator<Item = Bytes>) -> String {
    let mut hasher = sha2::Sha256::new();
    pieces.for_each(|piece| hasher.update(&piece));
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn digest_of(bytes: &Bytes) -> String {
    digest(std::iter::once(bytes.clone()))
}

/// `location` of an upload as a path, with the digest added.
fn finish_path(location: &str, digest: &str) -> String {
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => location,
    };
    format!("{path}{}digest={digest}", if path.contains('?') { '&' } else { '?' })
}

async fn begin(client: &mut Client<'_>) -> Result<String> {
    let path = format!("/v2/{REPO}/blobs/uploads/");
    let (headers, _) =
        client.call(Method::POST, &path, &[("content-length", "0")], empty(), StatusCode::ACCEPTED).await?;
    location(&headers)
}

fn location(headers: &hyper::HeaderMap) -> Result<String> {
    Ok(headers.get("location").context("the upload has no location")?.to_str()?.to_owned())
}

/// A blob in two requests, as small clients send it.
async fn push(client: &mut Client<'_>, bytes: Bytes) -> Result<()> {
    let path = finish_path(&begin(client).await?, &digest_of(&bytes));
    let octets = [("content-type", "application/octet-stream")];
    client.call(Method::PUT, &path, &octets, full(bytes), StatusCode::CREATED).await?;
    Ok(())
}

/// A blob in three requests, the bytes in one chunked body, as docker sends a layer.
async fn push_streamed(
    client: &mut Client<'_>,
    pieces: impl Iterator<Item = Bytes> + Clone + Send + 'static,
    digest: &str,
) -> Result<()> {
    let at = begin(client).await?;
    let path = finish_path(&at, "");
    let path = path.trim_end_matches("digest=").trim_end_matches(['?', '&']);
    let octets = [("content-type", "application/octet-stream")];
    let (headers, _) = client.call(Method::PATCH, path, &octets, chunked(pieces), StatusCode::ACCEPTED).await?;
    let path = finish_path(&location(&headers)?, digest);
    client.call(Method::PUT, &path, &[("content-length", "0")], empty(), StatusCode::CREATED).await?;
    Ok(())
}

/// A manifest of an image with one layer; `n` makes it differ.
fn manifest(n: u64) -> Vec<u8> {
    let small = content(SMALL_BYTES, 1);
    let descriptor = |kind: &str| json!({"mediaType": kind, "digest": digest_of(&small), "size": small.len()});
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        "annotations": {"n": n.to_string()},
    })
    .to_string()
    .into_bytes()
}

async fn put_manifest(client: &mut Client<'_>, tag: &str, bytes: Vec<u8>) -> Result<()> {
    let path = format!("/v2/{REPO}/manifests/{tag}");
    client.call(Method::PUT, &path, &[("content-type", MANIFEST_TYPE)], full(bytes), StatusCode::CREATED).await?;
    Ok(())
}

/// Store what the cases read.
pub(super) async fn prepare(server: &Server) -> Result<()> {
    let mut client = Client::connect(server).await?;
    push(&mut client, content(SMALL_BYTES, 1)).await?;
    push(&mut client, content(MEDIUM_BYTES, 2)).await?;
    put_manifest(&mut client, "v1", manifest(0)).await
}

/// GET and check the length.
async fn get(
    client: &mut Client<'_>,
    path: &str,
    headers: &[(&str, &str)],
    status: StatusCode,
    len: usize,
) -> Result<u64> {
    let (_, got) = client.call(Method::GET, path, headers, empty(), status).await?;
    ensure!(got == len as u64, "GET {path}: {got} bytes, not {len}");
    Ok(got)
}

impl Case {
    /// Run the case for `time`. `round` makes what is pushed new in every round.
    pub(super) async fn run(&self, server: &Server, time: Duration, round: u64) -> Result<Sample> {
        let blob = |bytes: &Bytes| format!("/v2/{REPO}/blobs/{}", digest_of(bytes));
        let conns = self.conns;
        match self.operation {
            Operation::Ping => {
                drive(server, conns, time, async |client, _| {
                    let (_, len) = client.call(Method::GET, "/v2/", &[], empty(), StatusCode::OK).await?;
                    Ok(len)
                })
                .await
            }
            Operation::ManifestGet => {
                let (path, len) = (format!("/v2/{REPO}/manifests/v1"), manifest(0).len());
                drive(server, conns, time, async |client, _| {
                    get(client, &path, &[("accept", MANIFEST_TYPE)], StatusCode::OK, len).await
                })
                .await
            }
            Operation::SmallGet => {
                let path = blob(&content(SMALL_BYTES, 1));
                drive(server, conns, time, async |client, _| get(client, &path, &[], StatusCode::OK, SMALL_BYTES).await)
                    .await
            }
            Operation::Range => {
                let path = blob(&content(MEDIUM_BYTES, 2));
                drive(server, conns, time, async |client, n| {
                    // Every place of the blob in turn, far from the one before.
                    let at = (n as usize * 7919) % (MEDIUM_BYTES / RANGE_BYTES) * RANGE_BYTES;
                    let range = format!("bytes={at}-{}", at + RANGE_BYTES - 1);
                    get(client, &path, &[("range", &range)], StatusCode::PARTIAL_CONTENT, RANGE_BYTES).await
                })
                .await
            }
            Operation::MediumGet => {
                let path = blob(&content(MEDIUM_BYTES, 2));
                drive(server, conns, time, async |client, _| {
                    get(client, &path, &[], StatusCode::OK, MEDIUM_BYTES).await
                })
                .await
            }
            Operation::SmallPush => {
                drive(server, conns, time, async |client, n| {
                    push(client, content(SMALL_BYTES, (round + 1) << 40 | n)).await?;
                    Ok(SMALL_BYTES as u64)
                })
                .await
            }
            Operation::ManifestPut => {
                drive(server, conns, time, async |client, n| {
                    let bytes = manifest((round + 1) << 40 | n);
                    let len = bytes.len() as u64;
                    put_manifest(client, &format!("r{round}-{n}"), bytes).await?;
                    Ok(len)
                })
                .await
            }
            Operation::LargePush(len) => {
                let block = content(64 * MIB, 1000 + round);
                let pieces = move || {
                    let block = block.clone();
                    (0..len).step_by(256 * KIB).map(move |at| {
                        let from = at % block.len();
                        block.slice(from..from + 256 * KIB)
                    })
                };
                let digest = digest(pieces());
                drive(server, conns, Duration::ZERO, async |client, _| {
                    push_streamed(client, pieces(), &digest).await?;
                    Ok(len as u64)
                })
                .await
            }
        }
    }
}
