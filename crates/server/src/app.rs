//! What every request handler is given.

use std::sync::Arc;

use portolan_service::Service;
use portolan_tasks::Tasks;

use crate::drain::Drain;
use crate::http::ops::Metrics;
use crate::settings::Settings;

/// The running server's parts, wired together once by `crate::Server`.
pub struct App {
    /// The rules.
    pub service: Arc<Service>,
    /// Runs: their queue, their logs.
    pub tasks: Arc<Tasks>,
    /// How this server is set up.
    pub settings: Arc<Settings>,
    /// Base URL of the server as clients reach it, without a slash at the end:
    /// `https://localhost:8443`.
    pub url: String,
    /// Whether the server is serving, or finishing what it has.
    pub drain: Drain,
    /// The counters behind `/metrics`.
    pub metrics: Arc<Metrics>,
}
