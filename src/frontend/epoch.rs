//! `SOURCE_DATE_EPOCH`: the time of everything new, as a number or as the name of a source whose
//! time it is.
//!
//! | value | time |
//! |---|---|
//! | a number | seconds since 1970 |
//! | `context` | that of the build context, unless it is a folder |
//! | a named context | that of the context, unless it is a folder or an image |
//! | a stage | that of what it fetches: `FROM scratch` and one `ADD` of a URL or a git repository |
//!
//! The time of a git repository is that of its commit; of a download, what the server says it
//! is, else that of the newest file of the archive that it is. Looking it up is left to the
//! caller: [`epoch_source`] says what to look up, `FrontendOptions::named_epoch` takes the answer.

use std::collections::BTreeMap;

use super::build_args::{BuildArgs, expand};
use super::diagnostic::Diagnostic;
use super::dockerfile::instruction::{AddInstruction, ArgInstruction, Instruction};
use super::dockerfile::{Dockerfile, InstructionKind, Stage, parse_all};
use super::environment::Environment;
use super::error::FrontendError;
use super::lower::{download_definition, remote_definition, source_definition};
use super::options::{ContextSource, FrontendOptions};
use super::suggest;
use crate::llb::git_url::CheckoutTime;
use crate::llb::{Definition, GitUrl};
use crate::oci::Digest;

/// The argument.
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Its value for the time of the build context.
const OF_CONTEXT: &str = "context";

/// A source whose time is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochSource {
    /// Graph of its files alone; those of a commit have the time of the commit.
    pub files: Definition,
    /// Of a download, [`ContextSource::HTTP_FILE`] in `files`: graph of the files of the archive
    /// that it may be.
    pub unpacked: Option<Definition>,
}

/// What the argument asks for.
#[derive(Debug)]
pub(super) enum Wanted {
    /// No epoch.
    Nothing,
    /// Seconds since 1970.
    Seconds(i64),
    /// The time of a source; without one the source has none.
    TimeOf(Option<Box<EpochSource>>),
}

/// Tells the source that a Dockerfile or the user names as the time of everything new. A
/// Dockerfile with mistakes names none: they are told when it is lowered.
pub fn epoch_source(
    text: &str,
    options: &FrontendOptions,
) -> Result<Option<EpochSource>, FrontendError> {
    let (file, _) = parse_all(text);
    let Ok(args) = BuildArgs::without_epoch(&file, options) else {
        return Ok(None);
    };
    Ok(match wanted(&args, &file, options)? {
        Wanted::TimeOf(source) => source.map(|source| *source),
        Wanted::Nothing | Wanted::Seconds(_) => None,
    })
}

/// Reads the argument: as given, else the option, else the default of the Dockerfile.
pub(super) fn wanted(
    args: &BuildArgs,
    file: &Dockerfile,
    options: &FrontendOptions,
) -> Result<Wanted, FrontendError> {
    let text = match (args.given.get(EPOCH), options.source_date_epoch) {
        (Some(given), _) => given.as_str(),
        (None, Some(seconds)) => return Ok(Wanted::Seconds(seconds)),
        (None, None) => args.global.get(EPOCH).unwrap_or_default(),
    };
    if text.is_empty() {
        return Ok(Wanted::Nothing);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Wanted::Seconds(seconds));
    }
    let context = match text {
        OF_CONTEXT => Some(&options.context),
        name => options.contexts.get(name),
    };
    if let Some(context) = context {
        return of_context(context).map(|source| Wanted::TimeOf(source.map(Box::new)));
    }
    let name = text.to_lowercase();
    let stage = file
        .stages
        .iter()
        .find(|s| s.name().as_ref() == Some(&name));
    let stage = stage.ok_or_else(|| {
        let names = file.stages.iter().filter_map(Stage::name);
        let contexts = options.contexts.keys().cloned();
        let known: Vec<String> = names.chain(contexts).chain([OF_CONTEXT.to_owned()]).collect();
        let help = suggest::did_you_mean(text, known.iter().map(String::as_str));
        let help = help.map(|help| format!("; {help}")).unwrap_or_default();
        refused(format!(
            "{text:?} is neither a number of seconds since 1970, `context`, a named context nor a stage{help}"
        ))
    })?;
    let source = of_stage(stage, file, args)?;
    Ok(Wanted::TimeOf(Some(Box::new(source))))
}

