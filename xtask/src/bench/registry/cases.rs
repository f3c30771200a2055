//! What is measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use sha2::Digest as _;

use super::load::{Client, Sample, chunked, drive, empty, full};
use super::servers::{MOUNTS, REPO, Server};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
pub(super) const SMALL_BYTES: usize = 10 * KIB;
const RANGE_BYTES: usize = 64 * KIB;
const MEDIUM_BYTES: usize = 100 * MIB;
/// Connections that ask for nothing, and that ask all the time, in the case `crowd`.
const CROWD_IDLE: usize = 1_000;
const CROWD_BUSY: usize = 200;
/// Blobs that are mounted, each once in a round before the first is mounted again.
const MOUNT_BLOBS: u64 = 1_024;
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone)]
enum Operation {
    Ping,
    ManifestGet(Method, By),
    Crowd,
    SmallGet,
    Range,
    MediumGet,
    SmallPush,
    ManifestPut,
    Mount,
    LargePush(usize),
}

/// What a manifest is asked for by.
#[derive(Clone, Copy)]
enum By {
    Tag,
    Digest,
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
        case("manifest-get", "manifest GET by tag", conns, Operation::ManifestGet(Method::GET, By::Tag)),
        case("manifest-head", "manifest HEAD by tag", conns, Operation::ManifestGet(Method::HEAD, By::Tag)),
        case("manifest-digest", "manifest GET by digest", conns, Operation::ManifestGet(Method::GET, By::Digest)),
        case("crowd", &format!("manifest GET by tag, {CROWD_IDLE} idle beside"), CROWD_BUSY, Operation::Crowd),
        case("blob-10k-get", "blob GET 10 KiB", conns, Operation::SmallGet),
        case("range-64k", "range GET 64 KiB", conns, Operation::Range),
        case("blob-100m-get", "blob GET 100 MiB", 4, Operation::MediumGet),
        case("blob-10k-push", "blob push 10 KiB", conns, Operation::SmallPush),
        case("manifest-put", "manifest PUT", conns, Operation::ManifestPut),
        case("mount", "mount", conns, Operation::Mount),
        case("blob-1g-push", &format!("blob push {} MiB", large_bytes / MIB), 1, Operation::LargePush(large_bytes)),
    ]
}

