//! What performs the ops of a definition, one module for each kind.

pub mod file;
