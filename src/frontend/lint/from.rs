//! Rules about `FROM`: its variables, its platform, its image.

use crate::frontend::build_args;
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::{Dockerfile, Word};
use crate::frontend::environment::Environment;
use crate::frontend::expand::Missing;
use crate::frontend::suggest;
use crate::oci::{ImageConfig, Platform, Reference};

/// A variable that no `ARG` before the first `FROM` declares.
pub(in crate::frontend) fn undefined_arg_in_from<'a>(
    missing: &Missing,
    word: &Word,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let message = format!("FROM argument '{}' is not declared", missing.name);
    let help = suggest::did_you_mean(&missing.name, known);
    Diagnostic::warning("UndefinedArgInFrom", missing.span(word), message).with_help_if(help)
}

/// A base image for another platform than the one that is built.
pub(in crate::frontend) fn base_image_platform(
    name: &str,
    wanted: &Platform,
    config: &ImageConfig,
    span: Span,
) -> Option<Diagnostic> {
    let found = config.platform().normalized();
    if found.os == wanted.os && found.architecture == wanted.architecture {
        return None;
    }
    let message = format!("base image {name} is for {found}, but this build is for {wanted}");
    let warning = Diagnostic::warning("InvalidBaseImagePlatform", span, message);
    Some(warning)
}

/// A `--platform` without a variable, in a stage whose name does not tell of it.
pub(in crate::frontend) fn constant_platform(
    word: &Word,
    platform: &Platform,
    stage: Option<&str>,
) -> Option<Diagnostic> {
    let is_named = |stage: &str| {
        stage.contains(platform.os.as_str()) || stage.contains(platform.architecture.as_str())
    };
    if word.raw.contains('$') || stage.is_some_and(is_named) {
        return None;
    }
    let message = format!("FROM --platform has the constant value {:?}", word.raw);
    let help = "use --platform on the command line, or name the stage after the platform";
    let rule = "FromPlatformFlagConstDisallowed";
    Some(Diagnostic::warning(rule, word.span, message).with_help(help))
}

/// `--platform=$TARGETPLATFORM`, which is what is taken anyway.
pub(in crate::frontend) fn redundant_platform(
    word: &Word,
    text: &str,
    variables: &Environment,
) -> Option<Diagnostic> {
    let is_target = word.raw == "$TARGETPLATFORM" || word.raw == "${TARGETPLATFORM}";
    if !is_target || variables.get("TARGETPLATFORM") != Some(text) {
        return None;
    }
    let message = format!("--platform={} says what is taken anyway", word.raw);
    Some(Diagnostic::warning(
        "RedundantTargetPlatform",
        word.span,
        message,
    ))
}

/// Base images that have no valid name when no build argument is given.
///
/// `predefined` holds the variables that no `ARG` sets.
pub(in crate::frontend) fn invalid_defaults(
    file: &Dockerfile,
    predefined: &Environment,
) -> Vec<Diagnostic> {
    let mut variables = predefined.clone();
    for (_, instruction) in file.global_args() {
        for declaration in &instruction.args {
            let Some(word) = &declaration.value else {
                continue;
            };
            // A default that cannot be read is an error that is shown elsewhere.
            let Ok(value) = build_args::expand(word, file.escape(), &variables) else {
                return Vec::new();
            };
            variables.set(&declaration.name.raw, &value);
        }
    }
    let images = file.stages.iter().map(|stage| &stage.from.image);
    let invalid = images.filter(|word| {
        let name = build_args::expand(word, file.escape(), &variables);
        let is_stage = |name: &str| {
            let mut names = file.stages.iter().filter_map(|stage| stage.name());
            names.any(|stage| stage == name.to_lowercase())
        };
        word.raw.contains('$')
            && name.is_ok_and(|name| !is_stage(&name) && name.parse::<Reference>().is_err())
    });
    let warning = |word: &Word| {
        let message = format!(
            "without build arguments, {} is not the name of an image",
            word.raw
        );
        Diagnostic::warning("InvalidDefaultArgInFrom", word.span, message)
    };
    invalid.map(warning).collect()
}
