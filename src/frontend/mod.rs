//! Dockerfile → definition: a pure translation.
//!
//! Read in order: [`diagnostic`] (source text, spans, what is said to the user), [`dockerfile`]
//! (text → tree), [`expand`] (variables and quotes in a word), [`ignore`] (`.dockerignore`),
//! [`suggest`] ("did you mean"). Everything takes `&str` and returns values with diagnostics.
//! Deliberately absent: network, files, clock and environment; what an image looks like is asked
//! through one port.

pub mod diagnostic;
pub mod dockerfile;
mod excerpt;
pub mod expand;
pub mod ignore;
mod lines;
pub mod suggest;
#[cfg(test)]
mod testing;
