//! `.dockerignore`: which files of the build context a build does not see.
//!
//! One pattern a line. A line that starts with `#` is a comment; white space around a pattern,
//! a slash before it and one behind it mean nothing; `!` takes back what lines before it hid. What
//! the patterns match stands in [`crate::llb::pattern`]. Deliberately absent: files; the caller
//! reads the text and walks the tree.

use super::diagnostic::{Diagnostic, Diagnostics, Span};
use super::lines::{BYTE_ORDER_MARK, LineIndex};
use crate::llb::pattern::{PatternError, PatternMatcher, clean};

/// The largest ignore file that is read.
pub const MAX_IGNORE_FILE_BYTES: usize = 16 << 20;

/// The most patterns an ignore file may hold.
pub const MAX_IGNORE_RULES: usize = 20_000;

/// A line of an ignore file that holds a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreRule {
    /// The pattern in the form the matcher takes, `!` included.
    pub pattern: String,
    /// The pattern as written.
    pub written: String,
    /// Where it stands.
    pub span: Span,
}

/// An ignore file.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    rules: Vec<IgnoreRule>,
    matcher: PatternMatcher,
}

/// Why a path is hidden or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the path is hidden.
    pub hidden: bool,
    /// The line that decides.
    pub rule: &'a IgnoreRule,
}

impl IgnoreFile {
    /// Reads an ignore file.
    ///
    /// # Errors
    ///
    /// Fails for patterns that cannot be read, and for files beyond the limits.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        if text.len() > MAX_IGNORE_FILE_BYTES {
            let message = format!(
                "the file has {} bytes, more than {MAX_IGNORE_FILE_BYTES}",
                text.len()
            );
            return Err(Diagnostic::error(Span::START, message).into());
        }
        let rules = read_rules(text);
        if let Some(extra) = rules.get(MAX_IGNORE_RULES) {
            let message = format!("more than {MAX_IGNORE_RULES} patterns");
            return Err(Diagnostic::error(extra.span, message).into());
        }
        let patterns: Vec<&str> = rules.iter().map(|rule| rule.pattern.as_str()).collect();
        match PatternMatcher::new(&patterns) {
            Ok(matcher) => Ok(Self { rules, matcher }),
            Err(first) => Err(bad_rules(&rules, &first)),
        }
    }

    /// The lines that hold patterns, in order.
    pub fn rules(&self) -> &[IgnoreRule] {
        &self.rules
    }

    /// The patterns in the form the matcher takes, in order.
    pub fn patterns(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.pattern.clone()).collect()
    }

    /// The matcher for a walk.
    pub fn matcher(&self) -> &PatternMatcher {
        &self.matcher
    }

    /// Which line decides about a path, or about one of its parents, if any does.
    pub fn decide(&self, path: impl AsRef<[u8]>) -> Option<Decision<'_>> {
        let (index, hidden) = self.matcher.decide(path)?;
        Some(Decision {
            hidden,
            rule: &self.rules[index],
        })
    }
}

/// Reads the lines that hold patterns.
fn read_rules(text: &str) -> Vec<IgnoreRule> {
    let lines = LineIndex::new(text);
    let mut rules = Vec::new();
    let mut start = if text.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len_utf8()
    } else {
        0
    };
    for line in text[start..].split_inclusive('\n') {
        let written = line.trim();
        if !line.starts_with('#') && !written.is_empty() {
            let from = start + (line.len() - line.trim_start().len());
            rules.push(IgnoreRule {
                pattern: normal_form(written),
                written: written.to_owned(),
                span: lines.span(from, from + written.len()),
            });
        }
        start += line.len();
    }
    rules
}

/// A pattern without needless slashes and dots, relative to the build context.
fn normal_form(written: &str) -> String {
    let (negation, pattern) = match written.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", written),
    };
    if pattern.is_empty() {
        return negation.to_owned();
    }
    let cleaned = clean(pattern);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty());
    format!("{negation}{}", relative.unwrap_or(&cleaned))
}

