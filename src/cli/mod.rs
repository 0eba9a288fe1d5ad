//! The command line: what was typed becomes a request to the engine, what came of it is shown.
//!
//! Read in order: [`args`] (the one definition of commands and options), [`env`] (the only
//! reader of the environment), [`program`] (what every command needs), [`build`] with
//! [`context`] and [`llb`], [`outputs`] with [`engines`], [`attest`] with [`provenance`], and [`verify`],
//! [`explain`] and [`builds`] (what the cache knows), [`call`] with [`check`] (questions instead of builds), then
//! [`images`], [`rebase`], [`sign`], [`judge`], [`manifest`], [`login`] with [`prompt`], [`store`], [`cache`],
//! [`debug`] with [`preimage`], [`manual`];
//! [`registries`] is what all of them tell the engine about registries, [`encryption`] what some do about keys, [`policy`] what builds do about sources. What people see:
//! [`console`], [`progress`], [`failure`], [`exit_code`]. Results go to stdout, everything else
//! to stderr. Deliberately absent: build logic.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod attest;
mod build;
mod builds;
mod cache;
mod call;
mod check;
mod console;
mod context;
mod debug;
mod encryption;
mod engines;
mod env;
pub mod exit_code;
mod explain;
mod failure;
mod images;
mod judge;
mod llb;
mod login;
mod manifest;
mod manual;
mod outputs;
mod policy;
mod preimage;
mod program;
mod progress;
mod prompt;
mod provenance;
mod proxies;
mod rebase;
mod registries;
mod request;
mod sign;
mod signals;
mod store;
mod table;
mod verify;

use args::{BuildCli, Cli, Command, GlobalArgs};
use failure::Failure;
use program::Program;

/// Under this name the program takes the options of `cooper build` directly.
const BUILD_NAME: &str = "build";

/// Runs the program with its arguments, the name it was called by first.
pub fn run(args: Vec<OsString>) -> ExitCode {
    // A running step is this program called again; it must see nothing of the rest.
    if let Some(code) = crate::engine::process::enter(&args) {
        return code;
    }
    let args = args::join_values(args);
    let parsed = match called_as_build(&args) {
        true => BuildCli::try_parse_from(&args)
            .map(|cli| (cli.global, Command::Build(Box::new(cli.build)))),
        false => Cli::try_parse_from(&args).map(|cli| (cli.global, cli.command)),
    };
    match parsed {
        Ok((global, command)) => ExitCode::from(execute(global, command)),
        Err(error) => {
            // Help and version go to stdout and are no failure.
            let code = if error.use_stderr() {
                exit_code::USAGE
            } else {
                exit_code::SUCCESS
            };
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}

fn called_as_build(args: &[OsString]) -> bool {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| name == BUILD_NAME)
}

fn execute(global: GlobalArgs, command: Command) -> u8 {
    let environment = env::Environment::of_process();
    let program = Program {
        console: console::Console::of_process(&environment),
        global,
        environment,
    };
    match dispatch(&program, command) {
        Ok(()) => exit_code::SUCCESS,
        Err(failure) => {
            program.report(&failure, None);
            failure.exit_code()
        }
    }
}

fn dispatch(program: &Program, command: Command) -> Result<(), Failure> {
    match command {
        Command::Build(args) => build::run(program, &args),
        Command::Explain(args) => explain::run(program, &args),
        Command::Builds(command) => builds::run(program, &command),
        Command::Pull(args) => images::pull(program, &args),
        Command::Push(args) => images::push(program, &args),
        Command::Sign(args) => sign::sign(program, &args),
        Command::Verify(args) => sign::verify(program, &args),
        Command::Policy(command) => judge::run(program, &command),
        Command::Tag(args) => images::tag(program, &args),
        Command::Manifest(command) => manifest::run(program, *command),
        Command::Imagetools(command) => manifest::imagetools(program, *command),
        Command::Login(args) => login::run(program, &args),
        Command::Logout(args) => login::forget(program, &args),
        Command::Images(args) => images::list(program, &args),
        Command::Rmi(args) => images::remove(program, &args),
        Command::Save(args) => images::save(program, &args),
        Command::Load(args) => images::load(program, &args),
        Command::Rebase(args) => rebase::run(program, &args),
        Command::Inspect(args) => images::inspect(program, &args),
        Command::History(args) => images::history(program, &args),
        Command::Prune(args) => store::prune(program, &args),
        Command::Du(args) => store::usage(program, &args),
        Command::Gc(args) => store::collect(program, &args),
        Command::Cache(command) => cache::run(program, &command),
        Command::Debug(args::DebugCommand::DumpLlb(args)) => debug::dump_llb(program, &args),
        Command::Debug(args::DebugCommand::Cache(command)) => preimage::run(program, &command),
        Command::Version => manual::version(program),
        Command::Completion(args) => manual::completion(program, &args),
        Command::Man(args) => manual::pages(program, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_what_the_program_does() {
        for (name, is_build) in [
            ("build", true),
            ("/usr/local/bin/build", true),
            ("./build", true),
            ("cooper", false),
            ("build/cooper", false),
        ] {
            assert_eq!(called_as_build(&[name.into()]), is_build, "{name}");
        }
        assert!(!called_as_build(&[]));
    }
}
