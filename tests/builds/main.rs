//! Whole builds, as users run them: the binary, real base images, real consumers.
//!
//! Needs root, and the packages that `./check` installs. A test that cannot run says why; with
//! `REQUIRE_ROOT=1` it fails instead.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics; a skipped one says so"
)]
#![allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the tests' own switches and the search path are in the environment"
)]

mod attest;
mod caches;
mod consumers;
mod contexts;
mod corpus;
mod encryption;
mod env;
mod examples;
mod explain;
mod faults;
#[path = "../support/registry/mod.rs"]
#[allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]
mod faulty_registry;
mod frontends;
mod git_contexts;
#[path = "../support/git_server.rs"]
mod git_server;
mod lazy;
mod llb;
mod load;
mod mutations;
mod outputs;
mod platforms;
mod policies;
mod policies_rego;
mod push;
mod store;
mod verify;
mod warnings;
