//! The builder's machinery on the real kernel: namespaces, overlays, cgroups. Needs root
//! and busybox-static.

mod builds;
mod contexts;
mod copying;
mod layers;
mod steps;
mod support;
