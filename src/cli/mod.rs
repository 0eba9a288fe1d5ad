//! placeholder

use std::ffi::OsString;

/// placeholder
pub fn run(args: Vec<OsString>) -> std::process::ExitCode {
    if crate::executor::is_step_invocation(&args) {
        return crate::executor::step_main();
    }
    std::process::ExitCode::SUCCESS
}
