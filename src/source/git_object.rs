//! Commits and tags as git keeps them: what is signed of them, and by which signature.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::oci::hex_of;
use crate::signing::{openpgp, ssh};

/// Headers of a commit that hold its signature.
const SIGNATURE_HEADERS: [&[u8]; 2] = [b"gpgsig ", b"gpgsig-sha256 "];

/// Kinds of objects that can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A commit: the signature is a header.
    Commit,
    /// A tag with a message: the signature is its end.
    Tag,
}

impl ObjectKind {
    /// Returns git's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }
}

/// A commit or a tag in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedObject {
    /// What was signed.
    pub data: Vec<u8>,
    /// The armored signature; `None` where there is none.
    pub signature: Option<String>,
}

impl SignedObject {
    /// Takes an object apart.
    pub fn parse(kind: ObjectKind, raw: &[u8]) -> Self {
        match kind {
            ObjectKind::Commit => parse_commit(raw),
            ObjectKind::Tag => parse_tag(raw),
        }
    }
}

/// Returns the id that git gives an object, in the hash that `like` is in.
pub(super) fn id_of(kind: ObjectKind, raw: &[u8], like: &str) -> String {
    let header = format!("{} {}\0", kind.as_str(), raw.len());
    match like.len() {
        64 => hex_of(
            &Sha256::new()
                .chain_update(header)
                .chain_update(raw)
                .finalize(),
        ),
        _ => hex_of(
            &Sha1::new()
                .chain_update(header)
                .chain_update(raw)
                .finalize(),
        ),
    }
}

fn parse_commit(raw: &[u8]) -> SignedObject {
    let mut data = Vec::with_capacity(raw.len());
    let mut signature: Option<Vec<u8>> = None;
    let mut lines = raw.split_inclusive(|byte| *byte == b'\n');
    let mut in_signature = false;
    for line in lines.by_ref() {
        let begins = SIGNATURE_HEADERS
            .iter()
            .find_map(|name| line.strip_prefix(*name));
        if let Some(first) = begins {
            // Of two signatures, in a repository that changes its hash, the first counts.
            in_signature = signature.is_none();
            signature.get_or_insert_with(|| first.to_vec());
            continue;
        }
        if let Some(text) = signature.as_mut().filter(|_| in_signature)
            && let Some(rest) = line.strip_prefix(b" ")
        {
            text.extend_from_slice(rest);
            continue;
        }
        in_signature = false;
        data.extend_from_slice(line);
        if line == b"\n" {
            break;
        }
    }
    lines.for_each(|line| data.extend_from_slice(line));
    let signature = signature.map(|text| String::from_utf8_lossy(&text).into_owned());
    SignedObject { data, signature }
}

fn parse_tag(raw: &[u8]) -> SignedObject {
    let mut end = 0;
    let mut in_message = false;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let is_start = [openpgp::ARMOR, ssh::ARMOR]
            .iter()
            .any(|armor| armor.as_bytes() == text);
        if in_message && is_start {
            return SignedObject {
                data: raw[..end].to_vec(),
                signature: Some(String::from_utf8_lossy(&raw[end..]).into_owned()),
            };
        }
        in_message |= text.is_empty();
        end += line.len();
    }
    SignedObject {
        data: raw.to_vec(),
        signature: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_cut_out_of_commits() {
        let raw = b"tree t\nauthor a\ngpgsig -----BEGIN\n \n line\n -----END\nencoding x\n\nmessage\n gpgsig no\n";
        let object = SignedObject::parse(ObjectKind::Commit, raw);
        assert_eq!(
            object.signature.as_deref(),
            Some("-----BEGIN\n\nline\n-----END\n")
        );
        let rest = b"tree t\nauthor a\nencoding x\n\nmessage\n gpgsig no\n";
        assert_eq!(object.data, rest);
        let plain = SignedObject::parse(ObjectKind::Commit, rest);
        assert_eq!((plain.data.as_slice(), plain.signature), (&rest[..], None));
    }

    #[test]
    fn signatures_are_the_end_of_tags() {
        let start = openpgp::ARMOR;
        let raw = format!("object o\ntype commit\n\nmessage\n{start}\nx\n-----END\n");
        let object = SignedObject::parse(ObjectKind::Tag, raw.as_bytes());
        assert_eq!(object.data, b"object o\ntype commit\n\nmessage\n");
        assert_eq!(object.signature.unwrap(), format!("{start}\nx\n-----END\n"));
        let plain = SignedObject::parse(ObjectKind::Tag, b"object o\n\nmessage");
        assert_eq!(
            (plain.data.as_slice(), plain.signature),
            (&b"object o\n\nmessage"[..], None)
        );
    }

    #[test]
    fn ids_are_gits() {
        let id = id_of(ObjectKind::Commit, b"", &"0".repeat(40));
        assert_eq!(id, "dcf5b16e76cce7425d0beaef62d79a7d10fce1f5");
        assert_eq!(id_of(ObjectKind::Tag, b"", &"0".repeat(64)).len(), 64);
    }
}
