//! Images that come as one archive or folder: OCI layouts and what `docker save` writes.
//!
//! Every file of the archive becomes a blob of the store, verified where its name is a digest.
//! An archive of the older docker form has no manifests: they are made from its
//! `manifest.json`, with the layers as they are.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::archive::{self, ArchiveError, EntryKind, Format, TarReader};
use crate::content::{self, ContentStore};
use crate::oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};

/// Largest `index.json` or `manifest.json` that is read.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Most files an archive may hold.
const FILES_MAX: usize = 100_000;
/// Annotation with the full reference, as containerd and BuildKit write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with the tag or name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Says why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Neither an OCI layout nor a docker archive.
    #[error(
        "neither an OCI layout nor a docker archive: it has no index.json and no manifest.json"
    )]
    NotAnImage,
    /// A document in it cannot be read.
    #[error("{name} in the archive cannot be read: {reason}")]
    Document {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Something it refers to is not in it.
    #[error("the archive refers to {0}, which is not in it")]
    Missing(String),
    /// No image in it has the name.
    #[error("it holds no image {wanted:?}; it holds {}", listed(offered))]
    NoSuchImage {
        /// The name.
        wanted: String,
        /// The names there are.
        offered: Vec<String>,
    },
    /// It holds several images.
    #[error("it holds several images, so one must be named: {}", listed(offered))]
    SeveralImages {
        /// The names there are.
        offered: Vec<String>,
    },
    /// Too many files.
    #[error("the archive has more than {FILES_MAX} files")]
    TooManyFiles,
    /// The store refused a blob.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// The archive is malformed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive cannot be read.
    #[error("cannot read the archive: {0}")]
    Io(#[from] io::Error),
}

impl BundleError {
    /// Says that an image cannot be found by `name`, or that one of several must be named.
    pub(super) fn no_such_image(name: Option<&str>, offered: Vec<String>) -> Self {
        match name {
            Some(name) => Self::NoSuchImage {
                wanted: name.to_owned(),
                offered,
            },
            None => Self::SeveralImages { offered },
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "images without names".to_owned(),
        names => names.join(", "),
    }
}

/// An image that was loaded, with the names the archive gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its names; none where the archive has none.
    pub names: Vec<Reference>,
    /// What the archive's index calls it, name or bare tag.
    pub label: Option<String>,
}

impl LoadedImage {
    /// Chooses one of the images of an archive: by its name or label, by its number (`@1`), or
    /// the only one.
    pub fn choose(mut images: Vec<Self>, name: Option<&str>) -> Result<Self, BundleError> {
        let index = match name {
            None if images.len() == 1 => Some(0),
            None => None,
            Some(name) => match name.strip_prefix('@').map(str::parse::<usize>) {
                Some(Ok(number)) => Some(number).filter(|number| *number < images.len()),
                _ => images.iter().position(|image| image.is_called(name)),
            },
        };
        match index {
            Some(index) => Ok(images.swap_remove(index)),
            None => {
                let offered = images.iter().flat_map(Self::all_names).collect();
                Err(BundleError::no_such_image(name, offered))
            }
        }
    }

    fn is_called(&self, name: &str) -> bool {
        let reference = name.parse().map(Reference::with_default_tag).ok();
        self.label.as_deref() == Some(name)
            || reference.is_some_and(|reference| self.names.contains(&reference))
    }

    fn all_names(&self) -> Vec<String> {
        let names = self.names.iter().map(Reference::familiar);
        let label = self.label.iter().filter(|_| self.names.is_empty());
        names.chain(label.cloned()).collect()
    }
}

/// One image of a docker archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What was read of an archive: its documents, and where its other files went.
#[derive(Debug, Default)]
struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<String, (Digest, u64)>,
    links: BTreeMap<String, String>,
}

/// Loads the images of a tar archive, maybe compressed.
pub fn load_stream(
    mut reader: impl Read + Send,
    store: &ContentStore,
) -> Result<Vec<LoadedImage>, BundleError> {
    let mut contents = Contents::default();
    let mut head = Vec::new();
    reader
        .by_ref()
        .take(Format::DETECT_BYTES as u64)
        .read_to_end(&mut head)?;
    let format = Format::detect(&head);
    let whole = io::BufReader::new(io::Cursor::new(head).chain(reader));
    let mut tar = TarReader::new(archive::decoder(whole, format)?);
    let mut count = 0;
    while let Some(entry) = tar.next_entry()? {
        count += 1;
        if count > FILES_MAX {
            return Err(BundleError::TooManyFiles);
        }
        let name = plain_name(&entry.path);
        match entry.kind {
            EntryKind::Regular => contents.take(name, &mut EntryData(&mut tar), store)?,
            EntryKind::Symlink(target) => {
                let base = Path::new(&name)
                    .parent()
                    .unwrap_or(Path::new(""))
                    .to_owned();
                contents.links.insert(name, plain_name(&base.join(target)));
            }
            EntryKind::HardLink(target) => {
                contents.links.insert(name, plain_name(&target));
            }
            _ => {}
        }
    }
    contents.images(store)
}

/// The bytes of the entry that a tar reader stands at.
struct EntryData<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for EntryData<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}

