//! Indexes: images of several platforms under one name, in the local store or in registries.
//!
//! An index of the local store is changed by writing it anew. Of an image that is in a registry
//! only the documents are fetched; its layers are noted to be there, so that a push to the same
//! registry mounts them, and to another one fetches them.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::error::{EngineError, ErrorKind};
use super::images::parse;
use super::request::PushRequest;
use super::{CONFIG_BYTES_MAX, Engine, MANIFEST_BYTES_MAX};
use crate::content::ContentStore;
use crate::oci::{
    Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type,
};
use crate::progress::{Progress, VertexProgress};
use crate::registry::Client;
use crate::registry::document::{self, Document};
use crate::session::Session;
use crate::solver::error::chain;

/// Deepest nesting of indexes.
const DEPTH_MAX: u32 = 4;

/// Which images of what is an index itself are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one for this machine.
    #[default]
    Host,
    /// All of them.
    All,
    /// Those for some platforms.
    Platforms(Vec<Platform>),
}

/// What is said about an image of an index, where something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryChange {
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system.
    pub os_features: Vec<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl EntryChange {
    fn apply(&self, entry: &mut Descriptor) {
        entry.annotations.extend(self.annotations.clone());
        let mut platform = entry.platform.clone().unwrap_or_else(Platform::host);
        let before = platform.clone();
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut platform.os, &self.os);
        set(&mut platform.architecture, &self.architecture);
        set(&mut platform.variant, &self.variant);
        set(&mut platform.os_version, &self.os_version);
        if !self.os_features.is_empty() {
            platform.os_features.clone_from(&self.os_features);
        }
        if platform != before {
            entry.platform = Some(platform);
        }
    }
}

/// What an index is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingredients {
    /// Images of the local store, or else of registries.
    pub images: Vec<String>,
    /// Which of their images.
    pub choice: Choice,
    /// What is said about them.
    pub change: EntryChange,
    /// Descriptors that are taken as they are.
    pub descriptors: Vec<Descriptor>,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
}

impl Engine {
    /// Makes an index under a name, or adds to the one that is there where `amend` says so.
    pub async fn create_index(
        &self,
        name: &Reference,
        ingredients: &Ingredients,
        amend: bool,
        session: &Session,
    ) -> Result<Descriptor, EngineError> {
        let known = self.content.images().resolve(name)?;
        let index = match (known, amend) {
            (None, _) => Index::default(),
            (Some(_), true) => self.index(name)?,
            (Some(_), false) => {
                let text = format!("{} is there already", name.familiar());
                let error = EngineError::new(ErrorKind::User, text);
                return Err(error.with_hint("--amend adds to it, `manifest rm` removes it"));
            }
        };
        let index = self.mixed(index, ingredients, session).await?;
        self.keep_index(name, &index)
    }

    /// Adds images to an index of the local store.
    pub async fn add_to_index(
        &self,
        name: &Reference,
        ingredients: &Ingredients,
        session: &Session,
    ) -> Result<Descriptor, EngineError> {
        let index = self.index(name)?;
        let index = self.mixed(index, ingredients, session).await?;
        self.keep_index(name, &index)
    }

    /// Changes what an index says about an image, or about itself where none is named.
    pub fn annotate_index(
        &self,
        name: &Reference,
        image: Option<&str>,
        change: &EntryChange,
    ) -> Result<Descriptor, EngineError> {
        let mut index = self.index(name)?;
        match image {
            None => index.annotations.extend(change.annotations.clone()),
            Some(image) => {
                let at = self.position(&index, name, image)?;
                change.apply(&mut index.manifests[at]);
            }
        }
        self.keep_index(name, &index)
    }

    /// Takes an image out of an index.
    pub fn remove_from_index(
        &self,
        name: &Reference,
        image: &str,
    ) -> Result<Descriptor, EngineError> {
        let mut index = self.index(name)?;
        let at = self.position(&index, name, image)?;
        index.manifests.remove(at);
        self.keep_index(name, &index)
    }

    /// Says whether a name of the local store is an index.
    pub fn is_index(&self, name: &Reference) -> Result<bool, EngineError> {
        let found = self.content.images().resolve(name)?;
        Ok(found.is_some_and(|root| media_type::is_index(&root.media_type)))
    }

    /// Takes away the name of an index.
    pub fn remove_index(&self, name: &Reference) -> Result<(), EngineError> {
        self.index(name)?;
        self.content.images().untag(name)?;
        Ok(())
    }

    /// Reads the document that a name means: in the local store where `local` says so and it is
    /// there, else in its registry. Returns what it is, too.
    pub async fn raw_document(
        &self,
        name: &Reference,
        local: bool,
        session: &Session,
    ) -> Result<(Descriptor, Vec<u8>), EngineError> {
        if local && let Some(root) = self.content.images().resolve(name)? {
            let bytes = self.content.read(&root, MANIFEST_BYTES_MAX)?;
            return Ok((root, bytes));
        }
        let client = self.registry(session, Vec::new());
        let (root, bytes) = client.resolve(name).await.map_err(refused)?;
        Ok((root, bytes.to_vec()))
    }

