//! Dockerfile → definition: a pure translation.
//!
//! Read in order: [`diagnostic`] (source text, spans, what is said to the user), [`dockerfile`]
//! (text → tree). Everything takes `&str` and returns values with diagnostics. Deliberately
//! absent: network, files, clock and environment; what an image looks like is asked through one
//! port.

pub mod diagnostic;
pub mod dockerfile;
