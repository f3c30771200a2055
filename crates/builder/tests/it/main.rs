//! The builder's machinery on the real kernel: namespaces, overlays, cgroups. Needs root
//! and busybox-static.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test says so by failing")]

mod attacks;
mod builds;
mod caching;
mod contexts;
mod copying;
mod hostile;
mod kitchen;
mod language;
mod layers;
mod mounts;
mod page;
mod platforms;
mod steps;
mod support;
