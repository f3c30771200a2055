//! The words Portolan is written in: ids, grammars, OCI documents, limits.
//!
//! Everything that arrives from outside as text is parsed here once, into a type that
//! cannot hold a bad value; after that no code asks again. Nothing here does input or
//! output, knows the time, or makes a random number without being handed the bytes.
//!
//! *Architecture invariant:* no IO, no async, no HTTP. Every other crate may depend on
//! this one; it depends on none of them.

pub mod digest;
pub mod ids;
pub mod ignore;
pub mod limits;
pub mod listing;
pub mod media_type;
pub mod names;
pub mod net;
pub mod oci;
pub mod odata;
pub mod platform;
pub mod reference;
pub mod secret;
pub mod terminal;
pub mod time;

pub use digest::{Algorithm, Digest, Hasher};
pub use ids::{ResourceId, RunId, UploadId};
pub use names::{GroupName, InvalidName, RegistryName, RepoName, ScopeMapName, Tag, TokenName};
pub use net::IpNet;
pub use platform::Platform;
pub use reference::{ImageRef, Reference};
pub use secret::Secret;
pub use time::Timestamp;
