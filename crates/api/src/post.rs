//! Posting bytes to an address that is no registry: a trace collector, a webhook's target.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::transport::{TransportOptions, http_client, read_body};

/// An answer whose content matters little.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A client for requests that are ready made.
#[derive(Clone, Debug)]
pub struct Poster {
    http: reqwest::Client,
}

impl Poster {
    /// With the limits and the trust of every other client (see [`http_client`]).
    pub fn new(options: &TransportOptions) -> Result<Poster> {
        Ok(Poster { http: http_client(options)? })
    }

    /// Send a request and read the whole answer, whatever its status, within `time_max`.
    ///
    /// Errors: no connection, no answer in time, an answer of more than 1 MiB.
    pub async fn send(&self, request: http::Request<Bytes>, time_max: Duration) -> Result<http::Response<Bytes>> {
        let request: reqwest::Request =
            request.try_into().map_err(|e: reqwest::Error| Error::Local(format!("the request is not one: {e}")))?;
        let url = request.url().clone();
        let exchange = async {
            let response = self.http.execute(request).await.map_err(|e| Error::transport(&url, e))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = read_body(response, "the answer", ANSWER_BYTES_MAX).await?;
            let mut answer = http::Response::new(body);
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok(answer)
        };
        match tokio::time::timeout(time_max, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::protocol(&url, format!("no answer within {} seconds", time_max.as_secs()))),
        }
    }
}
