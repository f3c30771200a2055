//! Doors for the fuzzer.

use portolan_auth::access::{ActionSet, Grant};

/// What a request for `scopes` is granted when `may` is what its maker may do.
pub fn granted(scopes: &[&str], may: ActionSet) -> Vec<Grant> {
    crate::scopes::granted(scopes, |_| may)
}