/// The findings for all patterns that cannot be read; there is at least one.
fn bad_rules(rules: &[IgnoreRule], first: &PatternError) -> Diagnostics {
    let findings = rules
        .iter()
        .enumerate()
        .skip(first.index())
        .filter_map(|(_, rule)| {
            let error = PatternMatcher::new(&[&rule.pattern]).err()?;
            let (message, help) = match error {
                PatternError::LoneNegation { .. } => (
                    "`!` without a pattern".to_owned(),
                    "write the path to take back behind it, or take the line out",
                ),
                PatternError::Bad { source, .. } => (
                    source.to_string(),
                    "put a backslash before a `[` that is part of a name",
                ),
            };
            Some(Diagnostic::error(rule.span, message).with_help(help))
        });
    Diagnostics(findings.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::frontend::diagnostic::Source;
    use crate::frontend::testing::{compare, fixture_folders};
    use crate::llb::pattern::MatchInfo;

    #[test]
    fn lines_become_patterns() {
        let text = "\u{feff}# comment\n  a  \r\n\n #not a comment\n/b/\n! /c/../d \n./e//f\n/\n";
        let file = IgnoreFile::parse(text).unwrap();
        assert_eq!(
            file.patterns(),
            ["a", "#not a comment", "b", "!d", "e/f", "/"]
        );
        let place = file.rules()[3].span;
        assert_eq!(
            (place.to_string().as_str(), file.rules()[3].written.as_str()),
            ("6:1-6:10", "! /c/../d")
        );
    }

    #[test]
    fn the_deciding_line_is_told() {
        let file = IgnoreFile::parse("# all\n*\n!src\n\nsrc/*.tmp\n").unwrap();
        let line = |path: &str| {
            let decision = file.decide(path)?;
            Some((decision.hidden, decision.rule.span.start.line))
        };
        assert_eq!(line("README"), Some((true, 2)));
        assert_eq!(line("src/main.rs"), Some((false, 3)));
        assert_eq!(line("src/a.tmp"), Some((true, 5)));
        assert_eq!(IgnoreFile::parse("").unwrap().decide("a"), None);
    }

    #[test]
    fn bad_patterns_are_shown_with_their_lines() {
        let source = Source::new(".dockerignore", "ok\n!\nfine\na[\n");
        let findings = IgnoreFile::parse(&source.text).unwrap_err();
        let heads: Vec<String> = findings
            .0
            .iter()
            .map(|finding| finding.headline(&source.name))
            .collect();
        let expected = [
            ".dockerignore:2:1: `!` without a pattern",
            ".dockerignore:4:1: `[` is never closed",
        ];
        assert_eq!(heads, expected);
        assert!(
            findings
                .render(&source)
                .contains("   4 | >>> a[\n     |     ^^\n")
        );
    }

    /// Walks the paths of a fixture's tree and returns those that are not hidden.
    fn kept(file: &IgnoreFile, tree: &str) -> String {
        let mut known: BTreeMap<String, MatchInfo> = BTreeMap::new();
        known.insert(String::new(), MatchInfo::default());
        let mut kept = String::new();
        for path in tree.lines() {
            let name = path.trim_end_matches('/');
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            let parent = known
                .get(parent)
                .unwrap_or_else(|| panic!("{parent} does not stand before {path}"))
                .clone();
            let hidden = if path.ends_with('/') {
                let info = file.matcher().enter(name, &parent);
                let hidden = info.is_match();
                known.insert(name.to_owned(), info);
                hidden
            } else {
                file.matcher().matches_below(name, &parent)
            };
            assert!(
                hidden || !parent.prunes(),
                "{path} is kept below a pruned directory"
            );
            if !hidden {
                kept.push_str(path);
                kept.push('\n');
            }
        }
        kept
    }

    /// Walks tests/fixtures/ignore.
    #[test]
    fn ignore_files_keep_the_expected_paths() {
        let folders = fixture_folders("ignore");
        assert!(folders.len() >= 10, "only {} fixtures", folders.len());
        for folder in folders {
            let text = fs::read_to_string(folder.join(".dockerignore")).unwrap();
            let tree = fs::read_to_string(folder.join("tree.txt")).unwrap();
            compare(
                &folder.join("kept.txt"),
                &kept(&IgnoreFile::parse(&text).unwrap(), &tree),
            );
        }
    }
}
