//! The source op of a git repository: how it is written and read.
//!
//! The identifier is `git://host/path[#ref[:folder]]`, the same for every way to reach the
//! host, so that equal files are equal ops; how to reach it stands in `git.fullurl`.

use super::git_url::{CheckoutTime, GitUrl, Transport, cleaned, scp_address};
use super::{caps, pb, state};

/// Secret that holds a token for remotes over HTTP.
pub const AUTH_TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";
/// Secret that holds a whole `Authorization` header for remotes over HTTP.
pub const AUTH_HEADER_SECRET: &str = "GIT_AUTH_HEADER";

/// Begins the attributes about signatures.
const SIGNATURE: &str = "git.sig.";

/// Which signature a commit or its tag must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedSignature {
    /// Public keys, one of which must have made it: armored OpenPGP keys, or lines as in
    /// `authorized_keys`.
    pub keys: String,
    /// Whether key and signature must be valid still, and not only when it was made.
    pub reject_expired: bool,
    /// Whether the tag has to be signed, and a signed commit is not enough.
    pub require_signed_tag: bool,
    /// Whether the commit has to be signed, whatever the tag is.
    pub ignore_signed_tag: bool,
}

/// What a source op asks of a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// What git is given.
    pub remote: String,
    /// Branch, tag or commit; the remote's default branch where `None`.
    pub reference: Option<String>,
    /// Folder in the repository that counts as its root.
    pub subdir: Option<String>,
    /// Commit or tag (or the first digits of one) that the reference must point at.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Which modification times files get.
    pub time: CheckoutTime,
    /// Whether the commit in `checksum` is fetched without asking where the reference points.
    pub fetch_by_commit: bool,
    /// Id of the secret with a token.
    pub auth_token_secret: Option<String>,
    /// Id of the secret with a header.
    pub auth_header_secret: Option<String>,
    /// Id of the SSH agent.
    pub ssh_agent: Option<String>,
    /// Lines of a `known_hosts` file; where `None`, every host key is taken.
    pub known_hosts: Option<String>,
    /// Blob with a bundle that commits are taken from instead of the remote:
    /// `docker-image+blob://name@digest` or `oci-layout+blob://name@digest`.
    pub bundle: Option<String>,
    /// Whether the files are a bundle with the commit, and not those of the commit.
    pub checkout_bundle: bool,
    /// Which signature is wanted.
    pub signature: Option<WantedSignature>,
}

