//! The rules over a real store in a temporary folder.

mod groups;
mod identity;
mod registries;
mod support;
