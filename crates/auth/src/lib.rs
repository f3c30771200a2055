//! Tokens, passwords, keys and the access decision: the only crate that knows JWT and
//! password hashing.
//!
//! - [`access`]: who may do what, one pure function over roles.
//! - [`master`]: the server's master key, what is derived from it and sealed under it.
//! - [`keys`]: RS256 signing keys and the key set that verifiers fetch.
//! - [`token`]: the claims of our three tokens: directory, registry refresh, registry access.
//! - [`authority`]: issues and verifies them, with a bounded memory of verified tokens.
//! - [`certificate`]: certificates that applications sign in with.
//! - [`foreign`]: tokens of other issuers.
//! - [`password`]: hashes of secrets and of people's passwords, and the admin user's derived ones.
//! - [`ssh`]: private keys that builds sign with.
//! - [`ticket`]: what we hand out sealed, to read it when it comes back.
//!
//! *Architecture invariant:* no storage and no clock. Keys come in as bytes, times as
//! parameters; what must be kept is handed back to the caller.

pub mod access;
pub mod authority;
pub mod certificate;
pub mod foreign;
pub mod keys;
pub mod master;
pub mod password;
pub mod ssh;
pub mod ticket;
pub mod token;

pub use authority::Authority;
pub use keys::SigningKey;
pub use master::MasterKey;
