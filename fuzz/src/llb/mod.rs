//! Of the module `llb` what the frontend's readers need.

#[path = "../../../src/llb/pattern/mod.rs"]
pub mod pattern;
