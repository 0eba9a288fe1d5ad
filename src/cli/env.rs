//! The environment of the process: the only reader of it.
//!
//! | variable | meaning |
//! |---|---|
//! | `COOPER_ROOT` | directory of the local store |
//! | `COOPER_SNAPSHOTTER` | default of `--snapshotter` |
//! | `COOPER_GC` | `on` or `off`: whether builds keep the store under its cap |
//! | `COOPER_GC_MAX_USED_SPACE`, `COOPER_GC_RESERVED_SPACE`, `COOPER_GC_MIN_FREE_SPACE` | the cap |
//! | `COOPER_GC_CACHE_MOUNT_MAX_SIZE` | what one folder of a cache mount may hold |
//! | `XDG_DATA_HOME`, `HOME` | where the store is by default, for others than root |
//! | `COOPER_PROVENANCE_DIR` | folder whose JSON files are members of provenance |
//! | `GITHUB_ACTIONS`, `GITHUB_…` | the run of a workflow, told in provenance |
//! | `COSIGN_PASSWORD` | password of the key of `sign` and `build --sign` |
//! | `DOCKER_CONFIG` | directory of docker's `config.json` with registry credentials |
//! | `REGISTRY_AUTH_FILE` | file with registry credentials, read first and written by `login` |
//! | `XDG_RUNTIME_DIR`, `XDG_CONFIG_HOME`, `HOME` | where podman's `auth.json` and configuration of registries are |
//! | `CONTAINERS_REGISTRIES_CONF` | `registries.conf` |
//! | `COOPER_SHORT_NAMES` | `registries.conf` where that says what names without a registry mean |
//! | `GITHUB_RUN_ID`, `CI_PIPELINE_ID`, `CIRCLE_WORKFLOW_ID`, `BUILD_BUILDID`, `BUILD_TAG` | the run of `--join` |
//! | `DOCKER_HOST`, `DOCKER_CONTEXT` | whose proxies of that file become build arguments; the engine of `--load` |
//! | `PATH` | where podman is looked for |
//! | `BUILDKIT_PROGRESS` | default of `--progress` |
//! | `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY` | file with rules about sources |
//! | `BUILDX_DEFAULT_POLICY` | whether images of Docker's have to be signed |
//! | `BUILDKIT_BUILD_NAME` | name under which the build is remembered |
//! | `BUILDKIT_COLORS`, `BUILDKIT_TTY_LOG_LINES` | colours of the live display, lines of output it shows |
//! | `BUILDX_METADATA_PROVENANCE` | whether the metadata file holds the provenance: min, max |
//! | `BUILDX_GIT_INFO` | false where provenance is not to tell what git knows about the folder |
//! | `BUILDX_GIT_LABELS` | true or full where labels of the image tell it |
//! | `BUILDX_GIT_CHECK_DIRTY` | true where a folder with changes is marked as `-dirty` |
//! | `BUILDX_METADATA_WARNINGS` | whether the metadata file holds the warnings |
//! | `NO_COLOR`, `TERM` | whether the display has colours, and whether it can move the cursor |
//! | `SOURCE_DATE_EPOCH` | nothing new in the image is younger than this: seconds, or the name of a source |
//! | `DOCKER_DEFAULT_PLATFORM` | default of `--platform` |
//! | `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` (or in lower case) | proxies |
//! | `SSH_AUTH_SOCK` | the agent of `--ssh default` |
//! | `AWS_…`, `BUILDKIT_AZURE_…`, `ACTIONS_…` and others | attributes of remote caches: `cache/remote/backend` |
//! | any | values of `--build-arg NAME` and `--secret id=…,env=NAME` |

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::Snapshotter;
use super::engines::Engines;
use crate::engine::request::{Amount, GcOptions, HostFiles, Proxies};

