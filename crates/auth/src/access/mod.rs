//! Who may do what: one pure decision.
//!
//! Every front door (registry, ACR data plane, ARM, Graph, workers) turns its caller into a
//! [`Principal`] and its wish into an [`Action`] on a [`Resource`], and asks [`decide`] with
//! what the principal holds ([`Held`]). Nothing else decides. The whole of the answers is
//! written down in `table.txt`, which a test compares.
//!
//! * `action`: the operations that roles tell apart, and sets of them.
//! * `role`: Azure's built-in roles, and how role definitions choose operations.
//! * `condition`: conditions of role assignments, on repository names.
//! * `scope_map`: what repository tokens may do.
//! * `decide`: the decision.
//! * `grant`: what a registry access token opens of what its holder may do.

mod action;
mod condition;
mod decide;
mod grant;
mod role;
mod scope_map;
#[cfg(test)]
mod tests;

use portolan_types::RegistryName;
use uuid::Uuid;

pub use action::{Action, ActionSet, RoleMode, Target};
pub use condition::{CONDITION_BYTES_MAX, Condition, ConditionError};
pub use decide::{Assignment, Held, RegistryFacts, Resource, allowed, decide, may_enter};
pub use grant::{Grant, grants_allow, scope_text, scope_word};
pub use role::{
    ACR_DELETE, ACR_PULL, ACR_PUSH, CATALOG_LISTER, CONTRIBUTOR, OWNER, PATTERN_BYTES_MAX, PATTERNS_MAX, PatternError,
    Permission, READER, REPOSITORY_CONTRIBUTOR, REPOSITORY_READER, REPOSITORY_WRITER, Role, role, roles,
};
pub use scope_map::{SCOPE_MAP_ACTIONS_MAX, ScopeMap, ScopeMapError};

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody said who they are.
    Anonymous,
    /// A user, service principal or managed identity of the directory, by object id.
    Directory {
        /// Object id.
        object_id: Uuid,
        /// Application id, for service principals and managed identities.
        app_id: Option<Uuid>,
    },
    /// The admin user of one registry.
    AdminUser(RegistryName),
    /// A repository token of one registry.
    Token {
        /// The registry it belongs to.
        registry: RegistryName,
        /// Its name.
        name: String,
    },
    /// The server itself: builds pushing their result, background work.
    System,
}
