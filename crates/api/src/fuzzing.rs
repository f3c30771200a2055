//! Doors for the fuzzer: what this crate reads of what servers send, as plain values.

use crate::registry::challenge::{self, Challenge};

/// Realm, service and scope.
pub type Bearer = (String, Option<String>, Option<String>);

/// The challenges of one `WWW-Authenticate` header: `None` for Basic, realm, service and
/// scope for Bearer.
pub fn challenges(header: &str) -> Vec<Option<Bearer>> {
    challenge::parse(header)
        .into_iter()
        .map(|one| match one {
            Challenge::Basic => None,
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
        })
        .collect()
}

/// Addresses, for [`next_page`](crate::acr::next_page).
pub use reqwest::Url;
