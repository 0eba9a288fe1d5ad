//! Registry credentials out of Docker's `config.json` and the helpers that it names.
//!
//! Order for a registry: its own entry in `credHelpers`, then `credsStore`, then `auths`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use serde::Deserialize;

use super::{Error, helper};

/// Largest `config.json` that is read.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// The name under which Docker keeps the credentials of docker.io.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry or its token server wants to see.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token for the registry's token server (OAuth2).
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic {{ username: {username:?}, .. }}"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// Knows the credentials of registries. Helpers are asked once per registry.
#[derive(Debug, Default)]
pub struct Credentials {
    config: Config,
    fixed: BTreeMap<String, Credential>,
    answers: Mutex<BTreeMap<String, Option<Credential>>>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: Option<BTreeMap<String, AuthEntry>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthEntry")
    }
}

impl Credentials {
    /// Reads `config.json` in Docker's configuration directory; no directory or no file means no
    /// credentials.
    pub fn from_docker_config(dir: Option<&Path>) -> Result<Self, Error> {
        const WHAT: &str = "docker's configuration";
        let Some(dir) = dir else {
            return Ok(Self::default());
        };
        let path = dir.join("config.json");
        let malformed = |path: PathBuf, reason: String| Error::Malformed {
            what: WHAT,
            path,
            reason,
        };
        match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(malformed(path, "it is not a regular file".to_owned()));
            }
            Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
                return Err(malformed(path, "it is too large".to_owned()));
            }
            Ok(_) => {}
            Err(error) if absent(&error) => return Ok(Self::default()),
            Err(error) => return Err(Error::read(WHAT, &path)(error)),
        }
        let bytes = std::fs::read(&path).map_err(Error::read(WHAT, &path))?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let config = serde_json::from_slice(&bytes).map_err(|error| {
            // serde's messages can quote values; the place is enough to find the mistake.
            let place = format!("line {}, column {}", error.line(), error.column());
            malformed(path, place)
        })?;
        Ok(Self {
            config,
            ..Self::default()
        })
    }

    /// Adds a credential that comes before every configured one.
    #[must_use]
    pub fn with_credential(mut self, registry: &str, credential: Credential) -> Self {
        self.fixed.insert(registry.to_owned(), credential);
        self
    }

    /// Finds the credential for a registry (`docker.io`, `host:port`). May run a helper and wait
    /// for it, so it must not be called from an async task.
    pub fn for_registry(&self, registry: &str) -> Result<Option<Credential>, Error> {
        let mut answers = self
            .answers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(answer) = answers.get(registry) {
            return Ok(answer.clone());
        }
        let answer = self.look_up(registry)?;
        answers.insert(registry.to_owned(), answer.clone());
        Ok(answer)
    }

    fn look_up(&self, registry: &str) -> Result<Option<Credential>, Error> {
        if let Some(credential) = self.fixed.get(registry) {
            return Ok(Some(credential.clone()));
        }
        let names = names_of(registry);
        let own_helper = self.config.helpers.as_ref().and_then(|helpers| {
            let name = names.iter().find(|name| helpers.contains_key(**name))?;
            Some((helpers[*name].as_str(), *name))
        });
        let store = self.config.store.as_deref();
        let helper = own_helper.or_else(|| Some((store?, names[0])));
        if let Some((helper, server)) = helper.filter(|(helper, _)| !helper.is_empty())
            && let Some(credential) = helper::get(helper, server)?
        {
            return Ok(Some(credential));
        }
        Ok(self.written_down(&names))
    }

    fn written_down(&self, names: &[&str]) -> Option<Credential> {
        let auths = self.config.auths.as_ref()?;
        let exact = names.iter().find_map(|name| auths.get(*name));
        let by_host = || {
            let mut entries = auths.iter();
            entries.find_map(|(key, entry)| names.contains(&host_of(key)).then_some(entry))
        };
        exact.or_else(by_host)?.credential()
    }
}

impl AuthEntry {
    fn credential(&self) -> Option<Credential> {
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(token) = text(&self.registrytoken) {
            return Some(Credential::RegistryToken(token));
        }
        if let Some(token) = text(&self.identitytoken) {
            return Some(Credential::IdentityToken(token));
        }
        if let Some(encoded) = text(&self.auth) {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(encoded.trim())
                .ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (username, password) = decoded.split_once(':')?;
            return Some(Credential::Basic {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        Some(Credential::Basic {
            username: text(&self.username)?,
            password: text(&self.password)?,
        })
    }
}

/// Lists the names a registry may have in the configuration, the usual one first.
fn names_of(registry: &str) -> Vec<&str> {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => vec![
            DOCKER_HUB_KEY,
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
        ],
        other => vec![other],
    }
}

/// Strips scheme and path from a key: `https://host:1/v1/` is `host:1`.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_text(text: &str) -> Result<Credentials, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        Credentials::from_docker_config(Some(dir.path()))
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn entries_of_every_form_are_found() {
        let credentials = from_text(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="},
                "r.example": {"username": "u", "password": "p"},
                "https://old.example:5000/v2/": {"auth": "dTpwAAA="},
                "id.example": {"auth": "dTo=", "identitytoken": "refresh"},
                "tok.example": {"registrytoken": "bearer"},
                "empty.example": {},
                "bad.example": {"auth": "%%%"}
            }, "unknown": 1}"#,
        )
        .unwrap();
        for (registry, expected) in [
            ("docker.io", basic("hub", "p:w")),
            ("r.example", basic("u", "p")),
            ("old.example:5000", basic("u", "p")),
            ("old.example", None),
            (
                "id.example",
                Some(Credential::IdentityToken("refresh".to_owned())),
            ),
            (
                "tok.example",
                Some(Credential::RegistryToken("bearer".to_owned())),
            ),
            ("empty.example", None),
            ("bad.example", None),
            ("other.example", None),
        ] {
            assert_eq!(
                credentials.for_registry(registry).unwrap(),
                expected,
                "{registry}"
            );
        }
    }

    #[test]
    fn no_configuration_means_no_credentials() {
        let none = Credentials::from_docker_config(None).unwrap();
        assert_eq!(none.for_registry("docker.io").unwrap(), None);
        let missing = Credentials::from_docker_config(Some(Path::new("/nonexistent"))).unwrap();
        assert_eq!(missing.for_registry("docker.io").unwrap(), None);
        assert_eq!(
            from_text("").unwrap().for_registry("docker.io").unwrap(),
            None
        );
        let nulls = from_text(r#"{"auths":null,"credsStore":"","credHelpers":null}"#).unwrap();
        assert_eq!(nulls.for_registry("docker.io").unwrap(), None);
    }

    #[test]
    fn passwords_show_in_no_message() {
        let error = from_text(r#"{"auths": {"r": {"auth": hunter2}}}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("line 1"), "{error}");
        let credentials =
            from_text(r#"{"auths": {"r": {"username": "u", "password": "hunter2"}}}"#).unwrap();
        credentials.for_registry("r").unwrap();
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
