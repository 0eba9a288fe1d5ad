//! `cooper build --verify`: the same build once more, and a comparison.

use super::args::BuildArgs;
use super::failure::Failure;
use super::program::Program;
use super::request;
use crate::engine::request::{BuildOutcome, OutputSpec};
use crate::engine::{Engine, Verification};

/// Refuses what cannot be built twice or not be compared, before anything is built.
pub(crate) fn check(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<(), Failure> {
    if !args.reproduce.verify {
        return Ok(());
    }
    let message = match outputs
        .iter()
        .any(|output| output.image_options().is_some())
    {
        false => "--verify compares images: name an output that makes one",
        true if args.context == "-" || args.files.iter().any(|file| file == "-") => {
            "--verify reads its input twice, and stdin can be read only once"
        }
        true => return Ok(()),
    };
    Err(Failure::Usage(message.to_owned()))
}

/// Builds once more and compares.
pub(crate) fn run(
    program: &Program,
    args: &BuildArgs,
    engine: &Engine,
    outcome: &BuildOutcome,
) -> Result<(), Failure> {
    let request = request::request(program, args)?;
    let session = request::session(args, &request, &program.environment)?;
    // The image that was reported is that of the last output which makes one; that there is
    // one was checked before.
    let mut options = request.outputs.iter().filter_map(OutputSpec::image_options);
    let (Some(options), Some(first)) = (options.next_back().cloned(), &outcome.image) else {
        return Ok(());
    };
    let verification = Verification {
        first,
        options,
        request,
        session,
    };
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.verify(verification, progress, cancel).await
    })?;
    result.map_err(|error| program.fail(error, &journal))?;
    let digest = &first.root.digest;
    program.console.note(&format!("reproducible: {digest}"));
    Ok(())
}