/// Variables in which continuous integration says which run this is.
const RUN_IDS: [&str; 5] = [
    "GITHUB_RUN_ID",
    "CI_PIPELINE_ID",
    "CIRCLE_WORKFLOW_ID",
    "BUILD_BUILDID",
    "BUILD_TAG",
];

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
        // Programs that work for us have directories of their own.
        if let Some(typed) = typed {
            return std::path::absolute(typed).ok();
        }
        if let Some(root) = self.filled("COOPER_ROOT") {
            return std::path::absolute(root).ok();
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

    /// Returns how layers become trees, where a variable says.
    pub(crate) fn snapshotter(&self) -> Result<Option<Snapshotter>, String> {
        let name = self.text("COOPER_SNAPSHOTTER");
        let name = name.filter(|name| !name.is_empty());
        let parsed = name.map(|name| Snapshotter::from_str(&name, true));
        let parsed = parsed.transpose();
        parsed.map_err(|reason| format!("COOPER_SNAPSHOTTER: {reason}"))
    }

    /// Returns how the store is kept under its cap, as far as the variables say.
    pub(crate) fn gc(&self) -> Result<GcOptions, String> {
        let amount = |name: &str| match self.text(name).filter(|text| !text.is_empty()) {
            Some(text) => match text.parse::<Amount>() {
                Ok(amount) => Ok(Some(amount)),
                Err(reason) => Err(format!("{name}: {reason}")),
            },
            None => Ok(None),
        };
        let enabled = match self.text("COOPER_GC").as_deref() {
            None | Some("") => None,
            Some("on" | "true" | "1") => Some(true),
            Some("off" | "false" | "0") => Some(false),
            Some(other) => return Err(format!("COOPER_GC: expected on or off, not {other:?}")),
        };
        Ok(GcOptions {
            enabled,
            reserved_space: amount("COOPER_GC_RESERVED_SPACE")?,
            max_used_space: amount("COOPER_GC_MAX_USED_SPACE")?,
            min_free_space: amount("COOPER_GC_MIN_FREE_SPACE")?,
            cache_mount_max_size: amount("COOPER_GC_CACHE_MOUNT_MAX_SIZE")?,
        })
    }

    /// Returns the file with rules about sources that every build is held to.
    pub(crate) fn source_policy(&self) -> Option<PathBuf> {
        self.filled("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
            .map(PathBuf::from)
    }

    /// Returns docker's configuration directory.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        match self.filled("DOCKER_CONFIG") {
            Some(dir) => Some(dir.into()),
            None => Some(Path::new(self.filled("HOME")?).join(".docker")),
        }
    }

    /// Returns the files with registry credentials, the most important first: what was named,
    /// docker's, podman's.
    pub(crate) fn credential_files(&self, typed: Option<&Path>) -> Vec<PathBuf> {
        let named = typed.map(Path::to_owned);
        let named = named.or_else(|| self.filled("REGISTRY_AUTH_FILE").map(PathBuf::from));
        let docker = self.docker_config().map(|dir| dir.join("config.json"));
        let runtime = self.filled("XDG_RUNTIME_DIR");
        let runtime = runtime.map(|dir| Path::new(dir).join("containers/auth.json"));
        let podman = self.config_home();
        let podman = podman.map(|dir| dir.join("containers/auth.json"));
        [named, docker, runtime, podman]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Returns where this machine's tools keep what they know about registries.
    pub(crate) fn host_files(&self) -> HostFiles {
        let home = self.config_home();
        let both = |own: &str, common: &str| {
            let own = home.as_ref().map(|home| home.join(own));
            let places = own.into_iter().chain([PathBuf::from(common)]);
            places.collect::<Vec<PathBuf>>()
        };
        let mut certs_dirs = both("containers/certs.d", "/etc/containers/certs.d");
        certs_dirs.extend(both("docker/certs.d", "/etc/docker/certs.d"));
        certs_dirs.push("/etc/containerd/certs.d".into());
        let registries_conf = match self.filled("CONTAINERS_REGISTRIES_CONF") {
            Some(path) => vec![path.into()],
            None => both(
                "containers/registries.conf",
                "/etc/containers/registries.conf",
            ),
        };
        HostFiles {
            certs_dirs,
            registries_conf,
            registries_conf_dirs: both(
                "containers/registries.conf.d",
                "/etc/containers/registries.conf.d",
            ),
            buildkitd: both("buildkit/buildkitd.toml", "/etc/buildkit/buildkitd.toml"),
            daemon: both("docker/daemon.json", "/etc/docker/daemon.json"),
        }
    }

    /// Returns who says what names of images mean that name no registry.
    pub(crate) fn short_names(&self) -> Option<String> {
        self.text("COOPER_SHORT_NAMES")
    }

    /// Returns which run of continuous integration this is.
    pub(crate) fn run_id(&self) -> Option<String> {
        let mut ids = RUN_IDS.iter().filter_map(|name| self.text(name));
        ids.find(|id| !id.is_empty())
    }

    fn config_home(&self) -> Option<PathBuf> {
        match self.filled("XDG_CONFIG_HOME") {
            Some(home) if Path::new(home).is_absolute() => Some(home.into()),
            _ => Some(Path::new(self.filled("HOME")?).join(".config")),
        }
    }

    /// Returns the container engines that an image can be loaded into.
    pub(crate) fn engines(&self) -> Engines {
        let filled = |name: &str| self.text(name).filter(|text| !text.is_empty());
        let engines = Engines {
            docker_host: filled("DOCKER_HOST"),
            docker_context: filled("DOCKER_CONTEXT"),
            docker_config: self.docker_config(),
            ..Engines::default()
        };
        engines.look(self.filled("PATH"))
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
        self.is_true("BUILDX_METADATA_WARNINGS")
    }

    /// Says whether a variable is set to a word that means yes.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        let value = self.text(name);
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
        let here = std::path::absolute("x").unwrap();
        for (variables, typed) in [(&[][..], Some("x")), (&[("COOPER_ROOT", "x")], None)] {
            let root = Environment::of(variables).store_root(typed.map(Path::new), true);
            assert_eq!(root, Some(here.clone()));
        }
    }
}
