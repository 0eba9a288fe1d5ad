//! What the test binaries share.

pub mod registry;
