//! Keeping and forgetting credentials: `config.json` and the helpers that it names.
//!
//! Everything in the file that is not about the one registry stays as it is, in its order. The
//! file is replaced as a whole and readable by its owner only.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::credentials::{malformed, names_of, read};
use super::{Credential, Error, helper};
use crate::sys::atomic;

/// Where a credential was put, or taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A helper: `docker-credential-<name>`.
    Helper(String),
    /// The file itself, where a password can be read.
    File(PathBuf),
}

/// A file of credentials that can be changed.
#[derive(Debug)]
pub struct CredentialFile {
    path: PathBuf,
    config: Value,
}

impl CredentialFile {
    /// Reads the file; one that is not there is made when something is kept.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let config = match read(path)? {
            None => json!({}),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                malformed(path, place)
            })?,
        };
        if !config.is_object() {
            return Err(malformed(path, "it is not a JSON object".to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            config,
        })
    }

    /// Keeps what is to be presented to a registry.
    pub fn keep(&mut self, registry: &str, credential: &Credential) -> Result<Keeper, Error> {
        let key = names_of(registry)[0].to_owned();
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.as_str(), password.as_str()),
            Credential::IdentityToken(token) => (helper::TOKEN_USER, token.as_str()),
            Credential::RegistryToken(token) => {
                let entry = json!({"registrytoken": token});
                return self.write_entry(&key, entry);
            }
        };
        if let Some(name) = self.helper_of(registry) {
            helper::store(&name, &key, username, secret)?;
            // As docker: an empty entry says that the helper knows more.
            self.set_entry(&key, json!({}));
            self.write()?;
            return Ok(Keeper::Helper(name));
        }
        let entry = match credential {
            Credential::IdentityToken(token) => json!({"identitytoken": token}),
            _ => json!({"auth": STANDARD.encode(format!("{username}:{secret}"))}),
        };
        self.write_entry(&key, entry)
    }

    /// Forgets what was kept for a registry; says whether there was something in the file.
    pub fn forget(&mut self, registry: &str) -> Result<bool, Error> {
        let names = names_of(registry);
        if let Some(name) = self.helper_of(registry) {
            helper::erase(&name, names[0])?;
        }
        let Some(auths) = self.config.get_mut("auths").and_then(Value::as_object_mut) else {
            return Ok(false);
        };
        let before = auths.len();
        for name in names {
            auths.shift_remove(name);
        }
        let found = auths.len() != before;
        if found {
            self.write()?;
        }
        Ok(found)
    }

    /// Lists the registries that have entries.
    pub fn registries(&self) -> Vec<String> {
        let auths = self.config.get("auths").and_then(Value::as_object);
        auths
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn helper_of(&self, registry: &str) -> Option<String> {
        let helpers = &self.config["credHelpers"];
        let own = names_of(registry)
            .into_iter()
            .find_map(|name| helpers.get(name)?.as_str());
        let name = own.or_else(|| self.config.get("credsStore")?.as_str());
        name.filter(|name| !name.is_empty()).map(str::to_owned)
    }

    fn write_entry(&mut self, key: &str, entry: Value) -> Result<Keeper, Error> {
        self.set_entry(key, entry);
        self.write()?;
        Ok(Keeper::File(self.path.clone()))
    }

    fn set_entry(&mut self, key: &str, entry: Value) {
        if !self.config["auths"].is_object() {
            self.config["auths"] = json!({});
        }
        self.config["auths"][key] = entry;
    }

    fn write(&self) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: self.path.clone(),
            source,
        };
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(dir).map_err(failed)?;
        }
        let text = format!("{:#}\n", self.config);
        // A link leads to the file that is meant.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        atomic::write(&path, text.as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::session::Credentials;

    fn login(username: &str, password: &str) -> Credential {
        Credential::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn what_is_kept_is_found_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        let mut file = CredentialFile::open(&path).unwrap();
        for registry in ["r.example:5000", "docker.io"] {
            let kept = file.keep(registry, &login("u", "p:w")).unwrap();
            assert_eq!(kept, Keeper::File(path.clone()));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let keys = ["r.example:5000", "https://index.docker.io/v1/"];
        assert_eq!(CredentialFile::open(&path).unwrap().registries(), keys);
        let read = Credentials::from_files(std::slice::from_ref(&path)).unwrap();
        assert_eq!(
            read.for_registry("docker.io").unwrap(),
            Some(login("u", "p:w"))
        );

        let text = r#"{"z": [1], "auths": {"x": {"auth": "eDp5"}}, "a": {"b": null}}"#;
        std::fs::write(&path, text).unwrap();
        let mut file = CredentialFile::open(&path).unwrap();
        let token = Credential::IdentityToken("t".to_owned());
        file.keep("r.example", &token).unwrap();
        assert!(file.forget("x").unwrap());
        assert!(!file.forget("x").unwrap());
        let left: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected =
            json!({"z": [1], "auths": {"r.example": {"identitytoken": "t"}}, "a": {"b": null}});
        assert_eq!(left.to_string(), expected.to_string());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in ["[]", "{\"auths\": hunter2}"] {
            std::fs::write(&path, text).unwrap();
            let error = CredentialFile::open(&path).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_missing_helper_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"credHelpers": {"r.example": "cooper-test-absent"}}"#,
        )
        .unwrap();
        let mut file = CredentialFile::open(&path).unwrap();
        let error = file.keep("r.example", &login("u", "hunter2")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("docker-credential-cooper-test-absent"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
