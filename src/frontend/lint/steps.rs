//! Rules about what shows while a stage is lowered: values, the shell, earlier instructions.

use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::Word;
use crate::frontend::dockerfile::instruction::KeyValue;
use crate::frontend::expand::Missing;
use crate::frontend::suggest;

/// A variable that nothing sets.
pub(in crate::frontend) fn undefined_var<'a>(
    missing: &Missing,
    word: &Word,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    let near = suggest::variable(&missing.name, known);
    let hint = near.map(|name| format!(" (did you mean ${name}?)"));
    let message = format!(
        "the variable ${} is not set here{}",
        missing.name,
        hint.unwrap_or_default()
    );
    Diagnostic::warning("UndefinedVar", missing.span(word), message)
}

/// A relative `WORKDIR` before any absolute one.
pub(in crate::frontend) fn relative_workdir(path: &str, span: Span) -> Diagnostic {
    let message = format!("where the relative path {path:?} leads depends on the base image");
    let help = "begin with an absolute WORKDIR";
    Diagnostic::warning("WorkdirRelativePath", span, message).with_help(help)
}

/// A second instruction of which only the last counts; `earlier` is the whole one before.
pub(in crate::frontend) fn multiple_instructions(keyword: &str, earlier: Span) -> Diagnostic {
    let message = format!("this {keyword} has no effect: a later one in the same stage wins");
    Diagnostic::warning("MultipleInstructionsDisallowed", earlier, message).about(earlier)
}

/// `CMD` or `ENTRYPOINT` as text for a shell that does not pass signals on.
pub(in crate::frontend) fn json_arguments(keyword: &str, span: Span) -> Diagnostic {
    let message =
        format!("{keyword} runs under a shell, which keeps signals from it; a JSON list does not");
    let help = format!("write {keyword} [\"program\", \"argument\"], or choose a SHELL");
    Diagnostic::warning("JSONArgsRecommended", span, message).with_help(help)
}

/// `ENV name value` or `LABEL name value`.
pub(in crate::frontend) fn legacy_pair(
    keyword: &str,
    pair: &KeyValue,
    span: Span,
) -> Option<Diagnostic> {
    if !pair.legacy {
        return None;
    }
    let message = format!("\"{keyword} key value\" is the old form of \"{keyword} key=value\"");
    let help = format!("write {keyword} {}=…", pair.key.raw);
    Some(Diagnostic::warning("LegacyKeyValueFormat", span, message).with_help(help))
}

/// `EXPOSE` with a protocol that is not in lower case.
pub(in crate::frontend) fn expose_protocol_casing(port: &str, span: Span) -> Diagnostic {
    let message = format!("the protocol in '{port}' should be in lower case");
    Diagnostic::warning("ExposeProtoCasing", span, message)
}

/// `EXPOSE` with an address or a port of the host.
pub(in crate::frontend) fn expose_format(port: &str, span: Span) -> Diagnostic {
    let message = format!("'{port}' names an address or a port of the host, which has no effect");
    let help = "publish ports where the container is started";
    Diagnostic::warning("ExposeInvalidFormat", span, message).with_help(help)
}

/// A name of `ARG` or `ENV` that looks like a secret's.
pub(in crate::frontend) fn secret_name(
    keyword: &str,
    name: &str,
    span: Span,
) -> Option<Diagnostic> {
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
pub(in crate::frontend) fn ignored_source(keyword: &str, path: &str, span: Span) -> Diagnostic {
    let message = format!("{keyword} takes {path:?}, which the ignore file excludes");
    Diagnostic::warning("CopyIgnoredFile", span, message)
}
