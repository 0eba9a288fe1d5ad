//! Engines that are spoken to through a program of theirs: podman, ctr, docker.

use std::io::Read as _;
use std::process::Stdio;

use tokio::process::Command;

use super::{Error, Load, LoadError, Loaded, Stream, failed};
use crate::oci::Reference;

/// Most of a program's complaint that is shown.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

/// Loads an image into podman's store.
pub(super) async fn load_podman(load: Load<'_>) -> Result<Loaded, Error> {
    let podman = Program {
        engine: "podman",
        program: "podman",
    };
    let id = load.manifest()?.config.digest.hex().to_owned();
    let mut sent = Vec::new();
    let mut moment = None;
    if !podman.succeeds(&["image", "exists", &id]).await? {
        let served = load.serve().await?;
        let name = served.tagged();
        podman
            .run(&["pull", "--quiet", "--tls-verify=false", &name])
            .await?;
        moment = Some(name);
        sent = served.end();
    }
    let names = load.names.iter().filter(|name| name.digest().is_none());
    let names: Vec<String> = names.map(Reference::to_string).collect();
    if !names.is_empty() {
        let mut arguments = vec!["tag", id.as_str()];
        arguments.extend(names.iter().map(String::as_str));
        podman.run(&arguments).await?;
    }
    if let Some(moment) = moment {
        podman.run(&["untag", &id, &moment]).await?;
    }
    Ok(Loaded {
        sent,
        as_archive: false,
    })
}

/// Loads an image into containerd, into the namespace that `CONTAINERD_NAMESPACE` says.
pub(super) async fn load_containerd(load: Load<'_>) -> Result<Loaded, Error> {
    let ctr = Program {
        engine: "containerd",
        program: "ctr",
    };
    let filter = format!("target.digest=={}", load.root.digest);
    let listed = ctr.run(&["images", "list", "--quiet", &filter]).await?;
    let known = listed.lines().next().map(str::to_owned);
    let served = match known {
        Some(_) => None,
        None => Some(load.serve().await?),
    };
    let source = match (&known, &served) {
        (Some(known), _) => known.clone(),
        (None, Some(served)) => served.tagged(),
        (None, None) => return Ok(Loaded::default()),
    };
    if served.is_some() {
        ctr.run(&["images", "pull", "--plain-http", &source])
            .await?;
    }
    for name in load.names {
        let name = name.to_string();
        if name != source {
            ctr.run(&["images", "tag", "--force", &source, &name])
                .await?;
        }
    }
    let Some(served) = served else {
        return Ok(Loaded::default());
    };
    if !load.names.is_empty() {
        ctr.run(&["images", "remove", &source]).await?;
    }
    Ok(Loaded {
        sent: served.end(),
        as_archive: false,
    })
}

/// Hands the program `docker` an archive.
pub(super) async fn docker_load(load: Load<'_>, arguments: &[String]) -> Result<(), Error> {
    let cannot = |error| failed("docker", LoadError::Unreachable("docker".to_owned(), error));
    let mut child = std::process::Command::new("docker")
        .args(arguments)
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let (input, complaint) = (child.stdin.take(), child.stderr.take());
    let ended = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        if let Some(complaint) = complaint {
            // What is not text says nothing to anybody.
            let _ = complaint
                .take(COMPLAINT_BYTES_MAX)
                .read_to_string(&mut text);
        }
        Ok::<_, std::io::Error>((child.wait()?, text))
    });
    let written = match input {
        Some(input) => load.write_archive(Stream::new(input)).await,
        None => Ok(()),
    };
    let ended = ended
        .await
        .map_err(|error| Error::Thread(error.to_string()))?;
    match ended.map_err(cannot)? {
        (status, _) if status.success() => written,
        (_, complaint) => Err(failed("docker", complained(&complaint))),
    }
}

/// A program that speaks for an engine.
struct Program {
    engine: &'static str,
    program: &'static str,
}

impl Program {
    /// Runs the program and says whether it succeeded.
    async fn succeeds(&self, arguments: &[&str]) -> Result<bool, Error> {
        Ok(self.output(arguments).await?.status.success())
    }

    /// Runs the program and returns what it prints.
    async fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = self.output(arguments).await?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(failed(self.engine, complained(&complaint)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn output(&self, arguments: &[&str]) -> Result<std::process::Output, Error> {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.map_err(|error| {
            failed(
                self.engine,
                LoadError::Unreachable(self.program.to_owned(), error),
            )
        })
    }
}

/// Takes the line that says what is wrong: the last one.
fn complained(text: &str) -> LoadError {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("it failed without a message").trim();
    LoadError::Refused(line.to_owned())
}
