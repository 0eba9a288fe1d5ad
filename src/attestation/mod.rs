//! What is said about a result: in-toto statements, and the provenance of a build.
//!
//! | file | what it says |
//! |---|---|
//! | [`purl`] | names of packages and images: package URLs |
//! | [`statement`] | a predicate with the subjects it is about |
//! | [`request`] | what a user asked for: `--provenance`, `--sbom`, `--attest` |
//! | [`provenance`] | how a build was made, as SLSA wants to read it |
//!
//! An [`Attestation`] is a predicate that still waits for its subjects: an exporter knows them.
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
    use super::without_credentials;

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
