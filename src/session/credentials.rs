//! Registry credentials out of Docker's `config.json`, podman's `auth.json` and the helpers that
//! they name.
//!
//! Order for a registry: what was given for it, then the files in their order; in each its own
//! entry in `credHelpers`, then `credsStore`, then `auths`. A key may name a part of a registry
//! (`host/team`), as podman writes it; the longest that fits counts.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use serde::Deserialize;

use super::{Error, helper};

/// Largest `config.json` that is read.
pub(super) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// The name under which Docker keeps the credentials of docker.io.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

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
    /// What the files say, the most important first.
    configs: Vec<Config>,
    /// What was given for every registry.
    everywhere: Option<Credential>,
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
        let files: Vec<PathBuf> = dir.map(|dir| dir.join("config.json")).into_iter().collect();
        Self::from_files(&files)
    }

    /// Reads files of the form of `config.json`, the most important first; those that are not
    /// there count as empty.
    pub fn from_files(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut configs = Vec::new();
        for path in paths {
            if let Some(bytes) = read(path)? {
                let config = serde_json::from_slice(&bytes).map_err(|error| {
                    // serde's messages can quote values; the place is enough to find the mistake.
                    let place = format!("line {}, column {}", error.line(), error.column());
                    malformed(path, place)
                })?;
                configs.push(config);
            }
        }
        Ok(Self {
            configs,
            ..Self::default()
        })
    }

    /// Adds a credential for every registry, which comes before all configured ones.
    #[must_use]
    pub fn with_everywhere(mut self, credential: Credential) -> Self {
        self.everywhere = Some(credential);
        self
    }

    /// Returns what the credentials of a repository are kept under: a part of the registry that
    /// has its own, or the registry.
    pub fn account_of(&self, registry: &str, repository: &str) -> String {
        let mut part = format!("{registry}/{repository}");
        while part.len() > registry.len() {
            let is_key = |config: &Config| {
                let auths = config.auths.as_ref();
                let helpers = config.helpers.as_ref();
                auths.is_some_and(|auths| auths.contains_key(&part))
                    || helpers.is_some_and(|helpers| helpers.contains_key(&part))
            };
            if self.configs.iter().any(is_key) {
                return part;
            }
            let end = part.rfind('/').unwrap_or(registry.len());
            part.truncate(end);
        }
        registry.to_owned()
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
        let host = registry.split('/').next().unwrap_or(registry);
        if let Some(credential) = self.fixed.get(host) {
            return Ok(Some(credential.clone()));
        }
        if let Some(credential) = &self.everywhere {
            return Ok(Some(credential.clone()));
        }
        let names = names_of(registry);
        for config in &self.configs {
            if let Some(credential) = config.look_up(&names)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }
}

impl Config {
    fn look_up(&self, names: &[&str]) -> Result<Option<Credential>, Error> {
        let own_helper = self.helpers.as_ref().and_then(|helpers| {
            let name = names.iter().find(|name| helpers.contains_key(**name))?;
            Some((helpers[*name].as_str(), *name))
        });
        let store = self.store.as_deref();
        let helper = own_helper.or_else(|| Some((store?, names[0])));
        if let Some((helper, server)) = helper.filter(|(helper, _)| !helper.is_empty())
            && let Some(credential) = helper::get(helper, server)?
        {
            return Ok(Some(credential));
        }
        Ok(self.written_down(names))
    }

    fn written_down(&self, names: &[&str]) -> Option<Credential> {
        let auths = self.auths.as_ref()?;
        let exact = names.iter().find_map(|name| auths.get(*name));
        let by_host = || {
            let mut entries = auths.iter();
            entries.find_map(|(key, entry)| names.contains(&host_of(key)?).then_some(entry))
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
pub(super) fn names_of(registry: &str) -> Vec<&str> {
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

/// Finds the registry that a key names as a whole: `https://host:1/v1/` is `host:1`. A path that
/// belongs to no API makes it a part of a registry.
fn host_of(key: &str) -> Option<&str> {
    let url = ["https://", "http://"];
    let rest = url.iter().find_map(|scheme| key.strip_prefix(scheme));
    let (host, path) = match rest.unwrap_or(key).split_once('/') {
        Some((host, path)) => (host, path.trim_matches('/')),
        None => (rest.unwrap_or(key), ""),
    };
    (rest.is_some() || matches!(path, "" | "v1" | "v2")).then_some(host)
}

/// Reads a file; `None` where there is none, or nothing in it.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(malformed(path, "it is not a regular file".to_owned()));
        }
        Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
            return Err(malformed(path, "it is too large".to_owned()));
        }
        Ok(_) => {}
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(Error::read(WHAT, path)(error)),
    }
    let bytes = std::fs::read(path).map_err(Error::read(WHAT, path))?;
    Ok((!bytes.trim_ascii().is_empty()).then_some(bytes))
}

/// What the files are called in messages.
const WHAT: &str = "the file of registry credentials";

pub(super) fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        what: WHAT,
        path: path.to_owned(),
        reason,
    }
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
    fn a_part_of_a_registry_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("1.json"), dir.path().join("2.json"));
        let entry = |name: &str| format!(r#"{{"username": "{name}", "password": "p"}}"#);
        let (team, whole, other) = (entry("team"), entry("whole"), entry("other"));
        std::fs::write(
            &first,
            format!(r#"{{"auths": {{"r.example/team": {team}}}}}"#),
        )
        .unwrap();
        let text = format!(
            r#"{{"auths": {{"r.example": {whole}, "r.example/team": {other}, "o.example/a": {other}}}}}"#
        );
        std::fs::write(&second, text).unwrap();
        let absent = dir.path().join("absent");
        let credentials = Credentials::from_files(&[absent, first, second]).unwrap();
        for (registry, repository, account, expected) in [
            (
                "r.example",
                "team/app",
                "r.example/team",
                basic("team", "p"),
            ),
            ("r.example", "team", "r.example/team", basic("team", "p")),
            ("r.example", "teamwork", "r.example", basic("whole", "p")),
            ("o.example", "a/b/c", "o.example/a", basic("other", "p")),
            ("o.example", "b", "o.example", None),
        ] {
            assert_eq!(credentials.account_of(registry, repository), account);
            let found = credentials.for_registry(account).unwrap();
            assert_eq!(found, expected, "{registry}/{repository}");
        }
        let login = basic("me", "p").unwrap();
        let typed = credentials.with_everywhere(login.clone());
        assert_eq!(typed.for_registry("x.example").unwrap(), Some(login));
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
