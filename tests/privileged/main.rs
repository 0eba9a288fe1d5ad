//! Tests that need root: real containers, mounts, control groups, networks.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests too, and say why they skip"
)]

mod executor;
mod executor_network;
mod executor_runtime;
mod executor_security;
mod sandbox;
mod surroundings;
