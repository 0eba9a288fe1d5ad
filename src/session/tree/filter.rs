//! Which paths of a tree patterns let through, decided while walking down.

use crate::llb::pattern::{MatchInfo, PatternError, PatternMatcher};

/// Include and exclude patterns, of the dialect in [`crate::llb::pattern`].
///
/// A path is let through when it matches an include pattern (or there is none) and no exclude
/// pattern. A directory passes its answers on, since a pattern that matches it covers
/// everything below.
#[derive(Debug, Default)]
pub struct Filter {
    include: Option<Include>,
    exclude: Option<PatternMatcher>,
    /// The exclude patterns as they were written.
    exclude_text: Vec<String>,
}

#[derive(Debug)]
struct Include {
    matcher: PatternMatcher,
    /// Leading components without wildcards of each pattern that lets something in.
    starts: Vec<Vec<String>>,
}

/// What is known of a directory when its children are asked about; the default is the top.
#[derive(Debug, Clone, Default)]
pub struct FilterState {
    include: MatchInfo,
    exclude: MatchInfo,
}

/// The answer for one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The path itself is let through.
    pub taken: bool,
    /// Something below it may be let through.
    pub descend: bool,
}

impl Filter {
    /// Compiles patterns; no include pattern means everything.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        let matcher = PatternMatcher::new(include)?;
        let letting_in = include.iter().map(|text| text.trim());
        let letting_in = letting_in.filter(|text| !text.is_empty() && !text.starts_with('!'));
        let starts = letting_in.map(literal_start).collect();
        let exclude_matcher = PatternMatcher::new(exclude)?;
        Ok(Self {
            include: (!matcher.is_empty()).then_some(Include { matcher, starts }),
            exclude: (!exclude_matcher.is_empty()).then_some(exclude_matcher),
            exclude_text: exclude.to_vec(),
        })
    }

    /// Decides on `path` whose directory has the given state.
    pub fn check(&self, path: &[u8], parent: &FilterState) -> (Verdict, FilterState) {
        let mut verdict = Verdict::ALL;
        let mut state = FilterState::default();
        if let Some(include) = &self.include {
            state.include = include.matcher.enter(path, &parent.include);
            verdict.taken = state.include.is_match();
            verdict.descend = verdict.taken || include.may_match_below(path);
        }
        if let Some(exclude) = &self.exclude {
            state.exclude = exclude.enter(path, &parent.exclude);
            verdict.taken &= !state.exclude.is_match();
            verdict.descend &= !state.exclude.prunes();
        }
        (verdict, state)
    }

    /// Returns the exclude pattern that leaves out `path`, with its position in the list.
    pub fn excluded_by(&self, path: &[u8]) -> Option<(usize, &str)> {
        match self.exclude.as_ref()?.decide(path)? {
            (index, true) => Some((index, self.exclude_text.get(index)?)),
            (_, false) => None,
        }
    }
}

impl Verdict {
    pub(super) const ALL: Self = Self {
        taken: true,
        descend: true,
    };
}

impl Include {
    /// Says whether a pattern could match something below the directory `dir`.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        self.starts.iter().any(|start| {
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
    let components = text.split('/').filter(|component| !component.is_empty());
    components.take_while(plain).map(str::to_owned).collect()
}
