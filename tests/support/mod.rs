//! What the test binaries share.

pub mod git_server;
pub mod registry;
