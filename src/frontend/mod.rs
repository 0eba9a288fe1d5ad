//! Dockerfile → definition: a pure translation.
//!
//! Read in order: [`diagnostic`] (source text, spans, what is said to the user), [`dockerfile`]
//! (text → tree), [`expand`] (variables and quotes in a word), [`ignore`] (`.dockerignore`),
//! [`suggest`] ("did you mean"); then the translation: [`options`], [`resolve`] (the port),
//! `build_args`, `epoch` (the time of everything new), `plan` (stages as a graph), `lower` (one
//! function per instruction), `lint`, `syntax`, [`lowered`] (the front door), [`mod@check`] (the
//! same without building). [`mod@targets`] and
//! [`mod@outline`] answer questions about a Dockerfile in the shapes of [`subrequest`]; [`mod@fix`]
//! mends what checks found. Everything takes `&str` and returns values with diagnostics.
//! Deliberately absent: network, files, clock and environment; what an image looks like is asked
//! through one port.

mod build_args;
pub mod check;
pub mod diagnostic;
pub mod dockerfile;
mod environment;
mod epoch;
pub mod error;
mod excerpt;
pub mod expand;
pub mod fix;
pub mod ignore;
mod image_config;
mod lines;
mod lint;
mod lower;
pub mod lowered;
pub mod options;
pub mod outline;
mod paths;
mod plan;
pub mod resolve;
pub mod subrequest;
pub mod suggest;
pub mod syntax;
pub mod targets;
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests;

pub use check::{CheckReport, LintWarning, check};
pub use epoch::{EPOCH, EpochSource, epoch_source};
pub use error::FrontendError;
pub use lint::{RULES, Rule};
pub use lowered::{LowerFailure, Lowered, lower};
pub use options::{ContextSource, FrontendOptions, Network, NoCache, ResolveMode};
pub use outline::{Outline, outline};
pub use resolve::{ImageRequest, ImageResolver, ResolveError, ResolvedImage};
pub use targets::{Target, TargetList};
