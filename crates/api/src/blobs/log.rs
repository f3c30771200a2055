//! A run's log, followed while it grows.
//!
//! Each request asks for what comes after the last byte seen and lets the server hold the
//! answer until there is something (`wait=<seconds>`); a server that does not know `wait`
//! answers at once, and the pauses between requests grow instead.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Url;

use crate::error::{Error, Result};
use crate::transport;

/// How long the server is asked to hold an answer.
const WAIT_SECS: u64 = 20;
/// The most that is asked for at once.
const WINDOW_BYTES: u64 = 1024 * 1024;
/// The longest pause between requests to a server that does not hold its answers.
const PAUSE_SECS_MAX: u64 = 3;
/// How often in a row a request may fail before the tail gives up.
const FAILURES_MAX: u32 = 8;

/// What one request brought.
#[derive(Clone, Debug)]
pub struct LogChunk {
    /// The bytes after the last ones; empty when nothing came in time.
    pub bytes: Bytes,
    /// The run's outcome (`succeeded`, `failed`, …) once the run is over and the log was
    /// read to its end.
    pub outcome: Option<String>,
}

/// Follows one log.
#[derive(Debug)]
pub struct LogTail {
    http: reqwest::Client,
    url: Url,
    offset: u64,
    failures: u32,
    idle: u32,
}

/// What one answer said.
struct Answer {
    bytes: Bytes,
    complete: Option<String>,
    /// The log's length as the answer states it.
    total: Option<u64>,
}

impl LogTail {
    /// Begin at the first byte. Nothing is sent yet.
    pub fn new(http: reqwest::Client, url: &str) -> Result<LogTail> {
        let mut url = Url::parse(url).map_err(|e| Error::Local(format!("bad log address: {e}")))?;
        url.query_pairs_mut().append_pair("wait", &WAIT_SECS.to_string());
        Ok(LogTail { http, url, offset: 0, failures: 0, idle: 0 })
    }

    /// Wait for what comes next. A connection that breaks is made again.
    pub async fn next(&mut self) -> Result<LogChunk> {
        loop {
            let begun = Instant::now();
            let answer = match self.ask().await {
                Ok(answer) => answer,
                Err(error) if error.is_transient() && self.failures < FAILURES_MAX => {
                    self.failures += 1;
                    tracing::debug!(%error, failures = self.failures, "following the log again");
                    tokio::time::sleep(transport::backoff(self.failures)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.failures = 0;
            let read_to_end = match answer.total {
                Some(total) => self.offset >= total,
                None => answer.bytes.is_empty(),
            };
            let outcome = answer.complete.filter(|_| read_to_end);
            if !answer.bytes.is_empty() || outcome.is_some() {
                self.idle = 0;
                return Ok(LogChunk { bytes: answer.bytes, outcome });
            }
            // Nothing new. A server that held the answer may be asked at once.
            if begun.elapsed() < Duration::from_secs(1) {
                self.idle += 1;
                let pause = Duration::from_millis(200 * u64::from(self.idle.min(30)));
                tokio::time::sleep(pause.min(Duration::from_secs(PAUSE_SECS_MAX))).await;
            }
        }
    }

    async fn ask(&mut self) -> Result<Answer> {
        let range = format!("bytes={}-{}", self.offset, self.offset + WINDOW_BYTES - 1);
        let response = self
            .http
            .get(self.url.clone())
            .header("x-ms-range", range)
            .send()
            .await
            .map_err(|e| Error::transport(&self.url, e))?;
        let status = response.status();
        let complete = outcome(response.headers());
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                let total = total(response.headers())
                    .or_else(|| (status == StatusCode::OK).then(|| response.content_length()).flatten());
                let body = transport::read_body(response, "the log", transport::ANSWER_BYTES_MAX).await?;
                // A whole answer begins at the first byte, not at ours.
                let skip =
                    if status == StatusCode::OK { usize::try_from(self.offset).unwrap_or(usize::MAX) } else { 0 };
                let bytes = body.slice(skip.min(body.len())..);
                self.offset += bytes.len() as u64;
                Ok(Answer { bytes, complete, total })
            }
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Answer { bytes: Bytes::new(), complete, total: total(response.headers()) })
            }
            // The run has not begun to write.
            StatusCode::NOT_FOUND if is_blob_not_found(response.headers()) => {
                Ok(Answer { bytes: Bytes::new(), complete, total: None })
            }
            _ => Err(Error::Refused(transport::refusal(response).await)),
        }
    }
}

fn is_blob_not_found(headers: &HeaderMap) -> bool {
    headers.get("x-ms-error-code").is_some_and(|v| v == "BlobNotFound")
}

/// `x-ms-meta-Complete`
fn outcome(headers: &HeaderMap) -> Option<String> {
    headers.get("x-ms-meta-complete").and_then(|v| v.to_str().ok()).map(str::to_ascii_lowercase)
}

/// The length after the slash of `Content-Range`.
fn total(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?.rsplit('/').next()?.trim().parse().ok()
}
