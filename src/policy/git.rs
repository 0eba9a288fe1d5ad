//! Commits and tags as policies see them.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde_json::Value;

use super::facts::GitObject;
use super::input::Members;
use crate::signing::{openpgp, ssh};

/// Writes a commit.
pub(super) fn commit(object: &GitObject) -> Value {
    let (headers, message) = parts(object);
    let one = |name: &str| first(&headers, name);
    let mut members = Members::default();
    members.put("tree", one("tree"));
    let parents = headers.iter().filter(|(name, _)| *name == "parent");
    let parents: Vec<Value> = parents.map(|(_, id)| (*id).into()).collect();
    members.put("parents", parents);
    members.put("author", actor(one("author")));
    members.put("committer", actor(one("committer")));
    members.put("message", message);
    add_signature(&mut members, object);
    members.end()
}

/// Writes a tag.
pub(super) fn tag(object: &GitObject) -> Value {
    let (headers, message) = parts(object);
    let one = |name: &str| first(&headers, name);
    let mut members = Members::default();
    for name in ["object", "type", "tag"] {
        members.put(name, one(name));
    }
    members.put("tagger", actor(one("tagger")));
    members.put("message", message);
    add_signature(&mut members, object);
    members.end()
}

/// Takes an object apart: its headers, in their order, and its message without the end of its last line.
fn parts(object: &GitObject) -> (Vec<(&str, &str)>, &str) {
    let text = std::str::from_utf8(&object.data).unwrap_or_default();
    let (head, message) = text.split_once("\n\n").unwrap_or((text, ""));
    let message = message.strip_suffix('\n').unwrap_or(message);
    let headers = head.lines().filter_map(|line| line.split_once(' '));
    (headers.collect(), message)
}

fn first<'a>(headers: &[(&str, &'a str)], name: &str) -> &'a str {
    let found = headers.iter().find(|(key, _)| *key == name);
    found.map_or("", |(_, value)| value)
}

/// Reads `Name <address> seconds +hhmm`.
fn actor(text: &str) -> Value {
    let mut members = Members::default();
    let (name, rest) = text.split_once('<').unwrap_or((text, ""));
    let (email, when) = rest.split_once('>').unwrap_or((rest, ""));
    members.put("name", name.trim());
    members.put("email", email);
    members.put("when", time(when.trim()));
    members.end()
}

/// Writes a time as git does (`seconds +hhmm`) in RFC 3339.
fn time(text: &str) -> Option<String> {
    let (seconds, zone) = text.split_once(' ')?;
    let digits = zone.strip_prefix(['+', '-']).filter(|d| d.len() == 4)?;
    let (hours, minutes) = (
        digits[..2].parse::<i32>().ok()?,
        digits[2..].parse::<i32>().ok()?,
    );
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let offset_s = sign * (hours * 3600 + minutes * 60);
    let time = Timestamp::from_second(seconds.parse().ok()?).ok()?;
    let zone = TimeZone::fixed(Offset::from_seconds(offset_s).ok()?);
    let form = if offset_s == 0 {
        "%Y-%m-%dT%H:%M:%SZ"
    } else {
        "%Y-%m-%dT%H:%M:%S%:z"
    };
    Some(time.to_zoned(zone).strftime(form).to_string())
}

/// Says who claims to have signed an object; whether it is true is for the functions to find out.
fn add_signature(members: &mut Members, object: &GitObject) {
    let Some(signature) = &object.signature else {
        return;
    };
    let mut about = Members::default();
    if let Some((version, issuer)) = openpgp::claimed_issuer(signature) {
        about.put("version", version);
        about.put("keyID", issuer);
        members.put("pgpSignature", about.end());
    } else if let Some((version, key)) = ssh::claimed_signer(signature) {
        about.put("version", version);
        about.put("pubKey", key);
        members.put("sshSignature", about.end());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commits_and_tags_are_read() {
        let object = |text: &str| GitObject {
            data: text.as_bytes().to_vec(),
            signature: None,
        };
        let text = "tree t\nparent p\nparent q\nauthor A B <a@b> 1700000000 +0130\ncommitter C <> 0 +0000\n\nfirst\n\nmore\n";
        assert_eq!(
            commit(&object(text)),
            json!({
                "tree": "t", "parents": ["p", "q"], "message": "first\n\nmore",
                "author": {"name": "A B", "email": "a@b", "when": "2023-11-14T23:43:20+01:30"},
                "committer": {"name": "C", "when": "1970-01-01T00:00:00Z"},
            })
        );
        let text = "object o\ntype commit\ntag v1\ntagger T <t@t> 60 -0100\n\nv1\n";
        assert_eq!(
            tag(&object(text)),
            json!({
                "object": "o", "type": "commit", "tag": "v1", "message": "v1",
                "tagger": {"name": "T", "email": "t@t", "when": "1969-12-31T23:01:00-01:00"},
            })
        );
    }
}
