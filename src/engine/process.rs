//! What a process of cooper does before anything else, while it has one thread.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::executor;

/// Runs a step when this process was started for one, and returns its exit code; otherwise
/// prepares the process for building. Call it first, from the main thread.
pub fn enter(args: &[OsString]) -> Option<ExitCode> {
    if executor::is_step_invocation(args) {
        return Some(executor::step_main());
    }
    // Without the right to make a mount namespace, mounts fail later, where the error can say
    // what they were for.
    let _ = executor::isolate_mounts();
    None
}
