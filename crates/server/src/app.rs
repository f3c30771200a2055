//! What every request handler is given.

use std::sync::Arc;

use portolan_service::Service;
use portolan_store::blob::BlobStats;
use portolan_tasks::Tasks;
use portolan_types::Secret;

use crate::build::stock::Shelves;
use crate::drain::Drain;
use crate::http::identity::provider::OwnProvider;
use crate::http::memory::Memory;
use crate::http::ops::Metrics;
use crate::http::rate::Rates;
use crate::issuers::Issuers;
use crate::settings::Settings;
use crate::sink::Sink;

/// The running server's parts, wired together once by `crate::Server`.
pub struct App {
    /// The rules.
    pub service: Arc<Service>,
    /// Runs: their queue, their logs.
    pub tasks: Arc<Tasks>,
    /// Where clients answer for the ssh agents of their builds.
    pub(crate) relays: Arc<crate::build::ssh::Relays>,
    /// What build contexts left, where clients may be told of it.
    pub(crate) stock: Option<Arc<Shelves>>,
    /// How this server is set up.
    pub settings: Arc<Settings>,
    /// Base URL of the server as clients reach it, without a slash at the end:
    /// `https://localhost:8443`.
    pub url: String,
    /// Whether the server is serving, or finishing what it has.
    pub drain: Drain,
    /// The counters behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The figures of the blob store.
    pub blob_stats: Arc<BlobStats>,
    /// What `/metrics` asks for, if anything.
    pub metrics_token: Option<Secret<String>>,
    /// How often somebody may ask.
    pub rates: Rates,
    /// The organisation's own OpenID provider, if people sign in there.
    pub provider: Option<OwnProvider>,
    /// The keys of other issuers whose tokens are believed.
    pub issuers: Issuers,
    /// Memory for request bodies that are read whole.
    pub memory: Memory,
    /// The access log.
    pub access: Sink,
    /// The audit log.
    pub audit: Sink,
}
