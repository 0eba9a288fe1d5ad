//! The keywords of the language and the flags each of them knows.

use super::flags::{Known, Takes};

/// A keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

/// All keywords in upper case.
const NAMES: [(&str, Keyword); 18] = [
    ("ADD", Keyword::Add),
    ("ARG", Keyword::Arg),
    ("CMD", Keyword::Cmd),
    ("COPY", Keyword::Copy),
    ("ENTRYPOINT", Keyword::Entrypoint),
    ("ENV", Keyword::Env),
    ("EXPOSE", Keyword::Expose),
    ("FROM", Keyword::From),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("LABEL", Keyword::Label),
    ("MAINTAINER", Keyword::Maintainer),
    ("ONBUILD", Keyword::Onbuild),
    ("RUN", Keyword::Run),
    ("SHELL", Keyword::Shell),
    ("STOPSIGNAL", Keyword::Stopsignal),
    ("USER", Keyword::User),
    ("VOLUME", Keyword::Volume),
    ("WORKDIR", Keyword::Workdir),
];

const ADD_FLAGS: Known = &[
    ("checksum", Takes::Value),
    ("chmod", Takes::Value),
    ("chown", Takes::Value),
    ("exclude", Takes::Values),
    ("keep-git-dir", Takes::Boolean),
    ("link", Takes::Boolean),
    ("unpack", Takes::Boolean),
];

const COPY_FLAGS: Known = &[
    ("chmod", Takes::Value),
    ("chown", Takes::Value),
    ("exclude", Takes::Values),
    ("from", Takes::Value),
    ("link", Takes::Boolean),
    ("parents", Takes::Boolean),
];

const HEALTHCHECK_FLAGS: Known = &[
    ("interval", Takes::Value),
    ("retries", Takes::Value),
    ("start-interval", Takes::Value),
    ("start-period", Takes::Value),
    ("timeout", Takes::Value),
];

const RUN_FLAGS: Known = &[
    ("device", Takes::Values),
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Value),
];

impl Keyword {
    /// Reads a keyword without regard to case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let found = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, keyword)| *keyword)
    }

    /// All keywords in upper case.
    pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// The keyword in upper case.
    pub(super) fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, keyword)| *keyword == self)
            .map_or("", |(name, _)| name)
    }

    /// The flags it knows.
    pub(super) fn flags(self) -> Known {
        match self {
            Self::Add => ADD_FLAGS,
            Self::Copy => COPY_FLAGS,
            Self::From => &[("after", Takes::Values), ("platform", Takes::Value)],
            Self::Healthcheck => HEALTHCHECK_FLAGS,
            Self::Run => RUN_FLAGS,
            _ => &[],
        }
    }

    /// Whether heredocs may follow it.
    pub(super) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}
