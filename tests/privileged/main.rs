//! Tests that need root: real containers, mounts, control groups, networks.

#[path = "../support/copy_case.rs"]
mod copy_case;
mod executor;
mod executor_security;
mod file_op;
mod sandbox;
