//! Which paths of a tree patterns let through, decided while walking down.

use crate::llb::pattern::{ParentMatches, PatternMatcher};

/// Include and exclude patterns (moby's dialect: `*`, `?`, `[…]`, `**`, `!`).
///
/// A path is let through when it matches an include pattern (or there is none) and no exclude
/// pattern. A directory passes its answers on, since a pattern that matches it covers
/// everything below.
#[derive(Debug)]
pub struct Filter {
    include: Option<Side>,
    exclude: Option<Side>,
}

#[derive(Debug)]
struct Side {
    matcher: PatternMatcher,
    patterns: Vec<String>,
    /// Leading components without wildcards of the patterns that can let something in again.
    openings: Vec<Vec<String>>,
}

/// What is known of a directory when its children are asked about.
#[derive(Debug, Clone, Default)]
pub struct FilterState {
    include: Option<ParentMatches>,
    exclude: Option<ParentMatches>,
}

/// The answer for one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The path itself is let through.
    pub taken: bool,
    /// Something below it may be let through.
    pub descend: bool,
}

/// Says that a pattern makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {pattern:?}")]
pub struct InvalidPattern {
    /// The pattern, or all of them where the culprit is not known.
    pub pattern: String,
}

impl Filter {
    /// Compiles patterns; no include pattern means everything.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, InvalidPattern> {
        Ok(Self {
            include: Side::new(include, |negated| !negated)?,
            exclude: Side::new(exclude, |negated| negated)?,
        })
    }

    /// Decides on `path` whose directory has the given state.
    pub fn check(&self, path: &[u8], parent: &FilterState) -> (Verdict, FilterState) {
        let (mut verdict, include) = match &self.include {
            None => (Verdict::ALL, None),
            Some(side) => {
                let (matched, state) = side.check(path, parent.include.as_ref());
                let verdict = Verdict {
                    taken: matched,
                    descend: matched || side.may_open_below(path),
                };
                (verdict, Some(state))
            }
        };
        let mut exclude = None;
        if let Some(side) = &self.exclude {
            let (matched, state) = side.check(path, parent.exclude.as_ref());
            if matched {
                verdict.taken = false;
                verdict.descend = verdict.descend && side.may_open_below(path);
            }
            exclude = Some(state);
        }
        (verdict, FilterState { include, exclude })
    }

    /// Returns the last exclude pattern that covers `path`, with its position in the list.
    pub fn excluded_by(&self, path: &[u8]) -> Option<(usize, &str)> {
        let side = self.exclude.as_ref()?;
        let mut state = FilterState::default();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state.exclude = Some(side.check(&path[..at], state.exclude.as_ref()).1);
        }
        if !side.check(path, state.exclude.as_ref()).0 {
            return None;
        }
        let covers = |text: &String| match PatternMatcher::new(std::slice::from_ref(text)) {
            Ok(single) => single.matches_or_parent_matches(path),
            Err(_) => false,
        };
        let found = side
            .patterns
            .iter()
            .enumerate()
            .rev()
            .find(|(_, p)| covers(p));
        found.map(|(index, text)| (index, text.as_str()))
    }
}

impl Verdict {
    pub(super) const ALL: Self = Self {
        taken: true,
        descend: true,
    };
}

impl Side {
    fn new(
        patterns: &[String],
        opens: impl Fn(bool) -> bool,
    ) -> Result<Option<Self>, InvalidPattern> {
        if patterns.iter().all(|text| text.trim().is_empty()) {
            return Ok(None);
        }
        let matcher = PatternMatcher::new(patterns).map_err(|_| InvalidPattern {
            pattern: culprit(patterns),
        })?;
        let opening = |text: &String| {
            let text = text.trim();
            let (negated, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            (!text.is_empty() && opens(negated)).then(|| literal_start(text))
        };
        Ok(Some(Self {
            matcher,
            patterns: patterns.to_vec(),
            openings: patterns.iter().filter_map(opening).collect(),
        }))
    }

    fn check(&self, path: &[u8], parent: Option<&ParentMatches>) -> (bool, ParentMatches) {
        self.matcher.matches_using_parent(path, parent)
    }

    /// Says whether a pattern could match something below the directory `dir`.
    fn may_open_below(&self, dir: &[u8]) -> bool {
        self.openings.iter().any(|start| {
            let mut components = dir.split(|byte| *byte == b'/');
            // Where the two part, nothing below can match; a wildcard could match anything.
            start.iter().all(|literal| match components.next() {
                Some(component) => component == literal.as_bytes(),
                None => true,
            })
        })
    }
}

/// Returns the components of a pattern before the first one that is not plain text.
fn literal_start(text: &str) -> Vec<String> {
    let plain = |component: &&str| {
        !matches!(*component, "." | "..") && !component.contains(['*', '?', '[', '\\'])
    };
    let text = text.trim_start_matches('/');
    text.split('/')
        .filter(|component| !component.is_empty())
        .take_while(plain)
        .map(str::to_owned)
        .collect()
}

fn culprit(patterns: &[String]) -> String {
    let bad = |text: &&String| PatternMatcher::new(std::slice::from_ref(*text)).is_err();
    patterns
        .iter()
        .find(bad)
        .cloned()
        .unwrap_or_else(|| patterns.join(" "))
}
