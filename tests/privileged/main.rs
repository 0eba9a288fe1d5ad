//! Tests that need root: real containers, mounts, control groups, networks.

mod executor;
mod executor_security;
mod sandbox;
