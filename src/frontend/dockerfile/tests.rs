//! Fixtures and properties of the parser.

mod dump;
mod fixtures;
mod mutation;
