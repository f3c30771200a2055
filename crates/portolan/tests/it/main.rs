//! The binary as people use it: one process serves, others are the command line.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod commands;
mod crash;
mod maintenance;
mod order;
mod site;
