//! What is said about a result: in-toto statements, and the provenance of a build.
//!
//! | file | what it says |
//! |---|---|
//! | [`purl`] | names of packages and images: package URLs |
//! | [`statement`] | a predicate with the subjects it is about |
//! | [`request`] | what a user asked for: `--provenance`, `--sbom`, `--attest` |
//! | [`provenance`] | how a build was made, as SLSA wants to read it |
//!
//! An [`Attestation`] is a predicate that still waits for its subjects: an exporter knows most of them.
//! Invariants: the same facts give the same bytes; times come in from outside; no value of a
//! secret and no password of a URL gets in. Deliberately absent: what the packages of an image
//! are (`sbom`), keys (`signing`), and where statements are stored (`exporter`).

pub mod provenance;
pub mod purl;
pub mod request;
pub mod statement;

use std::fmt;
use std::sync::Arc;

use crate::oci::Descriptor;

pub use provenance::{Mode, Provenance, SlsaVersion};
pub use purl::PackageUrl;
pub use request::{
    AttestationRequest, Custom, InvalidAttestation, ProvenanceOptions, Reported, SbomOptions,
};
pub use statement::{Statement, Subject};

/// Media type of a statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Predicate type of an SPDX document.
pub const SPDX: &str = "https://spdx.dev/Document";
/// File in which a tree gets its SBOM.
pub const SBOM_FILE: &str = "sbom.spdx.json";

/// A predicate, and how it is stored.
#[derive(Debug, Clone)]
pub struct Attestation {
    /// Name of its file beside a tree.
    pub filename: String,
    /// URI of the kind of predicate.
    pub predicate_type: String,
    /// Whether only images carry it, and archives and trees do without.
    pub inline_only: bool,
    /// When it was made, in seconds since 1970: the time of its file.
    pub time_s: i64,
    /// The predicate.
    pub predicate: Arc<dyn Predicate>,
    /// What it is about; the result where nothing is named.
    pub about: Vec<About>,
}

/// What something is said about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The result, which may have one more name.
    Result(Option<String>),
    /// Something else.
    Other(Subject),
}

impl Attestation {
    /// Returns its subjects; `own` are those of the result.
    pub fn subjects(&self, own: &[Subject]) -> Vec<Subject> {
        let result = [About::Result(None)];
        let about = if self.about.is_empty() {
            &result[..]
        } else {
            &self.about
        };
        let mut subjects = Vec::new();
        for about in about {
            match about {
                About::Other(subject) => subjects.push(subject.clone()),
                About::Result(name) => subjects.extend(own.iter().flat_map(|own| {
                    let named = name.iter().map(|name| Subject {
                        name: name.clone(),
                        ..own.clone()
                    });
                    std::iter::once(own.clone()).chain(named)
                })),
            }
        }
        subjects
    }

    /// Writes it about a result with these subjects and layers.
    pub fn statement(
        &self,
        own: &[Subject],
        layers: &[Descriptor],
    ) -> Result<Statement, serde_json::Error> {
        let predicate = self.predicate.write(layers)?;
        Statement::new(&self.predicate_type, self.subjects(own), predicate)
    }
}

/// Something that can be said about a result.
pub trait Predicate: fmt::Debug + Send + Sync {
    /// Writes it as JSON. `layers` are those of the image, lowest first; none for a tree.
    fn write(&self, layers: &[Descriptor]) -> Result<String, serde_json::Error>;
}

/// A predicate that somebody else has written.
impl Predicate for String {
    fn write(&self, _layers: &[Descriptor]) -> Result<String, serde_json::Error> {
        Ok(self.clone())
    }
}

/// Hides user names and passwords in the URLs of a text: `https://xxxxx:xxxxx@host/path`.
pub fn without_credentials(text: &str) -> String {
    const MASK: &str = "xxxxx";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace();
        let end = after.find(ends).unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        let scheme = before[..at]
            .rsplit(|c: char| !c.is_ascii_alphanumeric())
            .next();
        match authority.rsplit_once('@') {
            // The user of ssh is no secret: it is `git` everywhere.
            Some((user, host)) if scheme == Some("ssh") && !user.contains(':') => {
                out.push_str(&format!("{user}@{host}"));
            }
            Some((user, host)) => {
                let mask = match user.contains(':') {
                    true => format!("{MASK}:{MASK}"),
                    false => MASK.to_owned(),
                };
                out.push_str(&format!("{mask}@{host}"));
            }
            None => out.push_str(authority),
        }
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_may_have_more_names() {
        let subject = |name: &str| Subject::new(name, &crate::oci::Digest::of(b""));
        let about = |about: Vec<About>| {
            let attestation = Attestation {
                filename: String::new(),
                predicate_type: String::new(),
                inline_only: false,
                time_s: 0,
                predicate: Arc::new(String::new()),
                about,
            };
            let subjects = attestation.subjects(&[subject("a"), subject("b")]);
            subjects
                .into_iter()
                .map(|subject| subject.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(about(Vec::new()), ["a", "b"]);
        let named = vec![
            About::Result(Some("n".to_owned())),
            About::Other(subject("x")),
        ];
        assert_eq!(about(named), ["a", "n", "b", "n", "x"]);
    }

    #[test]
    fn credentials_in_urls_are_hidden() {
        for (text, expected) in [
            ("", ""),
            ("no url", "no url"),
            ("https://h/p", "https://h/p"),
            ("https://u:p@h/p", "https://xxxxx:xxxxx@h/p"),
            ("https://token@h/p", "https://xxxxx@h/p"),
            ("ssh://git@h/p", "ssh://git@h/p"),
            ("ssh://git:pw@h/p", "ssh://xxxxx:xxxxx@h/p"),
            ("https://h/p@x", "https://h/p@x"),
            (
                "curl http://u:p@a/ ftp://b/c@d https://e:f@g",
                "curl http://xxxxx:xxxxx@a/ ftp://b/c@d https://xxxxx:xxxxx@g",
            ),
            ("https://u:p@x@h/f", "https://xxxxx:xxxxx@h/f"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
    }
}
