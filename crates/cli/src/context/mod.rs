//! Build contexts: what of a folder goes to the server, and how.
//!
//! The rules are docker's, not az's: a file goes unless `.dockerignore` (or
//! `<Dockerfile>.dockerignore`, which wins) says otherwise. Nothing else is dropped; az
//! leaves out `.git` and its kin unasked, docker does not.

mod pack;
mod parcel;
pub(crate) mod progress;
pub(crate) mod send;
mod source;
mod upload;

pub(crate) use pack::Pack;
pub(crate) use source::Source;
pub(crate) use upload::upload;
