//! Checks of a Dockerfile that do not stop a build: each function makes one rule's warning.
//!
//! Read in order: [`rules`] (the table of rules), `config` (which rules count: the directive, the
//! build argument, a comment above an instruction), then what they find: `text` (what the text of
//! one instruction shows), `stages` (names and keywords, all stages together), `from` (variables
//! and platforms of `FROM`), `steps` (what shows while a stage is lowered). Those that need
//! variables, stages or images are asked by the plan and the lowering, where these are known.
//!
//! A warning's span is the exact place; reports name the lines of the instruction it is about.

mod config;
mod from;
mod rules;
mod stages;
mod steps;
#[cfg(test)]
mod tests;
mod text;

pub(super) use config::{Checks, attribute};
pub(super) use from::{
    base_image_platform, constant_platform, invalid_defaults, redundant_platform,
    undefined_arg_in_from,
};
pub use rules::{RULES, Rule};
pub(super) use stages::{Casing, names_and_keywords};
pub(super) use steps::{
    expose_format, expose_protocol_casing, ignored_source, json_arguments, legacy_pair,
    multiple_instructions, relative_workdir, secret_name, undefined_var,
};
pub(super) use text::of_text;
