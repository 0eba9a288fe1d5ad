//! Secrets: `--secret id=…`, read once when the build begins.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::{Environment, Error};

/// Largest secret, as in BuildKit.
pub const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// A secret as it was asked for on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// The id that steps mount it by.
    pub id: String,
    /// Where its value comes from.
    pub source: SecretSource,
}

/// Where the value of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// A variable of the user's environment.
    Variable(String),
    /// The variable named as the secret, else the file named as the secret.
    Guess,
}

/// The value of a secret. It never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<[u8]>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Returns the value itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// The secrets of a build by id.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, SecretValue>,
}

impl FromStr for SecretSpec {
    type Err = Error;

    /// Parses `id=ID[,src=PATH|,env=NAME][,type=file|env]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |reason: String| Error::InvalidSpec {
            option: "--secret",
            text: text.to_owned(),
            reason,
        };
        let (mut id, mut path, mut variable) = (String::new(), String::new(), String::new());
        let mut from_environment = false;
        for field in text.split(',') {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| refused(format!("{field:?} is not of the form key=value")))?;
            match (key.trim().to_lowercase().as_str(), value) {
                ("id", value) => value.clone_into(&mut id),
                ("src" | "source", value) => value.clone_into(&mut path),
                ("env", value) => value.clone_into(&mut variable),
                ("type", "file") => from_environment = false,
                ("type", "env") => from_environment = true,
                ("type", _) => return Err(refused("the type is neither file nor env".to_owned())),
                (key, _) => return Err(refused(format!("unknown key {key:?}"))),
            }
        }
        if id.is_empty() {
            return Err(refused("it has no id".to_owned()));
        }
        if from_environment && variable.is_empty() {
            variable = std::mem::take(&mut path);
            if variable.is_empty() {
                variable.clone_from(&id);
            }
        }
        let source = match (path.is_empty(), variable.is_empty()) {
            (_, false) => SecretSource::Variable(variable),
            (false, true) => SecretSource::File(path.into()),
            (true, true) => SecretSource::Guess,
        };
        Ok(Self { id, source })
    }
}

impl Secrets {
    /// Reads the values of `specs`, each file once; a pipe will do.
    pub fn load(specs: &[SecretSpec], environment: Environment<'_>) -> Result<Self, Error> {
        let mut secrets = Self::default();
        for spec in specs {
            let value = match &spec.source {
                SecretSource::File(path) => read_file(&spec.id, path)?,
                // As with BuildKit a variable that is not set is an empty secret.
                SecretSource::Variable(name) => environment(name).unwrap_or_default().into_bytes(),
                SecretSource::Guess => match environment(&spec.id) {
                    Some(value) => value.into_bytes(),
                    None => read_file(&spec.id, &PathBuf::from(&spec.id))?,
                },
            };
            secrets.insert(&spec.id, &value)?;
        }
        Ok(secrets)
    }

    /// Adds a secret, replacing one of the same id.
    pub fn insert(&mut self, id: &str, value: &[u8]) -> Result<(), Error> {
        if value.len() as u64 > SECRET_BYTES_MAX {
            return Err(too_large(id));
        }
        self.values.insert(id.to_owned(), SecretValue::new(value));
        Ok(())
    }

    /// Returns the value of a secret.
    pub fn get(&self, id: &str) -> Option<&SecretValue> {
        self.values.get(id)
    }

    /// Returns the ids in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

fn read_file(id: &str, path: &PathBuf) -> Result<Vec<u8>, Error> {
    let mut value = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut value))
        .map_err(Error::read("the file of a secret:", path))?;
    if value.len() as u64 > SECRET_BYTES_MAX {
        return Err(too_large(id));
    }
    Ok(value)
}

fn too_large(id: &str) -> Error {
    Error::SecretTooLarge {
        id: id.to_owned(),
        limit_bytes: SECRET_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_parsed_as_docker_does() {
        let file = |path: &str| SecretSource::File(path.into());
        let variable = |name: &str| SecretSource::Variable(name.to_owned());
        for (text, id, source) in [
            ("id=a", "a", SecretSource::Guess),
            ("id=a,src=f", "a", file("f")),
            ("source=f=g,id=a", "a", file("f=g")),
            ("id=a,env=B", "a", variable("B")),
            ("type=env,id=a", "a", variable("a")),
            ("type=env,id=a,src=B", "a", variable("B")),
            ("type=file,id=a,src=f", "a", file("f")),
        ] {
            let spec: SecretSpec = text.parse().unwrap();
            assert_eq!((spec.id.as_str(), spec.source), (id, source), "{text}");
        }
        for bad in ["", "a", "src=f", "id=", "id=a,type=x", "id=a,mode=1"] {
            assert!(bad.parse::<SecretSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_come_from_files_and_variables_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "from file").unwrap();
        let environment = |name: &str| (name == "SET").then(|| "from env".to_owned());
        let load = |text: String| Secrets::load(&[text.parse().unwrap()], &environment);
        for (text, expected) in [
            (format!("id=a,src={}", path.display()), "from file"),
            ("id=a,env=SET".to_owned(), "from env"),
        ] {
            let secrets = load(text).unwrap();
            assert_eq!(secrets.get("a").unwrap().bytes(), expected.as_bytes());
            assert!(!format!("{secrets:?}").contains("from"));
        }
        assert_eq!(
            load("id=SET".to_owned())
                .unwrap()
                .get("SET")
                .unwrap()
                .bytes(),
            b"from env"
        );
        let unset = load("id=a,env=UNSET".to_owned()).unwrap();
        assert_eq!(unset.get("a").unwrap().bytes(), b"");
        assert!(load(format!("id=a,src={}", dir.path().display())).is_err());
        std::fs::write(&path, vec![0; 500 * 1024 + 1]).unwrap();
        let error = load(format!("id=a,src={}", path.display())).unwrap_err();
        assert_eq!(error.to_string(), "secret a is larger than 512000 bytes");
    }
}
