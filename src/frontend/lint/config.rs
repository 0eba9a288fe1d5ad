//! Which rules count, and what their findings do.
//!
//! | said by | holds for |
//! |---|---|
//! | build argument `BUILDKIT_DOCKERFILE_CHECK` | the file, instead of the directive |
//! | directive `# check=…` at the top | the file |
//! | comment `# check=…` above an instruction | that instruction, beside what holds for the file |
//!
//! In a directive and a comment the options end at the first space, so that a reason may follow.
//! `skip` never reaches an experimental rule that `experimental` switched on. A comment cannot
//! make warnings errors. Rules about several instructions (names of stages, case of keywords) and
//! about base images heed no comment.

use std::collections::BTreeSet;

use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::directive::parse_check;
use crate::frontend::dockerfile::{CheckOptions, Dockerfile, Instruction, Word};
use crate::frontend::error::FrontendError;
use crate::frontend::lint::Rule;
use crate::frontend::options::FrontendOptions;

/// Argument that stands for the `check` directive.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What holds for the whole file.
#[derive(Debug)]
pub(in crate::frontend) struct Checks(CheckOptions);

impl Checks {
    /// Reads the directive of the file, or the argument that replaces it.
    pub(in crate::frontend) fn new(
        file: &Dockerfile,
        options: &FrontendOptions,
    ) -> Result<Self, FrontendError> {
        if let Some(text) = options.build_args.get(CHECK_ARG) {
            let parsed = parse_check(text);
            return parsed.map(Self).map_err(|error| FrontendError::Option {
                option: CHECK_ARG.to_owned(),
                reason: error.to_string(),
            });
        }
        let Some(word) = &file.directives.check else {
            return Ok(Self(CheckOptions::default()));
        };
        parse_check(without_reason(&word.raw))
            .map(Self)
            .map_err(|error| {
                Diagnostic::error(word.span, error.to_string())
                    .with_help("write for example `# check=skip=RuleName;error=true`")
                    .into()
            })
    }

    /// Returns whether an experimental rule is on for an instruction.
    pub(super) fn is_on(&self, rule: &str, instruction: &Instruction) -> bool {
        let local = local_options(&instruction.comments);
        self.0.experimental.contains(rule)
            || local.is_some_and(|options| options.experimental.contains(rule))
    }

    /// Takes out what the file skips and what is said twice; sorts by place.
    pub(in crate::frontend) fn kept(&self, warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let mut said = BTreeSet::new();
        let mut kept: Vec<Diagnostic> = warnings
            .into_iter()
            .filter(|warning| !skips(&self.0, warning))
            .filter(|warning| said.insert((warning.span.start, warning.message.clone())))
            .collect();
        kept.sort_by_key(|warning| (warning.lines().0, warning.span.start));
        kept
    }

    /// Refuses warnings of rules, where the file asks for that.
    pub(in crate::frontend) fn judge(&self, warnings: &[Diagnostic]) -> Result<(), FrontendError> {
        let rules: BTreeSet<&'static str> =
            warnings.iter().filter_map(|warning| warning.rule).collect();
        if self.0.error && !rules.is_empty() {
            let rules = rules.into_iter().collect();
            return Err(FrontendError::Checks { rules });
        }
        Ok(())
    }
}

/// Says of the warnings from number `start` on that they are about an instruction; takes out
/// those that a comment above it skips.
pub(in crate::frontend) fn attribute(
    warnings: &mut Vec<Diagnostic>,
    start: usize,
    instruction: &Instruction,
) {
    if warnings.len() <= start {
        return;
    }
    let local = local_options(&instruction.comments);
    let new: Vec<Diagnostic> = warnings.drain(start..).collect();
    let kept = new
        .into_iter()
        .filter(|warning| !local.as_ref().is_some_and(|local| skips(local, warning)))
        .map(|warning| warning.about(instruction.span));
    warnings.extend(kept);
}

fn skips(options: &CheckOptions, warning: &Diagnostic) -> bool {
    warning.rule.is_some_and(|name| {
        let is_experimental = Rule::named(name).is_some_and(|rule| rule.experimental);
        !is_experimental && options.skip.contains(name)
    })
}

/// Reads the options in the comments above an instruction: those of the first `check` comment,
/// if they can be read.
fn local_options(comments: &[Word]) -> Option<CheckOptions> {
    let value = comments.iter().find_map(|comment| {
        let (name, value) = comment.raw.split_once('=')?;
        let is_check = name.trim_end().eq_ignore_ascii_case("check");
        let value = value.trim();
        (is_check && !value.is_empty()).then_some(value)
    })?;
    parse_check(without_reason(value)).ok()
}

/// Returns the options without what stands behind a space.
fn without_reason(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::diagnostic::Span;

    fn comments(texts: &[&str]) -> Vec<Word> {
        let words = texts.iter().map(|text| Word::new(*text, Span::START));
        words.collect()
    }

    #[test]
    fn a_comment_holds_options_and_a_reason() {
        let skips_a = |texts: &[&str]| {
            local_options(&comments(texts)).is_some_and(|options| options.skip.contains("A"))
        };
        for texts in [
            &["check=skip=A"][..],
            &["CHECK = skip=all because"],
            &["about it", "check=skip=B,A", "check=skip=C"],
            &["check=", "check=skip=A"],
        ] {
            assert!(skips_a(texts), "{texts:?}");
        }
        for texts in [
            &["skip=A"][..],
            &["check skip=A"],
            &["check=skip=B, A"],
            &["check=skip", "check=skip=A"],
            &[],
        ] {
            assert!(!skips_a(texts), "{texts:?}");
        }
    }
}
