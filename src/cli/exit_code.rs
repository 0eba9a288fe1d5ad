//! What the exit code says; part of the interface, described in docs/exit-codes.md.

use crate::engine::ErrorKind;

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// A step of the build failed, or checks found something.
pub const BUILD_STEP: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The input is wrong: Dockerfile, build context, a name.
pub const INPUT: u8 = 3;
/// The machine or the store is not set up: no permission, no space, no runtime.
pub const CONFIG: u8 = 4;
/// A registry or another server did not do what was asked.
pub const REGISTRY: u8 = 5;
/// The same build gave another image the second time (`--verify`).
pub const NOT_REPRODUCIBLE: u8 = 6;
/// A mistake of cooper's own.
pub const INTERNAL: u8 = 70;
/// Stopped by Ctrl-C or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// The table that `--help` ends with.
pub const HELP: &str = "\
Exit codes:
  0    success
  1    a step of the build failed, or --check or verify found something
  2    the command line is wrong
  3    the input is wrong: Dockerfile, build context, a name
  4    the machine or the local store is not set up for this
  5    a registry or another server failed or refused
  6    the image is not reproducible (--verify)
  70   internal error
  130  interrupted";

/// Returns the exit code of an error of this kind.
pub fn of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::BuildStep => BUILD_STEP,
        ErrorKind::User => INPUT,
        ErrorKind::Config => CONFIG,
        ErrorKind::Registry => REGISTRY,
        ErrorKind::Cancelled => INTERRUPTED,
        ErrorKind::NotReproducible => NOT_REPRODUCIBLE,
        ErrorKind::Internal => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_and_the_documentation_list_every_code() {
        let page = include_str!("../../docs/exit-codes.md");
        for code in [
            SUCCESS,
            BUILD_STEP,
            USAGE,
            INPUT,
            CONFIG,
            REGISTRY,
            NOT_REPRODUCIBLE,
            INTERNAL,
            INTERRUPTED,
        ] {
            assert!(HELP.contains(&format!("\n  {code:<4} ")), "{code}");
            assert!(page.contains(&format!("\n| {code} | ")), "{code}");
        }
    }
}