fn refused(reason: String) -> FrontendError {
    FrontendError::Option {
        option: EPOCH.to_owned(),
        reason,
    }
}

fn of_context(context: &ContextSource) -> Result<Option<EpochSource>, FrontendError> {
    match context {
        ContextSource::Git(_) => {
            // With an epoch, files have the time of their commit.
            let arguments = BTreeMap::from([(EPOCH.to_owned(), OF_CONTEXT.to_owned())]);
            let files = remote_definition(context, &arguments, None).map_err(refused)?;
            Ok(Some(EpochSource {
                files,
                unpacked: None,
            }))
        }
        ContextSource::Http { url, .. } => Ok(Some(download(url, None))),
        _ => Ok(None),
    }
}

fn download(url: &str, checksum: Option<&Digest>) -> EpochSource {
    EpochSource {
        files: download_definition(url, checksum, false),
        unpacked: Some(download_definition(url, checksum, true)),
    }
}

/// Tells the source of a stage that does nothing but fetch one.
fn of_stage(
    stage: &Stage,
    file: &Dockerfile,
    args: &BuildArgs,
) -> Result<EpochSource, FrontendError> {
    let only = "a stage that SOURCE_DATE_EPOCH names consists of one ADD of a URL or a git repository, on scratch";
    let refused_at = |instruction: &Instruction| {
        FrontendError::from(Box::new(Diagnostic::error(instruction.keyword_span, only)))
    };
    let mut variables = args.global.clone();
    variables.remove(EPOCH);
    if expand(&stage.from.image, file.escape(), &variables)? != "scratch" {
        return Err(refused_at(&stage.header));
    }
    let mut source = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(arg) => declare(arg, file, args, &mut variables)?,
            InstructionKind::Add(add) if source.is_none() => {
                let added = added(add, file, &variables)?;
                source = Some(added.ok_or_else(|| refused_at(instruction))?);
            }
            _ => return Err(refused_at(instruction)),
        }
    }
    source.ok_or_else(|| refused_at(&stage.header))
}

fn declare(
    arg: &ArgInstruction,
    file: &Dockerfile,
    args: &BuildArgs,
    variables: &mut Environment,
) -> Result<(), FrontendError> {
    for declaration in &arg.args {
        let name = &declaration.name.raw;
        let value = match (args.given.get(name), &declaration.value) {
            (Some(given), _) => given.clone(),
            (None, Some(word)) => expand(word, file.escape(), variables)?,
            (None, None) => continue,
        };
        variables.set(name, &value);
    }
    Ok(())
}

/// Tells the source of an `ADD`; `None` where it is not one source from elsewhere.
fn added(
    add: &AddInstruction,
    file: &Dockerfile,
    variables: &Environment,
) -> Result<Option<EpochSource>, FrontendError> {
    let ([word], []) = (&add.files.sources[..], &add.files.heredocs[..]) else {
        return Ok(None);
    };
    let source = expand(word, file.escape(), variables)?;
    let checksum = match &add.checksum {
        Some(word) => Some((expand(word, file.escape(), variables)?, word.span)),
        None => None,
    };
    let wrong =
        |span, message: String| FrontendError::from(Box::new(Diagnostic::error(span, message)));
    if let Some(git) = GitUrl::parse(&source) {
        let mut git = git.map_err(|error| wrong(word.span, error.to_string()))?;
        git.time = Some(CheckoutTime::Commit);
        // What git keeps of itself has no time of its own.
        git.keep_git_dir = None;
        git.checksum = checksum.map(|(text, _)| text).or(git.checksum);
        return Ok(Some(EpochSource {
            files: source_definition(git.source()),
            unpacked: None,
        }));
    }
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return Ok(None);
    }
    let checksum = checksum.map(|(text, span)| {
        let digest = text.parse::<Digest>();
        digest.map_err(|error| wrong(span, error.to_string()))
    });
    Ok(Some(download(&source, checksum.transpose()?.as_ref())))
}
