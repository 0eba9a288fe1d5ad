//! One spelling for each source: rules compare texts.

use crate::llb::{GitSource, GitUrl, pb};
use crate::oci::Reference;

/// Scheme of images in registries.
pub(super) const IMAGE: &str = "docker-image://";
/// Scheme of git repositories.
pub(super) const GIT: &str = "git://";

/// Returns the identifier of a source in full: images with registry and tag, repositories by the
/// host and path that git is really given.
pub fn normalized(source: &pb::SourceOp) -> String {
    let identifier = &source.identifier;
    if let Some(name) = identifier.strip_prefix(IMAGE) {
        return match name.parse::<Reference>() {
            Ok(reference) => format!("{IMAGE}{}", reference.with_default_tag()),
            Err(_) => identifier.clone(),
        };
    }
    if !identifier.starts_with(GIT) {
        return identifier.clone();
    }
    let git = GitSource::read(source);
    let Some(Ok(url)) = GitUrl::parse(&git.remote) else {
        return identifier.clone();
    };
    let mut text = format!("{GIT}{}", url.host_and_path);
    if git.reference.is_some() || git.subdir.is_some() {
        text.push('#');
        text += git.reference.as_deref().unwrap_or_default();
    }
    if let Some(folder) = &git.subdir {
        text.push(':');
        text += folder;
    }
    text
}

/// Returns a URL, or the identifier of a source, without the user and password in it.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        // The digest of an image that has no path of its own.
        Some((_, host)) if !host.starts_with("sha256:") => format!("{scheme}://{host}{path}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, expected) in [
            ("https://me:hunter2@host/a@b?c@d", "https://host/a@b?c@d"),
            ("http://me@host:80", "http://host:80"),
            ("https://host/a@b", "https://host/a@b"),
            ("git@host:r.git", "git@host:r.git"),
            ("oci-layout://x@sha256:1", "oci-layout://x@sha256:1"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn every_source_has_one_spelling() {
        for (identifier, remote, expected) in [
            (
                "docker-image://alpine",
                None,
                "docker-image://docker.io/library/alpine:latest",
            ),
            (
                "docker-image://docker.io/library/alpine:3@sha256:0000000000000000000000000000000000000000000000000000000000000001",
                None,
                "docker-image://docker.io/library/alpine:3@sha256:0000000000000000000000000000000000000000000000000000000000000001",
            ),
            ("https://host/a?b#c", None, "https://host/a?b#c"),
            ("local://context", None, "local://context"),
            ("git://host/a.git", None, "git://host/a.git"),
            (
                "git://host/a.git#main:dir",
                None,
                "git://host/a.git#main:dir",
            ),
            // What git is given counts, whatever the identifier says.
            (
                "git://friend/a.git#main",
                Some("https://foe/b.git"),
                "git://foe/b.git#main",
            ),
            (
                "git://friend/a.git#main",
                Some("git@foe:b.git"),
                "git://foe/b.git#main",
            ),
        ] {
            let attrs = remote.map(|url: &str| ("git.fullurl".to_owned(), url.to_owned()));
            let source = pb::SourceOp {
                identifier: identifier.to_owned(),
                attrs: attrs.into_iter().collect(),
            };
            assert_eq!(normalized(&source), expected, "{identifier}");
        }
    }
}