    /// Pushes an index of the local store under a name.
    pub async fn push_index(
        &self,
        name: &Reference,
        destination: &Reference,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Descriptor, EngineError> {
        self.index(name)?;
        if destination != name {
            self.tag(&name.to_string(), destination)?;
        }
        let request = PushRequest {
            references: vec![destination.clone()],
            join: None,
            encryption: None,
        };
        let pushed = self.push(request, session, progress, cancel).await;
        if destination != name {
            self.content.images().untag(destination)?;
        }
        let pushed = pushed?.into_iter().next();
        pushed.ok_or_else(|| EngineError::new(ErrorKind::Internal, "nothing was pushed"))
    }

    /// Makes an index out of images in registries; with `append` also out of what the first name
    /// means now.
    pub async fn remote_index(
        &self,
        names: &[Reference],
        ingredients: &Ingredients,
        append: bool,
        session: &Session,
    ) -> Result<Index, EngineError> {
        let mut index = Index::default();
        if let (true, Some(first)) = (append, names.first()) {
            let client = self.registry(session, Vec::new());
            let entries = fetch(&client, &self.content, first, &Choice::All).await?;
            index.manifests = entries;
        }
        self.mixed(index, ingredients, session).await
    }

    /// Pushes an index that has no name in the local store.
    pub async fn push_remote_index(
        &self,
        index: &Index,
        names: &[Reference],
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Descriptor, EngineError> {
        let root = put(&self.content, index)?;
        let client = self.registry(session, Vec::new());
        let step = progress.of_vertex(Digest::of(b"push index"));
        step.start("pushing index");
        let work = async {
            for name in names {
                let pushing = client.push_image(name, &root, &self.content, &step);
                pushing.await.map_err(refused)?;
            }
            Ok(root.clone())
        };
        let pushed = tokio::select! {
            pushed = work => pushed,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(pushed.as_ref().err().map(ToString::to_string));
        pushed
    }

    /// Adds to an index.
    async fn mixed(
        &self,
        mut index: Index,
        ingredients: &Ingredients,
        session: &Session,
    ) -> Result<Index, EngineError> {
        let client = self.registry(session, Vec::new());
        for image in &ingredients.images {
            let entries = self.entries(image, &ingredients.choice, &client).await?;
            for mut entry in entries {
                ingredients.change.apply(&mut entry);
                insert(&mut index, entry);
            }
        }
        for entry in &ingredients.descriptors {
            insert(&mut index, entry.clone());
        }
        index.annotations.extend(ingredients.annotations.clone());
        Ok(index)
    }

    /// Finds what a name brings into an index.
    async fn entries(
        &self,
        image: &str,
        choice: &Choice,
        client: &Client,
    ) -> Result<Vec<Descriptor>, EngineError> {
        let name = image.strip_prefix("docker://").unwrap_or(image);
        let is_remote = name != image;
        if !is_remote && let Ok(root) = self.find(name) {
            return chosen(&self.content, &root, choice, name, DEPTH_MAX);
        }
        let reference: Reference = name
            .parse()
            .map_err(|error| EngineError::new(ErrorKind::User, format!("{error}")))?;
        fetch(client, &self.content, &reference.with_default_tag(), choice).await
    }

    fn index(&self, name: &Reference) -> Result<Index, EngineError> {
        let Some(root) = self.content.images().resolve(name)? else {
            let text = format!("no such index: {}", name.familiar());
            let error = EngineError::new(ErrorKind::User, text);
            return Err(error.with_hint("`cooper manifest create` makes one"));
        };
        if !media_type::is_index(&root.media_type) {
            let text = format!("{} is an image, not an index", name.familiar());
            return Err(EngineError::new(ErrorKind::User, text));
        }
        parse(
            "index",
            &root,
            &self.content.read(&root, MANIFEST_BYTES_MAX)?,
        )
    }

    fn keep_index(&self, name: &Reference, index: &Index) -> Result<Descriptor, EngineError> {
        let root = put(&self.content, index)?;
        self.content.images().tag(name, &root)?;
        Ok(root)
    }

    /// Finds an image in an index by digest, or by the name it has in the local store.
    fn position(&self, index: &Index, name: &Reference, image: &str) -> Result<usize, EngineError> {
        let digest = match image
            .rsplit_once('@')
            .map_or(image, |(_, digest)| digest)
            .parse()
        {
            Ok(digest) => Some(digest),
            Err(_) => self.find(image).ok().map(|root| root.digest),
        };
        let at = index
            .manifests
            .iter()
            .position(|entry| Some(&entry.digest) == digest.as_ref());
        at.ok_or_else(|| {
            let text = format!("{} has no image {image}", name.familiar());
            EngineError::new(ErrorKind::User, text)
                .with_hint("`cooper manifest inspect` shows the digests it has")
        })
    }
}

/// Puts an entry in, in the place of one for the same image.
fn insert(index: &mut Index, entry: Descriptor) {
    let same = index
        .manifests
        .iter_mut()
        .find(|known| known.digest == entry.digest);
    match same {
        Some(known) => *known = entry,
        None => index.manifests.push(entry),
    }
}

fn put(content: &ContentStore, index: &Index) -> Result<Descriptor, EngineError> {
    let bytes = serde_json::to_vec_pretty(index)
        .map_err(|error| EngineError::new(ErrorKind::Internal, error.to_string()))?;
    content.put(&bytes)?;
    Ok(Descriptor::of(&index.media_type, &bytes))
}

fn refused(error: crate::registry::Error) -> EngineError {
    EngineError::new(ErrorKind::Registry, chain(&error)).with_source(error)
}

/// Fetches the documents of an image that is in a registry and chooses from them.
async fn fetch(
    client: &Client,
    content: &ContentStore,
    reference: &Reference,
    choice: &Choice,
) -> Result<Vec<Descriptor>, EngineError> {
    let (root, bytes) = client.resolve(reference).await.map_err(refused)?;
    let mut pending = vec![(root.clone(), bytes, DEPTH_MAX)];
    while let Some((descriptor, bytes, depth)) = pending.pop() {
        content.put(&bytes)?;
        let parsed = document::parse(&descriptor.media_type, &bytes);
        let (_, parsed) = parsed.map_err(|error| {
            let text = format!("{}: {error}", reference.familiar());
            EngineError::new(ErrorKind::Registry, text)
        })?;
        match parsed {
            Document::Manifest(manifest) => {
                let blobs = manifest.layers.iter().chain([&manifest.config]);
                for blob in blobs {
                    content.note_origin(&blob.digest, &reference.name())?;
                }
                if manifest.config.size <= CONFIG_BYTES_MAX {
                    let silent = VertexProgress::silent();
                    let config = client.fetch_blob(reference, &manifest.config, content, &silent);
                    config.await.map_err(refused)?;
                }
            }
            Document::Index(_) if depth == 0 => {
                let text = format!(
                    "{}: its indexes are nested too deeply",
                    reference.familiar()
                );
                return Err(EngineError::new(ErrorKind::Registry, text));
            }
            Document::Index(index) => {
                for child in index.manifests.into_iter().filter(|c| wanted(c, choice)) {
                    let bytes = client.manifest(reference, &child).await.map_err(refused)?;
                    pending.push((child, bytes, depth - 1));
                }
            }
        }
    }
    chosen(content, &root, choice, &reference.familiar(), DEPTH_MAX)
}

/// Says whether an entry of an index may be one of the chosen.
fn wanted(entry: &Descriptor, choice: &Choice) -> bool {
    let suits = |wanted: &Platform| match &entry.platform {
        Some(offered) => wanted.rank(offered).is_some(),
        None => true,
    };
    match choice {
        Choice::All => true,
        Choice::Host => suits(&Platform::host()),
        Choice::Platforms(platforms) => platforms.iter().any(suits),
    }
}

/// Lists the images behind a descriptor that are chosen, with their platforms.
fn chosen(
    content: &ContentStore,
    root: &Descriptor,
    choice: &Choice,
    name: &str,
    depth: u32,
) -> Result<Vec<Descriptor>, EngineError> {
    let bytes = content.read(root, MANIFEST_BYTES_MAX)?;
    if !media_type::is_index(&root.media_type) {
        let mut entry = root.clone();
        if entry.platform.is_none() {
            let manifest: Manifest = parse("manifest", root, &bytes)?;
            let config = content.read(&manifest.config, CONFIG_BYTES_MAX);
            let config = config
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let config: Option<ImageConfig> = config;
            let platform = config.map(|config| config.platform().normalized());
            entry.platform = platform.filter(|platform| !platform.os.is_empty());
        }
        return Ok(vec![entry]);
    }
    let index: Index = parse("index", root, &bytes)?;
    let here = |entry: &Descriptor| content.contains(&entry.digest);
    let mut candidates: Vec<Descriptor> = index.manifests;
    candidates.retain(|entry| here(entry) && wanted(entry, choice));
    if *choice == Choice::Host {
        // The best of those that suit.
        let host = Platform::host();
        let rank = |entry: &Descriptor| {
            let platform = entry.platform.as_ref();
            platform.map_or(Some(u32::MAX), |platform| host.rank(platform))
        };
        candidates.sort_by_key(rank);
        candidates.truncate(1);
    }
    if candidates.is_empty() {
        let text = format!("{name} has no image for the platforms that are wanted");
        return Err(EngineError::new(ErrorKind::User, text));
    }
    let mut entries = Vec::new();
    for candidate in candidates {
        if media_type::is_index(&candidate.media_type) && depth > 0 {
            entries.extend(chosen(content, &candidate, choice, name, depth - 1)?);
        } else {
            entries.push(candidate);
        }
    }
    Ok(entries)
}
