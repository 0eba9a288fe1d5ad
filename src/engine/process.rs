//! What a process of cooper does before anything else, while it has one thread.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a step when this process was started for one, and returns its exit code; otherwise
/// prepares the process for building. Call it first, from the main thread.
pub fn enter(_args: &[OsString]) -> Option<ExitCode> {
    None
}
