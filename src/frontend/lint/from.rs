//! Rules about `FROM`: its variables, its platform, its image.

use crate::frontend::build_args;
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::{Dockerfile, Word};
use crate::frontend::environment::Environment;
use crate::frontend::expand::{Expanded, Missing};
use crate::frontend::suggest;
use crate::oci::{ImageConfig, Platform, Reference, Transported};

/// A variable that no `ARG` before the first `FROM` declares.
pub(in crate::frontend) fn undefined_arg_in_from<'a>(
    missing: &Missing,
    word: &Word,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let near = suggest::variable(&missing.name, known);
    let hint = near.map(|name| format!(" (did you mean {name}?)"));
    let message = format!(
        "no ARG before the first FROM declares '{}'{}",
        missing.name,
        hint.unwrap_or_default()
    );
    Diagnostic::warning("UndefinedArgInFrom", missing.span(word), message)
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
    let message = format!("the image {name} is for {found}, but this build is for {wanted}");
    Some(Diagnostic::warning(
        "InvalidBaseImagePlatform",
        span,
        message,
    ))
}

/// A `--platform` without a variable, in a stage whose name does not tell of it.
pub(in crate::frontend) fn constant_platform(
    word: &Word,
    expanded: &Expanded<String>,
    platform: &Platform,
    stage: Option<&str>,
) -> Option<Diagnostic> {
    let is_named = |stage: &str| {
        stage.contains(platform.os.as_str()) || stage.contains(platform.architecture.as_str())
    };
    let has_variables = !expanded.used.is_empty() || !expanded.missing.is_empty();
    if has_variables || stage.is_some_and(is_named) {
        return None;
    }
    let message = format!("--platform has the constant value {:?}", expanded.value);
    let help = "use --platform on the command line, or name the stage after the platform";
    let rule = "FromPlatformFlagConstDisallowed";
    Some(Diagnostic::warning(rule, word.span, message).with_help(help))
}

/// `--platform=$TARGETPLATFORM`, which is what is taken anyway.
pub(in crate::frontend) fn redundant_platform(
    word: &Word,
    expanded: &Expanded<String>,
    variables: &Environment,
) -> Option<Diagnostic> {
    const TARGET: &str = "TARGETPLATFORM";
    let is_alone = expanded.missing.is_empty() && expanded.used.iter().eq([TARGET]);
    if !is_alone || variables.get(TARGET) != Some(expanded.value.as_str()) {
        return None;
    }
    let message = format!("--platform={} names what is taken anyway", word.raw);
    let rule = "RedundantTargetPlatform";
    Some(Diagnostic::warning(rule, word.span, message).with_help("leave --platform out"))
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
    let mut warnings = Vec::new();
    for stage in &file.stages {
        let word = &stage.from.image;
        let Ok(name) = build_args::expand(word, file.escape(), &variables) else {
            break;
        };
        let is_transported = Transported::parse(&name).is_some();
        if is_transported || name.parse::<Reference>().is_ok() {
            continue;
        }
        let message = format!(
            "without build arguments, {} is not the name of an image",
            word.raw
        );
        let help = match word.raw.contains('$') {
            true => Some("give the ARG a default"),
            false if name == name.to_lowercase() => None,
            false => Some("names of images are in lower case"),
        };
        let warning = Diagnostic::warning("InvalidDefaultArgInFrom", word.span, message);
        let warning = warning.with_help_if(help.map(str::to_owned));
        warnings.push(warning.about(stage.header.span));
    }
    warnings
}
