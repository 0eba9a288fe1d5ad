//! Checks of a Dockerfile that do not stop a build: each function makes one rule's warning.
//!
//! Rules bear BuildKit's names, so that `# check=skip=…` means the same here. The parser has
//! rules of its own; those that need variables, stages or images are asked by the plan and the
//! lowering, where these are known; `from` and `stages` hold those about `FROM` and about names
//! and keywords. [`Checks`] switches rules off and makes warnings errors.

mod from;
mod stages;

pub(super) use from::{
    base_image_platform, constant_platform, invalid_defaults, redundant_platform,
    undefined_arg_in_from,
};
pub(super) use stages::names_and_keywords;

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Severity, Span};
use super::dockerfile::directive::{CheckError, parse_check};
use super::dockerfile::{CheckOptions, Dockerfile, Word};
use super::expand::Missing;
use super::options::FrontendOptions;
use super::suggest;

/// Argument that stands for the `check` directive.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Which rules count.
#[derive(Debug)]
pub(super) struct Checks(CheckOptions);

impl Checks {
    /// Reads the directive of the file, or the argument that replaces it.
    pub(super) fn new(
        file: &Dockerfile,
        options: &FrontendOptions,
    ) -> Result<Self, Box<Diagnostic>> {
        let fail =
            |span: Span, error: &CheckError| Box::new(Diagnostic::error(span, error.to_string()));
        if let Some(text) = options.build_args.get(CHECK_ARG) {
            return parse_check(text)
                .map(Self)
                .map_err(|e| fail(Span::START, &e));
        }
        match &file.directives.check {
            Some(word) => parse_check(&word.raw)
                .map(Self)
                .map_err(|e| fail(word.span, &e)),
            None => Ok(Self(CheckOptions::default())),
        }
    }

    /// Sorts warnings by place, drops those of rules that are off and those said before.
    ///
    /// # Errors
    ///
    /// Gives the warnings back as errors where the file asks for that.
    pub(super) fn judge(
        &self,
        warnings: Vec<Diagnostic>,
    ) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let mut said = BTreeSet::new();
        let mut kept: Vec<Diagnostic> = warnings
            .into_iter()
            .filter(|warning| !warning.rule.is_some_and(|rule| self.0.skip.contains(rule)))
            .filter(|warning| said.insert((warning.span.start, warning.message.clone())))
            .collect();
        kept.sort_by_key(|warning| warning.span.start);
        // A given argument is not a mistake of the file.
        let is_fault = |warning: &Diagnostic| warning.rule.is_some_and(|r| r != "UnusedBuildArg");
        if self.0.error && kept.iter().any(is_fault) {
            for warning in kept.iter_mut().filter(|warning| is_fault(warning)) {
                warning.severity = Severity::Error;
            }
            return Err(kept);
        }
        Ok(kept)
    }
}

/// A variable that nothing sets.
pub(super) fn undefined_var<'a>(
    missing: &Missing,
    word: &Word,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let message = format!("usage of undefined variable '${}'", missing.name);
    let help = suggest::did_you_mean(&missing.name, known);
    Diagnostic::warning("UndefinedVar", missing.span(word), message).with_help_if(help)
}

/// A relative `WORKDIR` before any absolute one.
pub(super) fn relative_workdir(path: &str, span: Span) -> Diagnostic {
    let message = format!("relative workdir {path:?} depends on the base image");
    Diagnostic::warning("WorkdirRelativePath", span, message)
}

/// A second instruction of which only the last counts.
pub(super) fn multiple_instructions(keyword: &str, earlier: Span) -> Diagnostic {
    let message = format!("this {keyword} has no effect: a later one in the same stage wins");
    Diagnostic::warning("MultipleInstructionsDisallowed", earlier, message)
}

/// `CMD` or `ENTRYPOINT` as text for a shell that does not pass signals on.
pub(super) fn json_arguments(keyword: &str, span: Span) -> Diagnostic {
    let message =
        format!("JSON arguments recommended for {keyword}: a shell does not pass signals on");
    Diagnostic::warning("JSONArgsRecommended", span, message)
}

/// `EXPOSE` with a protocol that is not in lower case.
pub(super) fn expose_protocol_casing(port: &str, span: Span) -> Diagnostic {
    let message = format!("the protocol in EXPOSE {port} should be in lower case");
    Diagnostic::warning("ExposeProtoCasing", span, message)
}

/// `EXPOSE` with an address or a port of the host.
pub(super) fn expose_format(port: &str, span: Span) -> Diagnostic {
    let message = format!("EXPOSE {port} names an address or a port of the host, which is ignored");
    Diagnostic::warning("ExposeInvalidFormat", span, message)
}

/// A name of `ARG` or `ENV` that looks like a secret's.
pub(super) fn secret_name(keyword: &str, name: &str, span: Span) -> Option<Diagnostic> {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name_in_lower_case = name.to_lowercase();
    let has = |words: &[&str]| {
        name_in_lower_case
            .split('_')
            .any(|part| words.contains(&part))
    };
    if !has(&SECRET) || has(&HARMLESS) {
        return None;
    }
    let message =
        format!("{keyword} {name:?} looks like a secret, and its value stays in the image");
    let help = "use RUN --mount=type=secret";
    Some(Diagnostic::warning("SecretsUsedInArgOrEnv", span, message).with_help(help))
}

/// A source that the ignore file hides.
pub(super) fn ignored_source(keyword: &str, path: &str, span: Span) -> Diagnostic {
    let message = format!("{keyword} takes {path:?}, which the ignore file excludes");
    Diagnostic::warning("CopyIgnoredFile", span, message)
}
