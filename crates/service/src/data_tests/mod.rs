//! The data plane over a real database and a real blob store, without HTTP.

mod fixture;
mod garbage;
mod gated;
mod lists;
mod locks;
mod push_pull;
mod reach;
