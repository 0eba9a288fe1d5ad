//! The environment of the process: the only reader of it.
//!
//! | variable | meaning |
//! |---|---|
//! | `COOPER_ROOT` | directory of the local store |
//! | `XDG_DATA_HOME`, `HOME` | where the store is by default, for others than root |
//! | `COOPER_PROVENANCE_DIR` | folder whose JSON files are members of provenance |
//! | `GITHUB_ACTIONS`, `GITHUB_…` | the run of a workflow, told in provenance |
//! | `COSIGN_PASSWORD` | password of the key of `sign` and `build --sign` |
//! | `DOCKER_CONFIG` | directory of docker's `config.json` with registry credentials |
//! | `DOCKER_HOST` | whose proxies of that file become build arguments |
//! | `BUILDKIT_PROGRESS` | default of `--progress` |
//! | `BUILDKIT_COLORS`, `BUILDKIT_TTY_LOG_LINES` | colours of the live display, lines of output it shows |
//! | `BUILDX_METADATA_PROVENANCE` | whether the metadata file holds the provenance: min, max |
//! | `BUILDX_GIT_INFO` | false where provenance is not to tell what git knows about the folder |
//! | `BUILDX_METADATA_WARNINGS` | whether the metadata file holds the warnings |
//! | `NO_COLOR`, `TERM` | whether the display has colours, and whether it can move the cursor |
//! | `SOURCE_DATE_EPOCH` | nothing new in the image is younger than this, in seconds |
//! | `DOCKER_DEFAULT_PLATFORM` | default of `--platform` |
//! | `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` (or in lower case) | proxies |
//! | `SSH_AUTH_SOCK` | the agent of `--ssh default` |
//! | any | values of `--build-arg NAME` and `--secret id=…,env=NAME` |

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::engine::request::Proxies;

/// A copy of the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Copies the environment of the process.
    pub(crate) fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// Returns a variable that is valid UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        Some(self.variables.get(OsStr::new(name))?.to_str()?.to_owned())
    }

    /// Returns a variable that is set and not empty.
    fn filled(&self, name: &str) -> Option<&OsStr> {
        let value = self.variables.get(OsStr::new(name))?.as_os_str();
        (!value.is_empty()).then_some(value)
    }

    /// Returns the directory of the store: `--root`, `COOPER_ROOT`, or the default.
    pub(crate) fn store_root(&self, typed: Option<&Path>, is_root: bool) -> Option<PathBuf> {
        if let Some(typed) = typed {
            return Some(typed.to_owned());
        }
        if let Some(root) = self.filled("COOPER_ROOT") {
            return Some(root.into());
        }
        if is_root {
            return Some("/var/lib/cooper".into());
        }
        match self.filled("XDG_DATA_HOME") {
            // The specification says that a relative path is to be ignored.
            Some(data) if Path::new(data).is_absolute() => Some(Path::new(data).join("cooper")),
            _ => Some(Path::new(self.filled("HOME")?).join(".local/share/cooper")),
        }
    }

    /// Returns docker's configuration directory.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        match self.filled("DOCKER_CONFIG") {
            Some(dir) => Some(dir.into()),
            None => Some(Path::new(self.filled("HOME")?).join(".docker")),
        }
    }

    /// Returns the proxies, which some spell in lower case.
    pub(crate) fn proxies(&self) -> Proxies {
        let either = |name: &str| {
            let lower = self
                .text(&name.to_lowercase())
                .filter(|text| !text.is_empty());
            lower.or_else(|| self.text(name).filter(|text| !text.is_empty()))
        };
        Proxies {
            http: either("HTTP_PROXY"),
            https: either("HTTPS_PROXY"),
            except: either("NO_PROXY").unwrap_or_default(),
        }
    }

    /// Says whether the user wants no colours, or the terminal cannot show any.
    pub(crate) fn no_color(&self) -> bool {
        self.filled("NO_COLOR").is_some() || self.is_dumb()
    }

    /// Says whether the metadata file lists warnings.
    pub(crate) fn metadata_warnings(&self) -> bool {
        let value = self.text("BUILDX_METADATA_WARNINGS");
        matches!(
            value.as_deref(),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True")
        )
    }

    /// Says whether a variable is set to a word that means no.
    pub(crate) fn is_false(&self, name: &str) -> bool {
        let value = self.text(name);
        matches!(
            value.as_deref(),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False")
        )
    }

    /// Says whether the terminal cannot move its cursor.
    pub(crate) fn is_dumb(&self) -> bool {
        self.filled("TERM") == Some(OsStr::new("dumb"))
    }
}

#[cfg(test)]
impl Environment {
    /// Makes an environment for a test.
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let pairs = variables.iter().map(|(k, v)| (k.into(), v.into()));
        Self {
            variables: pairs.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_where_the_user_says_or_where_data_lives() {
        for (variables, typed, is_root, expected) in [
            (&[("COOPER_ROOT", "/c")][..], Some("/t"), true, Some("/t")),
            (&[("COOPER_ROOT", "/c")], None, true, Some("/c")),
            (
                &[("COOPER_ROOT", ""), ("HOME", "/h")],
                None,
                true,
                Some("/var/lib/cooper"),
            ),
            (&[("XDG_DATA_HOME", "/d")], None, false, Some("/d/cooper")),
            (
                &[("XDG_DATA_HOME", "d"), ("HOME", "/h")],
                None,
                false,
                Some("/h/.local/share/cooper"),
            ),
            (&[], None, false, None),
        ] {
            let environment = Environment::of(variables);
            let root = environment.store_root(typed.map(Path::new), is_root);
            assert_eq!(root.as_deref(), expected.map(Path::new), "{variables:?}");
        }
    }
}
