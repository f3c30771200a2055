//! Who is asking, when, and under which request id: handed to every rule.

use std::sync::Arc;

use portolan_auth::access::{Grant, Principal};
use portolan_types::Timestamp;

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// Do `work` for the request of that id: what is logged on the way can say so.
pub async fn with_request_id<T>(id: Arc<str>, work: impl Future<Output = T>) -> T {
    REQUEST_ID.scope(id, work).await
}

/// The id of the request that the current task works for, if it works for one.
pub fn request_id() -> Option<Arc<str>> {
    REQUEST_ID.try_with(Arc::clone).ok()
}

/// The circumstances of one request.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Who is asking.
    pub principal: Principal,
    /// How far this credential reaches.
    pub reach: Reach,
    /// The request's id, in every log line and in the answer's headers.
    pub request_id: String,
    /// When the request came.
    pub now: Timestamp,
}

/// How far a credential reaches within what its principal may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that the principal may do (Basic, ARM tokens).
    Principal,
    /// No more than the grants of a registry access token.
    Grants(Arc<[Grant]>),
}

impl Ctx {
    /// The server acting on its own behalf.
    pub fn system(request_id: impl Into<String>, now: Timestamp) -> Ctx {
        Ctx { principal: Principal::System, reach: Reach::Principal, request_id: request_id.into(), now }
    }
}
