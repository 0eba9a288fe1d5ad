//! The Dockerfile language: text → [`Dockerfile`] with spans and diagnostics.
//!
//! ```text
//! text ─ directive ─ lexer ─► logical lines ─ keyword, flags, words, json, heredoc ─► arguments ─► tree
//! ```
//!
//! Read in order: [`ast`] (the whole file), [`instruction`] (each instruction, typed),
//! [`directive`], `lexer` (lines that remember their place), `words`, `json`, [`heredoc`],
//! `flags`, [`mount`] and [`run_value`] (the values of RUN's flags), [`duration`], `keyword`, `arguments` (one
//! function per instruction), [`parser`] (the loop over the file).
//!
//! Invariants: no text makes the parser panic or loop; every span lies inside the text; nothing
//! is expanded here. Deliberately absent: files, stages as a graph, and what an instruction does.

mod arguments;
pub mod ast;
pub mod directive;
pub mod duration;
mod flags;
pub mod heredoc;
pub mod instruction;
mod json;
mod keyword;
mod lexer;
pub mod mount;
pub mod parser;
pub mod run_value;
mod words;

#[cfg(test)]
mod tests;

pub use ast::{Dockerfile, Stage, Word};
pub use directive::{CheckOptions, Syntax, detect_syntax, parse_check};
pub use instruction::{Instruction, InstructionKind};
pub use mount::{MountKind, MountSpec, parse_mount, parse_mount_with};
pub use parser::{parse, parse_all, parse_trigger};
pub use run_value::{parse_device, parse_network, parse_security};
