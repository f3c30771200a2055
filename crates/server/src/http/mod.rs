//! The HTTP edge: which front door a request goes to, by its path.
//!
//! A request comes from `crate::listen`, passes [`edge`] (request id, log line, counters,
//! panics caught), is sent to one front door by [`dispatch`], and every door answers in
//! the form its clients read. Doors call `portolan_service` and `portolan_tasks`; they
//! hold no rules of their own.
//!
//! *Architecture invariant:* nothing under here names a table (`store::meta`).

pub mod acr;
pub mod arm;
mod audit;
pub mod blob;
pub mod caller;
mod client;
pub mod edge;
pub mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod garbage;
pub mod graph;
pub mod host;
pub mod identity;
mod intake;
pub mod memory;
pub mod metrics;
pub mod oauth2;
pub mod ops;
pub mod rate;
pub mod respond;
pub mod route;
pub mod v2;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::app::App;

/// A request as every door takes it.
pub type Request = http::Request<axum::body::Body>;
/// An answer as every door gives it.
pub type Response = http::Response<axum::body::Body>;

/// The connection a request came by; in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The other end.
    pub peer: SocketAddr,
}

/// The request's id: in the log, in the answer's `x-ms-request-id`, in `Ctx`; in the
/// request's extensions.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Where a door says who is asking, for the logs; in the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Who(Arc<Names>);

#[derive(Debug, Default)]
struct Names {
    known: OnceLock<(&'static str, Box<str>)>,
    claimed: OnceLock<Box<str>>,
}

impl Who {
    /// Name the caller by kind and id (`user` and an object id, `sp` and an application id,
    /// `admin` and a registry, `token` and its name); the first name stays.
    pub fn set(&self, kind: &'static str, id: impl Into<Box<str>>) {
        let _ = self.0.known.set((kind, id.into()));
    }

    /// Note who somebody says they are, before it is known whether they are.
    pub fn claim(&self, name: impl Into<Box<str>>) {
        let _ = self.0.claimed.set(name.into());
    }

    /// The caller's kind and id, when a door has set them; else kind `claimed` and the name.
    pub fn get(&self) -> Option<(&'static str, &str)> {
        let known = self.0.known.get().map(|(kind, id)| (*kind, &**id));
        known.or_else(|| self.0.claimed.get().map(|name| ("claimed", &**name)))
    }
}

/// How a connection does: what its watcher in `crate::listen` looks at.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests begun.
    pub begun: AtomicU32,
    /// Requests whose answer is finished.
    pub ended: AtomicU32,
    /// Answers under way.
    pub responding: AtomicU32,
    /// Bytes written to the client's socket so far.
    pub written: AtomicU64,
}

/// The front doors, for dispatch and for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/v2/…`: OCI Distribution and Docker Registry v2.
    V2,
    /// `/acr/v1/…`: ACR's data plane.
    Acr,
    /// `/oauth2/…`: registry tokens.
    Oauth2,
    /// `/blob/…`: signed upload and log URLs.
    Blob,
    /// `/subscriptions…`, `/tenants`, `/providers/…`: ARM.
    Arm,
    /// `/{tenant}/oauth2/…`, `/metadata/…`, `/msi/…`, …: identity.
    Identity,
    /// `/v1.0/…`: Microsoft Graph.
    Graph,
    /// `/healthz`, `/readyz`, `/metrics`.
    Ops,
    /// A path nothing serves.
    Unknown,
}

impl Door {
    /// Every door, in the order of the counters.
    pub const ALL: [Door; 9] = [
        Door::V2,
        Door::Acr,
        Door::Oauth2,
        Door::Blob,
        Door::Arm,
        Door::Identity,
        Door::Graph,
        Door::Ops,
        Door::Unknown,
    ];

    /// The door a path leads to. No allocation: this is on every request's way.
    pub fn of(path: &str) -> Door {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let (first, more) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, ""),
        };
        match first {
            "v2" => Door::V2,
            "acr" => Door::Acr,
            "oauth2" => Door::Oauth2,
            "blob" => Door::Blob,
            "v1.0" => Door::Graph,
            "healthz" | "readyz" | "metrics" if more.is_empty() => Door::Ops,
            "" => Door::Unknown,
            _ if ["subscriptions", "tenants", "providers"].iter().any(|a| first.eq_ignore_ascii_case(a)) => Door::Arm,
            "metadata" | "msi" | "devicelogin" | "common" | "organizations" => Door::Identity,
            // `/{tenant}/oauth2/…`, `/{tenant}/v2.0/…`, `/{tenant}/discovery/…`
            _ if ["/oauth2/", "/v2.0/", "/.well-known/", "/discovery/"].iter().any(|a| more.starts_with(a)) => {
                Door::Identity
            }
            _ => Door::Unknown,
        }
    }

    /// The name in logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            Door::V2 => "v2",
            Door::Acr => "acr",
            Door::Oauth2 => "oauth2",
            Door::Blob => "blob",
            Door::Arm => "arm",
            Door::Identity => "identity",
            Door::Graph => "graph",
            Door::Ops => "ops",
            Door::Unknown => "unknown",
        }
    }
}

/// Marks the requests that came by the address of `metrics_listen`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpsOnly;

/// Send a request through its door.
pub async fn dispatch(app: Arc<App>, req: Request) -> Response {
    if app.settings.metrics_listen.is_some() && req.extensions().get::<OpsOnly>().is_some() {
        return ops::answer(&app, req).await;
    }
    if let Err(why) = host::check(&req) {
        return error::bad_host(Door::of(req.uri().path()), why);
    }
    match Door::of(req.uri().path()) {
        Door::V2 => v2::handle(&app, req).await,
        Door::Acr => acr::handle(&app, req).await,
        Door::Oauth2 => oauth2::handle(&app, req).await,
        Door::Identity => identity::handle(&app, req).await,
        Door::Arm => arm::handle(&app, req).await,
        Door::Graph => graph::handle(&app, req).await,
        Door::Blob => blob::handle(&app, req).await,
        Door::Ops => ops::handle(&app, req).await,
        _ => error::unknown_path(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_doors() {
        for (path, door) in [
            ("/v2/", Door::V2),
            ("/v2", Door::V2),
            ("/v2/a/b/manifests/v1", Door::V2),
            ("/v2.0/x", Door::Unknown),
            ("/v1.0/users", Door::Graph),
            ("/acr/v1/_catalog", Door::Acr),
            ("/oauth2/token", Door::Oauth2),
            ("/blob/a/b/c", Door::Blob),
            ("/subscriptions", Door::Arm),
            ("/SUBSCRIPTIONS/x/resourcegroups/y", Door::Arm),
            ("/tenants", Door::Arm),
            ("/providers/Microsoft.ContainerRegistry/checkNameAvailability", Door::Arm),
            ("/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token", Door::Identity),
            ("/common/v2.0/.well-known/openid-configuration", Door::Identity),
            ("/metadata/endpoints", Door::Identity),
            ("/healthz", Door::Ops),
            ("/healthz/x", Door::Unknown),
            ("/", Door::Unknown),
            ("*", Door::Unknown),
            ("", Door::Unknown),
        ] {
            assert_eq!(Door::of(path), door, "{path}");
        }
    }
}
