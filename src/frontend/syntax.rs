//! The frontend that a Dockerfile asks for with `# syntax=…`.
//!
//! Every release of docker's own frontend, from whatever registry, is this one: nothing is
//! pulled or run for it. Any other frontend is a program in an image, which is refused by name:
//! reading the file differently from what its author meant would be worse.

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

/// Refuses a file that asks for a frontend that is not this one.
pub(super) fn check(text: &str, options: &FrontendOptions) -> Result<(), FrontendError> {
    let argument = options.build_args.get(ARGUMENT);
    if let Some(argument) = argument.filter(|argument| !argument.trim().is_empty()) {
        let image = argument.split_whitespace().next().unwrap_or_default();
        if is_served(image, options) {
            return Ok(());
        }
        return Err(FrontendError::Option {
            option: format!("--build-arg {ARGUMENT}"),
            reason: refusal(image),
        });
    }
    let Some(syntax) = detect_syntax(text) else {
        return Ok(());
    };
    if is_served(&syntax.image, options) {
        return Ok(());
    }
    Err(refused(&syntax.image, syntax.span).into())
}

fn refused(image: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, refusal(image)).with_help(
        "take the line out if the file is a plain Dockerfile, or build with \
         --build-arg BUILDKIT_SYNTAX=docker/dockerfile",
    )
}

fn refusal(image: &str) -> String {
    format!("the frontend {image:?} cannot be used: frontends from images are not supported yet")
}

/// Says whether a name, which may be that of a named context, means docker's frontend.
fn is_served(name: &str, options: &FrontendOptions) -> bool {
    let replaced = options.named_context(name, &options.target_platform());
    let name = match replaced {
        Some((_, ContextSource::Image(image))) => image,
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
