//! The frontend that a Dockerfile asks for with `# syntax=…`.
//!
//! Every release of docker's own frontend, from whatever registry, is this one: nothing is
//! pulled or run for it. Any other frontend is a program in an image, which whoever can run it is
//! told about by [`foreign`]; who cannot refuses the file by name: reading it differently from
//! what its author meant would be worse.

use super::diagnostic::{Diagnostic, Span};
use super::dockerfile::detect_syntax;
use super::error::FrontendError;
use super::options::{ContextSource, FrontendOptions};
use crate::oci::Reference;

/// The build argument that wins over the line.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";
/// The name of the built-in frontend.
const BUILT_IN: &str = "dockerfile.v0";
/// Repositories of docker's frontend, behind any registry or mirror.
const REPOSITORIES: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// A frontend that is a program in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The image, as it was written.
    pub image: String,
    /// Everything that was written: the image, and maybe words for the frontend.
    pub command_line: String,
    /// Where it stands; `None` where it was not the file that asked.
    pub span: Option<Span>,
    /// What a named context puts in the place of the image.
    pub replaced_by: Option<ContextSource>,
}

/// Finds the frontend that a file or the user asks for, unless it is the built-in one.
pub fn foreign(text: &str, options: &FrontendOptions) -> Option<Foreign> {
    if options.is_chosen {
        return None;
    }
    let argument = options.build_args.get(ARGUMENT);
    let argument = argument.map(|argument| argument.trim());
    let (image, command_line, span) = match argument.filter(|argument| !argument.is_empty()) {
        Some(argument) => {
            let image = argument.split_whitespace().next().unwrap_or_default();
            (image.to_owned(), argument.to_owned(), None)
        }
        None => {
            let syntax = detect_syntax(text)?;
            (syntax.image, syntax.command_line, Some(syntax.span))
        }
    };
    let replaced_by = replacement(&image, options);
    if is_served(&image, replaced_by.as_ref()) {
        return None;
    }
    Some(Foreign {
        image,
        command_line,
        span,
        replaced_by,
    })
}

/// Refuses a file that asks for a frontend that is not this one.
pub(super) fn check(text: &str, options: &FrontendOptions) -> Result<(), FrontendError> {
    let Some(foreign) = foreign(text, options) else {
        return Ok(());
    };
    match foreign.span {
        Some(span) => Err(refused(&foreign.image, span).into()),
        None => Err(FrontendError::Option {
            option: format!("--build-arg {ARGUMENT}"),
            reason: refusal(&foreign.image),
        }),
    }
}

fn refused(image: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, refusal(image)).with_help(
        "take the line out if the file is a plain Dockerfile, or build with \
         --build-arg BUILDKIT_SYNTAX=docker/dockerfile",
    )
}

fn refusal(image: &str) -> String {
    format!("only the frontend {image:?} can read this file")
}

/// Finds the named context that stands for a frontend.
fn replacement(image: &str, options: &FrontendOptions) -> Option<ContextSource> {
    let replaced = options.named_context(image, &options.target_platform());
    replaced.map(|(_, source)| source.clone())
}

/// Says whether a name, or the named context in its place, means docker's frontend.
fn is_served(name: &str, replaced_by: Option<&ContextSource>) -> bool {
    let name = match replaced_by {
        Some(ContextSource::Image(image)) => image,
        Some(_) => return false,
        None => name,
    };
    if name == BUILT_IN {
        return true;
    }
    let Ok(reference) = name.parse::<Reference>() else {
        return false;
    };
    let repository = reference.path();
    REPOSITORIES.iter().any(|known| {
        let above = repository.strip_suffix(known);
        above.is_some_and(|above| above.is_empty() || above.ends_with('/'))
    })
}