/// Loads the images of a folder that is an OCI layout.
pub fn load_folder(folder: &Path, store: &ContentStore) -> Result<Vec<LoadedImage>, BundleError> {
    let mut contents = Contents::default();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        for entry in std::fs::read_dir(folder.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                let mut file = std::fs::File::open(entry.path())?;
                contents.take(plain_name(&path), &mut file, store)?;
            }
        }
    }
    contents.images(store)
}

impl Contents {
    fn take(
        &mut self,
        name: String,
        reader: &mut impl Read,
        store: &ContentStore,
    ) -> Result<(), BundleError> {
        if ["index.json", "manifest.json", "oci-layout", "repositories"].contains(&name.as_str()) {
            let mut bytes = Vec::new();
            reader
                .take(DOCUMENT_BYTES_MAX + 1)
                .read_to_end(&mut bytes)?;
            if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                let reason = format!("it is larger than {DOCUMENT_BYTES_MAX} bytes");
                return Err(BundleError::Document { name, reason });
            }
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let mut ingest = store.ingest()?;
        io::copy(reader, &mut ingest)?;
        let size_bytes = ingest.written_bytes();
        let expected = name
            .strip_prefix("blobs/sha256/")
            .and_then(|hex| format!("sha256:{hex}").parse().ok())
            .map(|digest: Digest| Descriptor::new("", digest, size_bytes));
        let stored = ingest.commit(expected.as_ref())?;
        self.files.insert(name, stored);
        Ok(())
    }

    fn file(&self, name: &str) -> Result<&(Digest, u64), BundleError> {
        let mut name = name;
        for _ in 0..10 {
            if let Some(file) = self.files.get(name) {
                return Ok(file);
            }
            match self.links.get(name) {
                Some(target) => name = target,
                None => break,
            }
        }
        Err(BundleError::Missing(name.to_owned()))
    }

    fn images(self, store: &ContentStore) -> Result<Vec<LoadedImage>, BundleError> {
        let docker = match self.documents.get("manifest.json") {
            Some(bytes) => parse::<Vec<DockerEntry>>("manifest.json", bytes)?,
            None => Vec::new(),
        };
        let Some(index) = self.documents.get("index.json") else {
            if docker.is_empty() {
                return Err(BundleError::NotAnImage);
            }
            return docker
                .iter()
                .map(|entry| self.docker_image(entry, store))
                .collect();
        };
        let index: Index = parse("index.json", index)?;
        let only = index.manifests.len() == 1;
        let mut images: Vec<LoadedImage> = Vec::new();
        for mut descriptor in index.manifests {
            if !store.contains(&descriptor.digest) {
                return Err(BundleError::Missing(descriptor.digest.to_string()));
            }
            let mut names = names_of(&descriptor);
            if names.is_empty() && only {
                names = docker.iter().flat_map(repo_tags).collect();
            }
            let label = descriptor.annotations.get(REF_NAME).cloned();
            descriptor.annotations.clear();
            match images
                .iter_mut()
                .find(|image| image.descriptor.digest == descriptor.digest)
            {
                Some(image) => image.names.extend(names),
                None => images.push(LoadedImage {
                    descriptor,
                    names,
                    label,
                }),
            }
        }
        Ok(images)
    }

    /// Makes the manifest that an older docker archive lacks.
    fn docker_image(
        &self,
        entry: &DockerEntry,
        store: &ContentStore,
    ) -> Result<LoadedImage, BundleError> {
        let (config, config_size) = self.file(&entry.config)?.clone();
        let mut layers = Vec::new();
        for layer in &entry.layers {
            let (digest, size) = self.file(layer)?.clone();
            let mut magic = [0; 4];
            let got = std::fs::File::open(store.path(&digest))?.read(&mut magic)?;
            let kind = match &magic[..got] {
                [0x1f, 0x8b, ..] => media_type::DOCKER_LAYER_GZIP,
                [0x28, 0xb5, 0x2f, 0xfd] => media_type::DOCKER_LAYER_ZSTD,
                _ => media_type::DOCKER_LAYER,
            };
            layers.push(Descriptor::new(kind, digest, size));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            artifact_type: None,
            config: Descriptor::new(media_type::DOCKER_CONFIG, config, config_size),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(io::Error::from)?;
        store.put(&bytes)?;
        let descriptor = Descriptor::of(media_type::DOCKER_MANIFEST, &bytes);
        Ok(LoadedImage {
            descriptor,
            names: repo_tags(entry),
            label: None,
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, BundleError> {
    serde_json::from_slice(bytes).map_err(|error| BundleError::Document {
        name: name.to_owned(),
        reason: error.to_string(),
    })
}

fn repo_tags(entry: &DockerEntry) -> Vec<Reference> {
    entry
        .repo_tags
        .iter()
        .flatten()
        .filter_map(|tag| tag.parse().ok())
        .collect()
}

/// Reads the name that an index gives a manifest: containerd's full one, or a bare reference.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let full = annotation(FULL_NAME).and_then(|name| name.parse().ok());
    let named = || {
        let name = annotation(REF_NAME)?;
        // A bare tag (`1.0`) is no name of an image.
        if name.contains(['/', ':']) {
            name.parse().ok()
        } else {
            None
        }
    };
    full.or_else(named)
        .map(Reference::with_default_tag)
        .into_iter()
        .collect()
}

/// Writes a path without `.` and with `..` resolved, so that one file has one name.
fn plain_name(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}
