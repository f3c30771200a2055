//! The store on a real disk: the suites of its ports, kill -9, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

mod buckets;
mod crash;
mod full;
mod postgres;
mod suites;
mod upgrade;
