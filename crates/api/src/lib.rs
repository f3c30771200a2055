//! The APIs as clients see them: wire types, and an HTTP client for each.
//!
//! [`registry`] speaks to any OCI registry; a build pulls its base images with it.
//! [`acr`] adds what Azure Container Registry adds to the data plane.
//!
//! *Architecture invariant:* the HTTP client library is used here and nowhere else, and
//! nothing here knows a server's database or a command line's options.

pub mod acr;
pub mod error;
pub mod registry;
pub mod transport;

pub use error::{Error, Refusal, Result};
pub use registry::{ByteStream, Credentials, FetchedManifest, RegistryClient};
