//! Tests that need no privileges and no network but loopback.

#![allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; a skipped one says so"
)]

#[path = "../support/mod.rs"]
mod support;

mod cache_backends;
mod cache_buildkit;
mod cache_remote;
#[path = "../support/cache_services.rs"]
mod cache_services;
#[path = "../support/cache_store.rs"]
mod cache_store;
mod call;
mod copy;
#[path = "../support/copy_case.rs"]
mod copy_case;
mod encryption;
mod export_push;
mod join;
mod login;
mod manifest;
mod mirrors;
mod push_chaos;
mod registry;
mod registry_real;
mod registry_tls;
mod session;
mod short_names;
mod sign;
mod source;
mod source_attested;
mod source_git;
mod source_git_signed;
mod source_git_ssh;
mod source_http;
