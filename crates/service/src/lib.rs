//! The rules of the registry, without HTTP: one file for each resource.
//!
//! Every front door (OCI, ACR data plane, ARM, builds) calls these functions, and each
//! names the action it is about to take, so that no object can be reached without the
//! access decision.
//!
//! *Architecture invariant:* no HTTP types, no SQL.

mod access;
pub mod activity;
pub mod assertions;
pub mod blobs;
pub mod cache;
pub mod cache_rules;
pub mod catalog;
pub mod check;
mod content;
pub mod ctx;
#[cfg(test)]
mod data_tests;
pub mod directory;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gc;
pub mod groups;
pub mod hosts;
pub mod identity;
mod keys;
pub mod locks;
pub mod manifests;
pub mod migrate;
mod network;
pub mod operations;
pub mod peers;
mod properties;
mod push;
pub mod registries;
pub mod registry_auth;
pub mod registry_identity;
pub mod repo_tokens;
pub mod repos;
pub mod roles;
pub mod scope_maps;
mod scopes;
pub mod security;
pub mod service;
pub mod sign_in;
mod snapshot;
pub mod tags;
pub mod tiers;
mod token_state;
pub mod tokens;
pub mod uploads;
pub mod usages;

pub use cache::{CacheFigures, StoredManifest};
pub use ctx::{Ctx, Reach};
pub use error::{Error, Kind, Result};
pub use keys::{check_master_key, has_master_key};
pub use manifests::{ManifestDetail, PutCondition, PutManifest, PutOptions};
pub use portolan_store::meta::repo::{Attributes, AttributesPatch, Order};
pub use portolan_store::meta::tag::TagInfo;
pub use registries::{Registry, Sku};
pub use repos::{DeletedRepo, ListQuery, Page, RepoDetail};
pub use service::{Service, ServiceConfig};
