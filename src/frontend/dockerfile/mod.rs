//! The Dockerfile language: text → [`Dockerfile`] with spans and diagnostics.
//!
//! Read in order: [`ast`] (the whole file), [`instruction`] (each instruction, typed).
//! Variables are left as written; `expand` and the lowering deal with them.

pub mod ast;
pub mod instruction;

pub use ast::{Dockerfile, Stage, Word};
pub use instruction::{Instruction, InstructionKind};