impl GitSource {
    /// Reads a source op whose identifier begins with `git://`.
    pub fn read(op: &pb::SourceOp) -> Self {
        let attr = |key: &str| op.attrs.get(key).filter(|value| !value.is_empty());
        let is_set = |key: &str| attr(key).is_some_and(|value| value == "true");
        let identifier = op.identifier.strip_prefix("git://");
        let identifier = identifier.unwrap_or(&op.identifier);
        let (address, fragment) = identifier.split_once('#').unwrap_or((identifier, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let remote = attr("git.fullurl").map_or(address, String::as_str);
        let is_whole = remote.contains("://") || scp_address(remote).is_some();
        Self {
            remote: match is_whole {
                true => remote.to_owned(),
                false => format!("https://{remote}"),
            },
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            subdir: cleaned(folder),
            checksum: attr("git.checksum").cloned(),
            keep_git_dir: is_set("git.keepgitdir"),
            skip_submodules: is_set("git.skipsubmodules"),
            time: match attr("git.mtime").map(String::as_str) {
                Some("commit") => CheckoutTime::Commit,
                _ => CheckoutTime::Checkout,
            },
            fetch_by_commit: is_set("git.fetchbycommit"),
            auth_token_secret: attr("git.authtokensecret").cloned(),
            auth_header_secret: attr("git.authheadersecret").cloned(),
            ssh_agent: attr("git.mountsshsock").cloned(),
            known_hosts: attr("git.knownsshhosts").cloned(),
            bundle: attr("git.bundle").cloned(),
            checkout_bundle: is_set("git.checkoutbundle"),
            signature: wanted_signature(op),
        }
    }
}

/// Reads which signature is wanted; any attribute about one asks for one.
fn wanted_signature(op: &pb::SourceOp) -> Option<WantedSignature> {
    let attr = |name: &str| op.attrs.get(&format!("{SIGNATURE}{name}"));
    let is_set = |name: &str| attr(name).is_some_and(|value| value == "true");
    let mut keys = op.attrs.keys();
    keys.any(|key| key.starts_with(SIGNATURE))
        .then(|| WantedSignature {
            keys: attr("pubkey").cloned().unwrap_or_default(),
            reject_expired: is_set("rejectexpired"),
            require_signed_tag: is_set("requiresignedtag"),
            ignore_signed_tag: is_set("ignoresignedtag"),
        })
}

impl GitUrl {
    /// Converts to a source of files.
    pub fn source(&self) -> state::Source {
        let mut identifier = format!("git://{}", self.host_and_path);
        if self.reference.is_some() || self.subdir.is_some() {
            identifier += &format!("#{}", self.reference.as_deref().unwrap_or_default());
        }
        if let Some(subdir) = &self.subdir {
            identifier += &format!(":{subdir}");
        }
        let mut source = state::Source::new(identifier, caps::SOURCE_GIT)
            .with_cap("git.fullurl", &self.remote, caps::SOURCE_GIT_FULL_URL)
            .with("git.authtokensecret", AUTH_TOKEN_SECRET)
            .with("git.authheadersecret", AUTH_HEADER_SECRET);
        if self.keep_git_dir == Some(true) {
            source = source.with_cap("git.keepgitdir", "true", caps::SOURCE_GIT_KEEP_DIR);
        }
        if self.transport == Transport::Ssh {
            source.caps.insert(caps::SOURCE_GIT_KNOWN_SSH_HOSTS);
            let cap = caps::SOURCE_GIT_MOUNT_SSH_SOCK;
            source = source.with_cap("git.mountsshsock", "default", cap);
        }
        if let Some(checksum) = &self.checksum {
            source = source.with_cap("git.checksum", checksum, caps::SOURCE_GIT_CHECKSUM);
        }
        if self.submodules == Some(false) {
            let cap = caps::SOURCE_GIT_SKIP_SUBMODULES;
            source = source.with_cap("git.skipsubmodules", "true", cap);
        }
        if let Some(time) = self.time {
            let text = match time {
                CheckoutTime::Checkout => "checkout",
                CheckoutTime::Commit => "commit",
            };
            source = source.with_cap("git.mtime", text, caps::SOURCE_GIT_MTIME);
        }
        if self.fetch_by_commit {
            let cap = caps::SOURCE_GIT_FETCH_BY_COMMIT;
            source = source.with_cap("git.fetchbycommit", "true", cap);
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> pb::SourceOp {
        let source = GitUrl::parse_build_context(text).unwrap().unwrap().source();
        pb::SourceOp {
            identifier: source.identifier,
            attrs: source.attrs.into_iter().collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (text, identifier, remote) in [
            ("https://h/o/r.git", "git://h/o/r.git", "https://h/o/r.git"),
            (
                "https://u:p@h/r.git#v1",
                "git://h/r.git#v1",
                "https://u:p@h/r.git",
            ),
            (
                "https://h/r.git?branch=b&subdir=d",
                "git://h/r.git#refs/heads/b:d",
                "https://h/r.git",
            ),
            ("git@h:o/r.git#x", "git://h/o/r.git#x", "git@h:o/r.git"),
            ("ssh://git@h:22/r#x", "git://h:22/r#x", "ssh://git@h:22/r"),
            ("git://h/r#:d", "git://h/r#:d", "git://h/r"),
            (
                "github.com/o/r",
                "git://github.com/o/r",
                "https://github.com/o/r",
            ),
        ] {
            let op = written(text);
            assert_eq!(op.identifier, identifier, "{text}");
            let source = GitSource::read(&op);
            assert_eq!(source.remote, remote, "{text}");
            let url = GitUrl::parse_build_context(text).unwrap().unwrap();
            assert_eq!(source.reference, url.reference, "{text}");
            assert_eq!(source.subdir, url.subdir, "{text}");
            let agent = url.transport == Transport::Ssh;
            assert_eq!(source.ssh_agent.is_some(), agent, "{text}");
            assert_eq!(source.auth_token_secret.as_deref(), Some("GIT_AUTH_TOKEN"));
        }
    }

    #[test]
    fn options_are_written_and_read() {
        let query = "keep-git-dir&submodules=0&mtime=commit&commit=abc&fetch-by-commit";
        let source = GitSource::read(&written(&format!("https://h/r.git?{query}")));
        assert!(source.keep_git_dir && source.skip_submodules && source.fetch_by_commit);
        assert_eq!(source.time, CheckoutTime::Commit);
        assert_eq!(source.checksum.as_deref(), Some("abc"));
    }

    #[test]
    fn ops_of_other_clients_may_lack_the_url() {
        for (identifier, full, remote) in [
            ("git://h/r.git#v1", "", "https://h/r.git"),
            ("git://h/r.git", "h/r.git", "https://h/r.git"),
            ("git://h/r.git", "git@h:r.git", "git@h:r.git"),
        ] {
            let mut op = pb::SourceOp {
                identifier: identifier.to_owned(),
                ..pb::SourceOp::default()
            };
            op.attrs.insert("git.fullurl".to_owned(), full.to_owned());
            assert_eq!(GitSource::read(&op).remote, remote, "{identifier} {full}");
        }
    }
}
