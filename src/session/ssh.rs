//! SSH agents: `--ssh default|ID[=SOCKET|KEY,…][,raw=true]`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::agent::{self, ForwardedAgent};
use super::{Environment, Error};

/// The id of the agent that a step gets when it names none.
pub const DEFAULT_ID: &str = "default";
/// Largest private key file that is taken for one.
const KEY_BYTES_MAX: u64 = 100 * 1024;

/// An agent as it was asked for on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// The id that steps mount it by.
    pub id: String,
    /// A socket, or private keys; empty for the agent of the user's environment.
    pub paths: Vec<PathBuf>,
    /// Whether every request passes, also those that change the agent.
    pub raw: bool,
}

/// Who answers for an id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A running agent; when raw, any server on a socket.
    Socket { path: PathBuf, raw: bool },
    /// Private keys, for which an agent is started when a step wants it.
    Keys(Vec<PathBuf>),
}

/// The agents of a build by id.
#[derive(Debug, Clone, Default)]
pub struct SshAgents {
    sources: BTreeMap<String, Source>,
}

impl FromStr for SshSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (id, rest) = text.split_once('=').unwrap_or((text, ""));
        let refused = |reason: &str| Error::InvalidSpec {
            option: "--ssh",
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        if id.is_empty() || id.contains(',') {
            return Err(refused("it has no id"));
        }
        let mut spec = Self {
            id: id.to_owned(),
            paths: Vec::new(),
            raw: false,
        };
        for field in rest.split(',').filter(|field| !field.is_empty()) {
            match field.strip_prefix("raw=") {
                Some("true" | "1") => spec.raw = true,
                Some("false" | "0") => spec.raw = false,
                Some(_) => return Err(refused("raw is neither true nor false")),
                None => spec.paths.push(field.into()),
            }
        }
        if spec.raw && spec.paths.len() != 1 {
            return Err(refused("raw needs exactly one socket"));
        }
        Ok(spec)
    }
}

impl SshAgents {
    /// Checks that what `specs` name is there.
    pub fn load(specs: &[SshSpec], environment: Environment<'_>) -> Result<Self, Error> {
        let mut agents = Self::default();
        for spec in specs {
            let source = match spec.paths.as_slice() {
                [] => source_of_environment(&spec.id, environment)?,
                paths => source_of(spec, paths)?,
            };
            if agents.sources.insert(spec.id.clone(), source).is_some() {
                return Err(failed(&spec.id, "it is given twice"));
            }
        }
        Ok(agents)
    }

    /// Says whether there is an agent of that id.
    pub fn contains(&self, id: &str) -> bool {
        self.sources.contains_key(id)
    }

    /// Returns the ids in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Opens a socket in `dir` behind which the agent `id` answers for as long as the returned
    /// value lives.
    pub fn forward(&self, id: &str, dir: &Path) -> Result<ForwardedAgent, Error> {
        match self.sources.get(id) {
            None => Err(failed(
                id,
                "it was not given: try `--ssh default` or `--ssh ID=SOCKET`",
            )),
            Some(Source::Socket { path, raw }) => {
                ForwardedAgent::to_socket(id, path.clone(), *raw, dir)
            }
            Some(Source::Keys(keys)) => ForwardedAgent::to_keys(id, keys, dir),
        }
    }
}

fn source_of_environment(id: &str, environment: Environment<'_>) -> Result<Source, Error> {
    let path = environment("SSH_AUTH_SOCK")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| failed(id, "no agent runs: SSH_AUTH_SOCK is not set"))?;
    let path = PathBuf::from(path);
    if !is_socket(&path)? {
        return Err(failed(id, "SSH_AUTH_SOCK does not name a socket"));
    }
    Ok(Source::Socket { path, raw: false })
}

fn source_of(spec: &SshSpec, paths: &[PathBuf]) -> Result<Source, Error> {
    let mut sockets = 0;
    for path in paths {
        sockets += usize::from(is_socket(path)?);
    }
    match (sockets, paths) {
        (1, [path]) => Ok(Source::Socket {
            path: path.clone(),
            raw: spec.raw,
        }),
        (0, _) if spec.raw => Err(failed(&spec.id, "raw needs a socket")),
        (0, keys) => {
            for key in keys {
                check_key(&spec.id, key)?;
            }
            Ok(Source::Keys(keys.to_vec()))
        }
        _ => Err(failed(
            &spec.id,
            "give either one socket or any number of keys",
        )),
    }
}

fn is_socket(path: &Path) -> Result<bool, Error> {
    let metadata = std::fs::metadata(path).map_err(Error::read("ssh agent or key", path))?;
    Ok(metadata.file_type().is_socket())
}

fn check_key(id: &str, path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path).map_err(Error::read("ssh key", path))?;
    let plausible = metadata.is_file() && metadata.len() <= KEY_BYTES_MAX;
    let text = if plausible {
        std::fs::read(path).map_err(Error::read("ssh key", path))?
    } else {
        Vec::new()
    };
    let text = String::from_utf8_lossy(&text);
    if !text.contains("PRIVATE KEY-----") {
        let reason = format!("{} is neither a socket nor a private key", path.display());
        return Err(failed(id, &reason));
    }
    Ok(())
}

fn failed(id: &str, reason: &str) -> Error {
    agent::failed(id, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_parsed() {
        for (text, id, paths, raw) in [
            ("default", "default", &[][..], false),
            ("default=/run/a.sock", "default", &["/run/a.sock"], false),
            ("git=k1,k2", "git", &["k1", "k2"], false),
            ("x=/s,raw=true", "x", &["/s"], true),
        ] {
            let spec: SshSpec = text.parse().unwrap();
            let given: Vec<&str> = spec.paths.iter().map(|p| p.to_str().unwrap()).collect();
            assert_eq!(
                (spec.id.as_str(), given.as_slice(), spec.raw),
                (id, paths, raw)
            );
        }
        for bad in ["", "=x", "a,b", "x=raw=true", "x=/s,raw=maybe"] {
            assert!(bad.parse::<SshSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_not_an_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "not a key").unwrap();
        let none = |_: &str| None;
        for (text, message) in [
            ("default".to_owned(), "SSH_AUTH_SOCK is not set"),
            (
                format!("a={}", file.display()),
                "neither a socket nor a private key",
            ),
            ("a=/nonexistent".to_owned(), "cannot read ssh agent or key"),
        ] {
            let error = SshAgents::load(&[text.parse().unwrap()], &none).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        let error = SshAgents::default().forward("x", dir.path()).unwrap_err();
        assert!(error.to_string().contains("it was not given"), "{error}");
    }
}
