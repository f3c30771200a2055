//! The APIs as clients see them: wire types, and an HTTP client for each.
//!
//! [`registry`] speaks to any OCI registry; a build pulls its base images with it.
//! [`identity`] signs in, [`openid`] asks other OpenID providers, [`arm`] is the control
//! plane, [`graph`] the directory, [`acr`] the data plane as Azure Container Registry shapes it, [`blobs`] the signed addresses for build contexts and logs.
//!
//! *Architecture invariant:* the HTTP client library is used here and nowhere else, and
//! nothing here knows a server's database or a command line's options.

pub mod acr;
pub mod arm;
pub mod blobs;
pub mod egress;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod graph;
pub mod identity;
pub mod openid;
pub mod post;
pub mod registry;
pub mod token;
pub mod transport;
pub mod web;

pub use error::{Error, Refusal, Result};
pub use registry::{ByteStream, Credentials, FetchedManifest, RegistryClient};
pub use reqwest::Client as HttpClient;
pub use token::Token;
