//! Which container engine `--load` and `type=docker` mean on this machine.
//!
//! docker comes first: through the socket that `DOCKER_HOST` or a docker context names, or the
//! usual one where that exists. An engine elsewhere (`tcp:`, `ssh:`) is spoken to by the program
//! `docker`, which knows its keys. Then podman, if it is installed. containerd must be asked for.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::request::LoadTarget;
use crate::oci::Digest;

/// docker's socket, where nothing else is said.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Name of the docker context that is none.
const DEFAULT_CONTEXT: &str = "default";

/// An engine as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineChoice {
    /// docker; without a context and without docker, podman.
    DockerOrOther(Option<String>),
    /// docker.
    Docker,
    /// podman.
    Podman,
    /// containerd.
    Containerd,
}

/// What the environment says about engines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Engines {
    /// `DOCKER_HOST`.
    pub(crate) docker_host: Option<String>,
    /// The docker context in use: `DOCKER_CONTEXT`.
    pub(crate) docker_context: Option<String>,
    /// docker's configuration directory.
    pub(crate) docker_config: Option<PathBuf>,
    /// Where docker listens usually, if it does.
    pub(crate) usual_socket: Option<PathBuf>,
    /// Whether podman is installed.
    pub(crate) has_podman: bool,
}

impl Engines {
    /// Looks where docker listens usually, and for podman in the folders of `path`.
    pub(crate) fn look(mut self, path: Option<&std::ffi::OsStr>) -> Self {
        let socket = PathBuf::from(DOCKER_SOCKET);
        self.usual_socket = socket.exists().then_some(socket);
        let mut folders = path.into_iter().flat_map(std::env::split_paths);
        self.has_podman = folders.any(|folder| folder.join("podman").is_file());
        self
    }

    /// Finds the engine that is meant.
    pub(crate) fn find(&self, choice: &EngineChoice) -> Result<LoadTarget, String> {
        match choice {
            EngineChoice::Podman => Ok(LoadTarget::Podman),
            EngineChoice::Containerd => Ok(LoadTarget::Containerd),
            EngineChoice::Docker => match self.docker(None)? {
                Some(target) => Ok(target),
                None => Ok(LoadTarget::DockerSocket(DOCKER_SOCKET.into())),
            },
            EngineChoice::DockerOrOther(context) => match self.docker(context.as_deref())? {
                Some(target) => Ok(target),
                None if self.has_podman => Ok(LoadTarget::Podman),
                None => Err(
                    "there is no container engine to load the image into: neither docker's socket \
                     nor podman was found; write an archive with dest=FILE"
                        .to_owned(),
                ),
            },
        }
    }

    /// Finds docker; `None` where nothing says that there is one.
    fn docker(&self, context: Option<&str>) -> Result<Option<LoadTarget>, String> {
        if let Some(name) = context {
            return self.of_context(name).map(Some);
        }
        // As the program docker: the host wins over the context in use.
        if let Some(host) = &self.docker_host {
            return Ok(Some(at(host, &[])));
        }
        if let Some(name) = self.context_in_use() {
            return self.of_context(&name).map(Some);
        }
        Ok(self.usual_socket.clone().map(LoadTarget::DockerSocket))
    }

    /// Returns the context that docker would use, unless it is the default one.
    fn context_in_use(&self) -> Option<String> {
        let from_config = || {
            let path = self.docker_config.as_ref()?.join("config.json");
            let config: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            Some(config["currentContext"].as_str()?.to_owned())
        };
        let name = self.docker_context.clone().or_else(from_config)?;
        (!name.is_empty() && name != DEFAULT_CONTEXT).then_some(name)
    }

    /// Reads where the engine of a docker context listens.
    fn of_context(&self, name: &str) -> Result<LoadTarget, String> {
        if name == DEFAULT_CONTEXT {
            return Ok(LoadTarget::DockerSocket(DOCKER_SOCKET.into()));
        }
        let folder = Digest::of(name.as_bytes());
        let path = Path::new("contexts/meta")
            .join(folder.hex())
            .join("meta.json");
        let missing = || format!("there is no docker context {name:?}");
        let path = self.docker_config.as_ref().ok_or_else(missing)?.join(path);
        let bytes = std::fs::read(path).map_err(|_| missing())?;
        let meta: Value = serde_json::from_slice(&bytes)
            .map_err(|error| format!("docker context {name:?} cannot be read: {error}"))?;
        match meta["Endpoints"]["docker"]["Host"].as_str() {
            Some(host) => Ok(at(host, &["--context", name])),
            None => Err(format!("docker context {name:?} names no host")),
        }
    }
}

/// Returns the engine at an address; the program docker gets there with these arguments.
fn at(host: &str, arguments: &[&str]) -> LoadTarget {
    match host.strip_prefix("unix://") {
        Some(path) => LoadTarget::DockerSocket(path.into()),
        None => {
            let arguments = arguments.iter().map(|word| (*word).to_owned());
            LoadTarget::DockerProgram(arguments.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes docker's configuration with a context for an engine here and for one elsewhere.
    fn configuration() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = temp.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (name, host) in [("near", "unix:///near.sock"), ("far", "ssh://me@far")] {
            let folder = Digest::of(name.as_bytes());
            let meta = format!(r#"{{"Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#);
            write(&format!("contexts/meta/{}/meta.json", folder.hex()), &meta);
        }
        temp
    }

    fn program(words: &[&str]) -> Result<LoadTarget, String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Ok(LoadTarget::DockerProgram(words))
    }

    #[test]
    fn the_engine_is_the_one_that_docker_would_speak_to() {
        let temp = configuration();
        let engines =
            |host: Option<&str>, context: Option<&str>, socket: bool, podman: bool| Engines {
                docker_host: host.map(str::to_owned),
                docker_context: context.map(str::to_owned),
                docker_config: Some(temp.path().to_owned()),
                usual_socket: socket.then(|| DOCKER_SOCKET.into()),
                has_podman: podman,
            };
        let socket = |path: &str| Ok(LoadTarget::DockerSocket(path.into()));
        let any = EngineChoice::DockerOrOther(None);
        let of = |name: &str| EngineChoice::DockerOrOther(Some(name.to_owned()));
        for (engines, choice, expected) in [
            (engines(None, None, true, true), &any, socket(DOCKER_SOCKET)),
            (
                engines(None, None, false, true),
                &any,
                Ok(LoadTarget::Podman),
            ),
            (
                engines(Some("unix:///x"), Some("near"), true, true),
                &any,
                socket("/x"),
            ),
            (
                engines(Some("tcp://h:1"), None, true, true),
                &any,
                program(&[]),
            ),
            (
                engines(None, Some("near"), true, true),
                &any,
                socket("/near.sock"),
            ),
            (
                engines(None, Some("default"), true, true),
                &any,
                socket(DOCKER_SOCKET),
            ),
            (
                engines(None, None, true, true),
                &of("far"),
                program(&["--context", "far"]),
            ),
            (
                engines(None, None, false, false),
                &EngineChoice::Docker,
                socket(DOCKER_SOCKET),
            ),
            (
                engines(None, None, true, true),
                &of("none"),
                Err("there is no docker context \"none\"".to_owned()),
            ),
        ] {
            assert_eq!(engines.find(choice), expected, "{engines:?} {choice:?}");
        }
        let config = temp.path().join("config.json");
        std::fs::write(config, r#"{"currentContext":"far"}"#).unwrap();
        let found = engines(None, None, true, true).find(&any);
        assert_eq!(found, program(&["--context", "far"]));
        assert!(
            Engines::default()
                .find(&any)
                .unwrap_err()
                .contains("dest=FILE")
        );
    }
}
