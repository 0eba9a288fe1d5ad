//! Backends of the remote cache that are features, against servers of their kinds:
//! `scripts/cache-servers.sh` installs them.

#![allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; a skipped one says so"
)]

#[path = "../support/cache_services.rs"]
mod cache_services;
#[path = "../support/cache_store.rs"]
mod cache_store;

mod buckets;
mod contexts;
mod fleet;
mod settings;
