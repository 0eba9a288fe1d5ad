//! What the client lends for reaching git repositories: tokens, headers, SSH agents.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::git_remote::{PROTOCOLS, Remote, basic};
use super::http::Secret;
use crate::llb::GitSource;
use crate::session::Session;
use crate::session::agent::ForwardedAgent;

/// User name that goes with a token; those who look at the token only want one all the same.
const TOKEN_USER: &str = "x-access-token";

/// How to reach remotes.
#[derive(Debug, Clone)]
pub struct GitOptions {
    /// Protocols that may be spoken, also to submodules.
    pub protocols: Vec<String>,
    /// What a remote over HTTP is sent.
    pub authorization: Option<GitAuthorization>,
    /// Answers for the user's SSH keys.
    pub ssh_agent: Option<Arc<ForwardedAgent>>,
    /// A `known_hosts` file; without it every host key is taken, as BuildKit does.
    pub known_hosts: Option<Arc<tempfile::TempPath>>,
    /// A bundle that is asked and fetched from instead of the remote.
    pub bundle: Option<Arc<tempfile::TempPath>>,
}

/// A header for remotes over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitAuthorization {
    /// Value of `Authorization`.
    pub header: Secret,
    /// Whether it is meant for every repository of the host.
    pub for_host: bool,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self {
            protocols: PROTOCOLS.map(str::to_owned).to_vec(),
            authorization: None,
            ssh_agent: None,
            known_hosts: None,
            bundle: None,
        }
    }
}

impl GitOptions {
    /// Takes from the session what a source asks for. `scratch` is a folder for a socket.
    pub fn lent(source: &GitSource, session: &Session, scratch: &Path) -> Result<Self, Error> {
        let mut options = Self::default();
        let remote = Remote::parse(&source.remote, &options.protocols)?;
        options.authorization = authorization(source, &remote, session);
        if let Some(id) = &source.ssh_agent {
            options.ssh_agent = Some(Arc::new(session.ssh.forward(id, scratch)?));
        }
        if let Some(lines) = &source.known_hosts {
            let write = || {
                let mut file = tempfile::NamedTempFile::new_in(scratch)?;
                file.write_all(lines.as_bytes())?;
                Ok(file.into_temp_path())
            };
            let path = write().map_err(Error::io("write in", scratch))?;
            options.known_hosts = Some(Arc::new(path));
        }
        Ok(options)
    }
}

/// Looks for the secret of the host first, then for the one of all hosts; a header comes before
/// a token.
fn authorization(
    source: &GitSource,
    remote: &Remote,
    session: &Session,
) -> Option<GitAuthorization> {
    let host = remote.host().filter(|_| remote.is_web())?;
    let of_host = |id: &Option<String>| id.as_ref().map(|id| format!("{id}.{host}"));
    let (header, token) = (&source.auth_header_secret, &source.auth_token_secret);
    for (id, is_token, for_host) in [
        (of_host(header), false, true),
        (of_host(token), true, true),
        (header.clone(), false, false),
        (token.clone(), true, false),
    ] {
        let value = id.and_then(|id| session.secrets.get(&id));
        if let Some(value) = value.and_then(|value| std::str::from_utf8(value.bytes()).ok()) {
            let header = match is_token {
                true => basic(TOKEN_USER, value.trim()),
                false => Secret(value.trim().to_owned()),
            };
            return Some(GitAuthorization { header, for_host });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_the_host_comes_first_and_a_header_before_a_token() {
        let source = |remote: &str| GitSource {
            remote: remote.to_owned(),
            auth_token_secret: Some("T".to_owned()),
            auth_header_secret: Some("H".to_owned()),
            ..GitSource::default()
        };
        let scratch = tempfile::tempdir().unwrap();
        let find = |remote: &str, secrets: &[(&str, &str)]| {
            let mut session = Session::default();
            for (id, value) in secrets {
                session.secrets.insert(id, value.as_bytes()).unwrap();
            }
            let options = GitOptions::lent(&source(remote), &session, scratch.path()).unwrap();
            let found = options.authorization?;
            Some((found.header.0, found.for_host))
        };
        let all = [
            ("H", "all hosts"),
            ("T", "t\n"),
            ("H.h:1", "this host\n"),
            ("T.h:1", "u"),
        ];
        let url = "http://h:1/r.git";
        let header = |text: &str, for_host| Some((text.to_owned(), for_host));
        assert_eq!(find(url, &all), header("this host", true));
        assert_eq!(find(url, &all[..2]), header("all hosts", false));
        let token = "Basic eC1hY2Nlc3MtdG9rZW46dA==";
        assert_eq!(find(url, &all[1..2]), header(token, false));
        assert_eq!(find("http://other/r.git", &all[2..]), None);
        assert_eq!(find("git@h:r.git", &all), None);
        assert_eq!(find(url, &[]), None);
    }

    #[test]
    fn an_agent_that_was_not_given_is_asked_for() {
        let source = GitSource {
            remote: "git@h:r.git".to_owned(),
            ssh_agent: Some("default".to_owned()),
            ..GitSource::default()
        };
        let scratch = tempfile::tempdir().unwrap();
        let error = GitOptions::lent(&source, &Session::default(), scratch.path()).unwrap_err();
        assert!(error.to_string().contains("--ssh default"), "{error}");
    }
}
