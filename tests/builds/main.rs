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
    clippy::disallowed_methods,
    reason = "the tests' own switches and the search path are in the environment"
)]

mod attest;
mod consumers;
mod contexts;
mod corpus;
mod env;
mod examples;
mod faults;
mod platforms;
mod verify;
mod warnings;
