//! What is not known of a source before somebody asks, and which names in a policy ask for it.

use crate::llb::pb;

use super::identifier::{GIT, IMAGE};

/// Something that has to be found out about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// What the name of an image means now, and its config.
    Image,
    /// What is said about an image in its registry.
    Attestations,
    /// What the reference of a repository means now.
    Commit,
    /// The commit, and the tag that leads to it, as git keeps them.
    Objects,
    /// What a web server sends.
    File,
}

impl Question {
    /// Returns what the log calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Attestations => "image attestations",
            Self::Commit => "git reference",
            Self::Objects => "git objects",
            Self::File => "http checksum",
        }
    }
}

/// The kinds of sources that policies tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Git,
    Http,
    Local,
}

impl Kind {
    pub(super) fn of(source: &pb::SourceOp) -> Option<Self> {
        let identifier = &source.identifier;
        let is = |scheme: &str| identifier.starts_with(scheme);
        match () {
            () if is(IMAGE) => Some(Self::Image),
            () if is(GIT) => Some(Self::Git),
            () if is("http://") || is("https://") => Some(Self::Http),
            () if is("local://") => Some(Self::Local),
            () => None,
        }
    }
}

/// Members of the input that are found out when a policy names them.
const FIELDS: [(Kind, Question, &[&str]); 5] = [
    (
        Kind::Image,
        Question::Image,
        &[
            "checksum",
            "labels",
            "user",
            "volumes",
            "workingDir",
            "env",
            "createdTime",
        ],
    ),
    (
        Kind::Image,
        Question::Attestations,
        &["hasProvenance", "provenance", "signatures"],
    ),
    (
        Kind::Git,
        Question::Commit,
        &[
            "tagName",
            "branch",
            "ref",
            "checksum",
            "isAnnotatedTag",
            "commitChecksum",
            "isSHA256",
        ],
    ),
    (Kind::Git, Question::Objects, &["tag", "commit"]),
    (Kind::Http, Question::File, &["checksum"]),
];

/// Returns what a member of the input, as `image.labels`, asks about a source.
pub fn question_of(source: &pb::SourceOp, field: &str) -> Option<Question> {
    let kind = Kind::of(source)?;
    let (object, rest) = field.split_once('.')?;
    let name = rest.split(['.', '[']).next().unwrap_or(rest);
    let is_of_kind = match kind {
        Kind::Image => object == "image",
        Kind::Git => object == "git",
        Kind::Http => object == "http",
        Kind::Local => false,
    };
    of_name(kind, name).filter(|_| is_of_kind)
}

/// Returns what a name in a policy asks about a source of a kind.
pub(super) fn of_name(kind: Kind, name: &str) -> Option<Question> {
    let mut fields = FIELDS.iter();
    let found = fields.find(|(of, _, names)| *of == kind && names.contains(&name));
    found.map(|(_, question, _)| *question)
}
