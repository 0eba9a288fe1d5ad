//! Whole builds, as users run them: the binary, real base images, real consumers.
//!
//! Needs root, and the packages that `./check` installs. A test that cannot run says why; with
//! `REQUIRE_ROOT=1` it fails instead.

mod consumers;
mod env;
mod examples;
mod faults;