/// Bytes that do not compress and are the same in every run for one seed.
pub(super) fn content(len: usize, seed: u64) -> Bytes {
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

pub(super) fn digest_of(bytes: &Bytes) -> String {
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

async fn begin(client: &mut Client<'_>, repo: &str) -> Result<String> {
    let path = format!("/v2/{repo}/blobs/uploads/");
    let (headers, _) =
        client.call(Method::POST, &path, &[("content-length", "0")], empty(), StatusCode::ACCEPTED).await?;
    location(&headers)
}

fn location(headers: &hyper::HeaderMap) -> Result<String> {
    Ok(headers.get("location").context("the upload has no location")?.to_str()?.to_owned())
}

/// A blob in two requests, as small clients send it.
pub(super) async fn push(client: &mut Client<'_>, repo: &str, bytes: Bytes) -> Result<()> {
    let path = finish_path(&begin(client, repo).await?, &digest_of(&bytes));
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
    let at = begin(client, REPO).await?;
    let path = finish_path(&at, "");
    let path = path.trim_end_matches("digest=").trim_end_matches(['?', '&']);
    let octets = [("content-type", "application/octet-stream")];
    let (headers, _) = client.call(Method::PATCH, path, &octets, chunked(pieces), StatusCode::ACCEPTED).await?;
    let path = finish_path(&location(&headers)?, digest);
    client.call(Method::PUT, &path, &[("content-length", "0")], empty(), StatusCode::CREATED).await?;
    Ok(())
}

/// A manifest of an image with one layer; `n` makes it differ.
pub(super) fn manifest(n: u64) -> Vec<u8> {
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

/// Put a manifest under a tag or its digest.
pub(super) async fn put_manifest(client: &mut Client<'_>, repo: &str, reference: &str, bytes: Vec<u8>) -> Result<()> {
    let path = format!("/v2/{repo}/manifests/{reference}");
    client.call(Method::PUT, &path, &[("content-type", MANIFEST_TYPE)], full(bytes), StatusCode::CREATED).await?;
    Ok(())
}

/// Store what the cases read.
pub(super) async fn prepare(server: &Server) -> Result<()> {
    let mut client = Client::connect(server).await?;
    push(&mut client, REPO, content(SMALL_BYTES, 1)).await?;
    push(&mut client, REPO, content(MEDIUM_BYTES, 2)).await?;
    put_manifest(&mut client, REPO, "v1", manifest(0)).await
}

/// What the case `mount` mounts.
fn mounted(n: u64) -> Bytes {
    content(64, (1 << 60) | (n % MOUNT_BLOBS))
}

/// GET; the length of what comes, which must be `len` if that is known.
pub(super) async fn get(
    client: &mut Client<'_>,
    path: &str,
    headers: &[(&str, &str)],
    status: StatusCode,
    len: Option<usize>,
) -> Result<u64> {
    let (_, got) = client.call(Method::GET, path, headers, empty(), status).await?;
    if let Some(len) = len {
        ensure!(got == len as u64, "GET {path}: {got} bytes, not {len}");
    }
    Ok(got)
}

impl Case {
    /// Run the case for `time`. `round` makes what is pushed new in every round.
    pub(super) async fn run(&self, server: &Server, time: Duration, round: u64) -> Result<Sample> {
        let blob = |bytes: &Bytes| format!("/v2/{REPO}/blobs/{}", digest_of(bytes));
        let conns = self.conns;
        match self.operation.clone() {
            Operation::Ping => {
                drive(server, conns, time, async |client, _| {
                    let (_, len) = client.call(Method::GET, "/v2/", &[], empty(), StatusCode::OK).await?;
                    Ok(len)
                })
                .await
            }
            Operation::ManifestGet(method, by) => {
                let bytes = manifest(0);
                let len = if method == Method::HEAD { 0 } else { bytes.len() as u64 };
                let path = match by {
                    By::Tag => format!("/v2/{REPO}/manifests/v1"),
                    By::Digest => format!("/v2/{REPO}/manifests/{}", digest_of(&bytes.into())),
                };
                let accept = [("accept", MANIFEST_TYPE)];
                drive(server, conns, time, async |client, _| {
                    let (_, got) = client.call(method.clone(), &path, &accept, empty(), StatusCode::OK).await?;
                    ensure!(got == len, "{method} {path}: {got} bytes, not {len}");
                    Ok(got)
                })
                .await
            }
            Operation::Crowd => {
                let (path, len) = (format!("/v2/{REPO}/manifests/v1"), manifest(0).len());
                let mut idle = Vec::with_capacity(CROWD_IDLE);
                for _ in 0..CROWD_IDLE {
                    let mut client = Client::connect(server).await?;
                    // They have been of use, and come back later.
                    get(&mut client, "/v2/", &[], StatusCode::OK, None).await?;
                    idle.push(client);
                }
                let sample = drive(server, conns, time, async |client, _| {
                    get(client, &path, &[("accept", MANIFEST_TYPE)], StatusCode::OK, Some(len)).await
                })
                .await?;
                for client in &mut idle {
                    get(client, "/v2/", &[], StatusCode::OK, None).await.context("a connection that was idle")?;
                }
                Ok(sample)
            }
            Operation::SmallGet => {
                let path = blob(&content(SMALL_BYTES, 1));
                drive(server, conns, time, async |client, _| {
                    get(client, &path, &[], StatusCode::OK, Some(SMALL_BYTES)).await
                })
                .await
            }
            Operation::Range => {
                let path = blob(&content(MEDIUM_BYTES, 2));
                drive(server, conns, time, async |client, n| {
                    // Every place of the blob in turn, far from the one before.
                    let at = (n as usize * 7919) % (MEDIUM_BYTES / RANGE_BYTES) * RANGE_BYTES;
                    let range = format!("bytes={at}-{}", at + RANGE_BYTES - 1);
                    get(client, &path, &[("range", &range)], StatusCode::PARTIAL_CONTENT, Some(RANGE_BYTES)).await
                })
                .await
            }
            Operation::MediumGet => {
                let path = blob(&content(MEDIUM_BYTES, 2));
                drive(server, conns, time, async |client, _| {
                    get(client, &path, &[], StatusCode::OK, Some(MEDIUM_BYTES)).await
                })
                .await
            }
            Operation::SmallPush => {
                drive(server, conns, time, async |client, n| {
                    push(client, REPO, content(SMALL_BYTES, (round + 1) << 40 | n)).await?;
                    Ok(SMALL_BYTES as u64)
                })
                .await
            }
            Operation::ManifestPut => {
                drive(server, conns, time, async |client, n| {
                    let bytes = manifest((round + 1) << 40 | n);
                    let len = bytes.len() as u64;
                    put_manifest(client, REPO, &format!("r{round}-{n}"), bytes).await?;
                    Ok(len)
                })
                .await
            }
            Operation::Mount => {
                let digests: Vec<String> = (0..MOUNT_BLOBS).map(|n| digest_of(&mounted(n))).collect();
                if round == 0 {
                    let mut client = Client::connect(server).await?;
                    for n in 0..MOUNT_BLOBS {
                        push(&mut client, REPO, mounted(n)).await?;
                    }
                }
                drive(server, conns, time, async |client, n| {
                    let digest = &digests[(n % MOUNT_BLOBS) as usize];
                    let path = format!("/v2/{MOUNTS}{round}/blobs/uploads/?mount={digest}&from={REPO}");
                    let length = [("content-length", "0")];
                    client.call(Method::POST, &path, &length, empty(), StatusCode::CREATED).await?;
                    Ok(0)
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
