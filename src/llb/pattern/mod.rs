//! Path patterns: those of `.dockerignore` and `--exclude`, and Go's `filepath.Match`.
//!
//! [`PatternMatcher`] has the rules of moby's pattern matcher, which decide what an ignore file
//! hides:
//!
//! | pattern | matches |
//! |---|---|
//! | `foo` | `foo`, not `a/foo` |
//! | `*` `?` `[a-z]` | any text, one character, one of a class; `*` and `?` never `/` |
//! | `**/x` | `x`, `a/x`, `a/b/x` |
//! | `**x` | every path that ends with `x` |
//! | `x/**` | everything below `x`, not `x` |
//! | `a**/*.t` | `a.t`, `ab.t`, `a/b/c.t` |
//! | `!x` | takes back what patterns before it matched |
//!
//! `{a,b}` and other characters stand for themselves; a backslash protects the next character. A
//! path also matches when one of its parents does, and the last pattern that matches decides.
//!
//! A walk asks with [`PatternMatcher::enter`] for each directory and hands the answer on to the
//! entries below it, so that no parent is looked at twice; it may skip a directory altogether
//! when [`MatchInfo::prunes`] says so. A walk asks at each step only the patterns that can change
//! the outcome there, and does not come back to the others; with `a/b` and behind it `!a`, or
//! with `a`, `!a/b/c`, `a/b`, it differs from [`PatternMatcher::matches_or_parent`]. So it is in
//! moby, and builds walk.
//!
//! Paths are bytes, relative and `/`-separated; bytes that are not UTF-8 count as one character.

mod compiled;
mod glob;

use compiled::Compiled;
pub use glob::{BadPattern, Glob, go_match, has_wildcards};

/// A list of patterns, the last one that matches deciding.
#[derive(Debug, Clone, Default)]
pub struct PatternMatcher {
    rules: Vec<Rule>,
    has_negations: bool,
}

#[derive(Debug, Clone)]
struct Rule {
    negated: bool,
    compiled: Compiled,
    /// Which of the patterns that were given.
    index: usize,
}

/// What is wrong with a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `!` without a pattern.
    #[error("`!` without a pattern")]
    LoneNegation {
        /// Which of the patterns, counted from 0.
        index: usize,
    },
    /// A pattern that cannot be read.
    #[error("bad pattern `{pattern}`: {source}")]
    Bad {
        /// Which of the patterns, counted from 0.
        index: usize,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: BadPattern,
    },
}

impl PatternError {
    /// Which of the patterns is wrong, counted from 0.
    pub fn index(&self) -> usize {
        match self {
            Self::LoneNegation { index } | Self::Bad { index, .. } => *index,
        }
    }
}

/// What is known about a directory and its parents, for asking about what is below.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MatchInfo {
    /// For each rule whether it matched the directory or a parent; empty at the top.
    matched: Vec<bool>,
    hidden: bool,
    prunes: bool,
}

impl MatchInfo {
    /// Whether the directory itself is matched (hidden, in an ignore file).
    pub fn is_match(&self) -> bool {
        self.hidden
    }

    /// Whether everything below the directory is matched too, so that a walk need not look.
    pub fn prunes(&self) -> bool {
        self.prunes
    }
}

