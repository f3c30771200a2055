//! The rules of the registry, without HTTP: one file for each resource.
//!
//! Every front door (OCI, ACR data plane, ARM, builds) calls these functions, and each
//! names the action it is about to take, so that no object can be reached without the
//! access decision.
//!
//! *Architecture invariant:* no HTTP types, no SQL.

mod access;
mod ctx;
mod error;
mod keys;
mod properties;
pub mod registries;
pub mod service;
mod snapshot;

pub use ctx::{Ctx, Reach};
pub use error::{Error, Kind, Result};
pub use registries::{Registry, Sku};
pub use service::{Service, ServiceConfig};
