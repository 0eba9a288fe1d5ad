//! What the exit code says; part of the interface.

use crate::engine::ErrorKind;

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// A step of the build failed, or the Dockerfile or the build context is wrong; as docker.
pub const BUILD: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The machine or the store is not set up: no permission, no space, no runtime.
pub const CONFIG: u8 = 3;
/// A registry or another server did not do what was asked.
pub const REGISTRY: u8 = 4;
/// A mistake of cooper's own.
pub const INTERNAL: u8 = 70;
/// Stopped by Ctrl-C or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// The table that `--help` ends with.
pub const HELP: &str = "\
Exit codes:
  0    success
  1    a step failed, or the Dockerfile or the build context is wrong
  2    the command line is wrong
  3    the machine or the local store is not set up for this
  4    a registry or another server failed or refused
  70   internal error
  130  interrupted";

/// Returns the exit code of an error of this kind.
pub fn of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::BuildStep | ErrorKind::User => BUILD,
        ErrorKind::Config => CONFIG,
        ErrorKind::Registry => REGISTRY,
        ErrorKind::Cancelled => INTERRUPTED,
        ErrorKind::Internal => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_every_code() {
        for code in [
            SUCCESS,
            BUILD,
            USAGE,
            CONFIG,
            REGISTRY,
            INTERNAL,
            INTERRUPTED,
        ] {
            let row = format!("\n  {code:<4} ");
            assert!(HELP.contains(&row), "{code}");
        }
    }
}
