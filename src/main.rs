//! The `cooper` program.

fn main() -> std::process::ExitCode {
    cooper::cli::run(std::env::args_os().collect())
}
