//! `cooper rebase`.

use super::args::rebase::RebaseArgs;
use super::failure::Failure;
use super::program::Program;
use super::registries;
use crate::engine::RebaseRequest;
use crate::oci::Reference;

/// Puts an image onto another base and prints its id.
pub(crate) fn run(program: &Program, args: &RebaseArgs) -> Result<(), Failure> {
    let engine = program.engine_with(&args.registry)?;
    let named: Vec<Reference> = [&args.old_base, &args.new_base]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let session = registries::session(program, &args.registry, &named)?;
    let request = RebaseRequest {
        image: args.image.clone(),
        old_base: args.old_base.clone(),
        new_base: args.new_base.clone(),
        names: args.names.clone(),
        platform: args.platform.clone(),
        force: args.force,
    };
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.rebase(request, &session, &progress, &cancel).await
    })?;
    let made = result.map_err(|error| program.fail(error, &journal))?;
    let line = made.id.to_string();
    program.console.result(&line).map_err(Failure::stdout)
}
