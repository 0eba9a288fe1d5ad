//! Tests that need no privileges and no network but loopback.

#![allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]

#[path = "../support/mod.rs"]
mod support;

mod registry;
mod source;
