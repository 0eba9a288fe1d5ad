//! An image of the content store into a container engine on this machine.
//!
//! The engine pulls it: from a registry that this process is for the moment, on a loopback port
//! and in a repository nobody can guess ([`serve`]). So only the layers it lacks travel, and it
//! checks and stores them as it always does. Afterwards the image gets its names and loses that
//! of the moment. An image that the engine has gets its names, nothing else happens.
//!
//! | engine | spoken to | where it cannot reach this process |
//! |---|---|---|
//! | docker | its API on a socket ([`docker`]) | gets an archive |
//! | docker elsewhere | the program `docker` | gets an archive |
//! | podman | the program `podman` ([`programs`]) | fails |
//! | containerd | the program `ctr` ([`programs`]) | fails |
//!
//! Deliberately absent: which engine is meant (the front end decides), and the environment.

mod docker;
mod programs;
mod serve;

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::bundle::{self, ArchiveForm, ArchivedImage, Bundle};
use super::output::{ArchiveDestination, Destination, Stream};
use super::{Error, layout};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Reference};
use crate::progress::VertexProgress;

use serve::Served;

/// A container engine that takes images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadTarget {
    /// docker, through its API on this socket.
    DockerSocket(PathBuf),
    /// docker behind the program `docker`, called with these arguments first: `--context NAME`.
    DockerProgram(Vec<String>),
    /// podman.
    Podman,
    /// containerd.
    Containerd,
}

impl LoadTarget {
    /// Returns the engine's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DockerSocket(_) | Self::DockerProgram(_) => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        }
    }
}

/// Says why an engine did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine cannot be spoken to.
    #[error("cannot reach {0}")]
    Unreachable(String, #[source] io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[from] hyper::Error),
    /// The engine refused.
    #[error("{0}")]
    Refused(String),
    /// A request could not be made.
    #[error("malformed request")]
    Request(#[from] hyper::http::Error),
    /// The moment's registry cannot listen.
    #[error("cannot listen on a loopback port")]
    Listen(#[source] io::Error),
}

/// An image on its way into an engine.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// Where its blobs are.
    pub content: &'a ContentStore,
    /// Its manifest; not an index.
    pub root: &'a Descriptor,
    /// The names it gets.
    pub names: &'a [Reference],
    /// The step that shows the progress.
    pub vertex: &'a VertexProgress,
    /// Stops it.
    pub cancel: &'a CancellationToken,
}

/// What came of a load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The blobs that travelled one by one; none where the engine had the image.
    pub sent: Vec<Digest>,
    /// Whether everything travelled as one archive.
    pub as_archive: bool,
}

/// Has an engine take an image.
pub async fn load(load: Load<'_>, target: &LoadTarget) -> Result<Loaded, Error> {
    let line = format!("loading into {}", target.name());
    load.vertex.status(&line, "", 0, 0, false);
    let loading = async {
        match target {
            LoadTarget::DockerSocket(socket) => docker::load(load, socket).await,
            LoadTarget::DockerProgram(arguments) => archive_to_program(load, arguments).await,
            LoadTarget::Podman => programs::load_podman(load).await,
            LoadTarget::Containerd => programs::load_containerd(load).await,
        }
    };
    let loaded = tokio::select! {
        loaded = loading => loaded?,
        () = load.cancel.cancelled() => return Err(Error::Cancelled),
    };
    load.vertex.status(&line, "", 0, 0, true);
    Ok(loaded)
}

impl Load<'_> {
    fn manifest(&self) -> Result<Manifest, Error> {
        bundle::read_manifest(self.content, self.root)
    }

    /// Becomes a registry of this image.
    async fn serve(&self) -> Result<Served, Error> {
        let manifest = self.manifest()?;
        let blobs = manifest.layers.iter().chain([&manifest.config]).cloned();
        Served::start(
            self.content.clone(),
            self.root,
            blobs.collect(),
            self.vertex,
        )
        .await
        .map_err(|source| failed("registry", LoadError::Listen(source)))
    }

    /// Writes the image as `docker load` takes it; blocks until somebody has read it all.
    async fn write_archive(&self, stream: Stream) -> Result<(), Error> {
        let images = [ArchivedImage {
            root: self.root.clone(),
            names: self.names.to_vec(),
        }];
        let (content, vertex) = (self.content.clone(), self.vertex.clone());
        let cancel = self.cancel.clone();
        let written = tokio::task::spawn_blocking(move || {
            let platform = Platform::host();
            let bundle = Bundle::collect(&content, &images, ArchiveForm::Docker, &platform)?;
            let target = ArchiveDestination::Tar(Destination::Stream(stream));
            layout::write(&bundle, &content, &target, &vertex, &cancel)
        });
        written
            .await
            .map_err(|error| Error::Thread(error.to_string()))?
    }
}

/// Hands the program `docker` an archive.
async fn archive_to_program(load: Load<'_>, arguments: &[String]) -> Result<Loaded, Error> {
    programs::docker_load(load, arguments).await?;
    Ok(Loaded {
        sent: Vec::new(),
        as_archive: true,
    })
}

fn failed(engine: &'static str, source: LoadError) -> Error {
    Error::Load { engine, source }
}
