//! The clients against a server on a socket that says what the test wants said.

mod arm;
mod blobs;
mod registry;
mod site;
