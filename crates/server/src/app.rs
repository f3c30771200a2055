//! What every request handler is given.

use std::sync::Arc;

use crate::drain::Drain;
use crate::http::ops::Metrics;
use crate::settings::Settings;

/// The running server's parts, wired together once by `crate::Server`.
pub struct App {
    /// How this server is set up.
    pub settings: Arc<Settings>,
    /// Whether the server is serving, or finishing what it has.
    pub drain: Drain,
    /// The counters behind `/metrics`.
    pub metrics: Arc<Metrics>,
}