impl PatternMatcher {
    /// Reads patterns; blank ones mean nothing.
    ///
    /// # Errors
    ///
    /// Fails for a pattern that cannot be read and for a lone `!`.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut rules = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = clean(pattern);
            let (negated, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneNegation { index }),
                Some(text) => (true, text),
                None => (false, cleaned.as_str()),
            };
            let compiled = Compiled::new(text).map_err(|source| PatternError::Bad {
                index,
                pattern: pattern.to_owned(),
                source,
            })?;
            rules.push(Rule {
                negated,
                compiled,
                index,
            });
        }
        let has_negations = rules.iter().any(|rule| rule.negated);
        Ok(Self {
            rules,
            has_negations,
        })
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any pattern starts with `!`.
    pub fn has_negations(&self) -> bool {
        self.has_negations
    }

    /// Whether the path itself matches, its parents not looked at.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.last_match(path.as_ref(), |rule, path| rule.compiled.matches(path))
            .is_some_and(|rule| !rule.negated)
    }

    /// Whether the path or one of its parents matches.
    pub fn matches_or_parent(&self, path: impl AsRef<[u8]>) -> bool {
        self.deciding_rule(path.as_ref())
            .is_some_and(|rule| !rule.negated)
    }

    /// The pattern that decides about the path or one of its parents: its place in the list that
    /// was given, and whether it hides the path. Nothing when none matches.
    pub fn decide(&self, path: impl AsRef<[u8]>) -> Option<(usize, bool)> {
        self.deciding_rule(path.as_ref())
            .map(|rule| (rule.index, !rule.negated))
    }

    fn deciding_rule(&self, path: &[u8]) -> Option<&Rule> {
        self.last_match(path, |rule, path| {
            rule.compiled.matches(path) || parents(path).any(|parent| rule.compiled.matches(parent))
        })
    }

    /// Goes through the rules as far as each can change the outcome.
    fn last_match(&self, path: &[u8], matches: impl Fn(&Rule, &[u8]) -> bool) -> Option<&Rule> {
        let mut last: Option<&Rule> = None;
        for rule in &self.rules {
            let hidden = last.is_some_and(|rule| !rule.negated);
            if rule.negated == hidden && matches(rule, path) {
                last = Some(rule);
            }
        }
        last
    }

    /// What is known about the entry `path` of a directory known by `parent`, for going on below
    /// it.
    ///
    /// The top of a walk is `MatchInfo::default()`, of which nothing needs to be asked.
    pub fn enter(&self, path: impl AsRef<[u8]>, parent: &MatchInfo) -> MatchInfo {
        let path = path.as_ref();
        let mut matched = vec![false; self.rules.len()];
        let hidden = self.walk_rules(path, parent, |index| matched[index] = true);
        let prunes = hidden && !self.may_take_back_below(path, &matched);
        MatchInfo {
            matched,
            hidden,
            prunes,
        }
    }

    /// Whether the entry `path` of a directory known by `parent` matches.
    pub fn matches_below(&self, path: impl AsRef<[u8]>, parent: &MatchInfo) -> bool {
        if parent.prunes {
            return true;
        }
        self.walk_rules(path.as_ref(), parent, |_| ())
    }

    fn walk_rules(&self, path: &[u8], parent: &MatchInfo, mut remember: impl FnMut(usize)) -> bool {
        let mut hidden = false;
        for (index, rule) in self.rules.iter().enumerate() {
            let by_parent = parent.matched.get(index).copied().unwrap_or(false);
            // Rules that cannot change the outcome here are not even asked.
            if by_parent || (rule.negated == hidden && rule.compiled.matches(path)) {
                remember(index);
                hidden = !rule.negated;
            }
        }
        hidden
    }

    /// Whether a `!` pattern could match something below a hidden directory.
    fn may_take_back_below(&self, directory: &[u8], matched: &[bool]) -> bool {
        if !self.has_negations {
            return false;
        }
        // What a negation takes back, a match behind it hides again.
        let last_match = self
            .rules
            .iter()
            .zip(matched)
            .rposition(|(rule, matched)| *matched && !rule.negated);
        let behind = last_match.map_or(0, |index| index + 1);
        self.rules[behind..]
            .iter()
            .any(|rule| rule.negated && rule.compiled.may_match_below(directory))
    }
}

/// The parents of a path, shortest first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| &path[..at])
}

/// Cleans a path as text: no empty or `.` parts, `x/..` taken out, no slash at the end. The
/// cleaned empty path is `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.as_str()) {
        (true, _) => format!("/{joined}"),
        (false, "") => ".".to_owned(),
        (false, _) => joined,
    }
}

#[cfg(test)]
mod tests;
