//! Who may do what: one pure decision.
//!
//! Every front door (registry, ACR data plane, ARM, workers) turns its caller into a
//! [`Principal`] and its wish into an [`Action`] on a resource, and asks here.

use portolan_types::{RegistryName, RepoName};
use uuid::Uuid;

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

/// What is wanted. Data actions name ACR's data-plane rights, control actions are ARM
/// operations reduced to what the roles tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read blobs and manifests, list tags and referrers.
    Pull,
    /// Write blobs, manifests and tags.
    Push,
    /// Delete manifests and repositories; untag.
    Delete,
    /// Read attributes of repositories, tags and manifests.
    MetadataRead,
    /// Change them.
    MetadataWrite,
    /// List repositories.
    CatalogList,
    /// Read a control-plane resource.
    ControlRead,
    /// Create, change or delete a control-plane resource.
    ControlWrite,
    /// See or renew the admin user's passwords.
    ListCredentials,
    /// Schedule a run, upload a context for it, cancel it.
    RunTasks,
    /// Read runs and their logs.
    ReadTasks,
    /// Change role assignments.
    AssignRoles,
}

/// One entry of a registry access token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Repository name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, `metadata_read`, `metadata_write`, `*`.
    pub actions: Vec<String>,
}

/// What an action on a registry's data is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The registry as a whole (the catalog).
    Registry,
    /// One repository.
    Repo(RepoName),
}
