//! Images from the content store into a registry: only what is missing.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::auth::Scopes;
use super::document::{self, Document, INDEX_BYTES_MAX, INDEX_DEPTH_MAX};
use super::http::protocol;
use super::pull::Report;
use super::retry::Tries;
use super::upload::{Pushed, Upload};
use super::{Client, Error};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Reference, media_type};
use crate::progress::VertexProgress;

/// After how many refusals of a manifest whose blobs are unknown the blobs are brought again.
const BROUGHT_AGAIN_EVERY: u32 = 3;
/// Most repositories that a registry is asked to take one blob from.
const MOUNTS_MAX: usize = 2;

/// How a blob may come into a repository.
#[derive(Clone, Copy)]
struct Ways<'a> {
    /// A repository on the same registry that may have it.
    mount_from: Option<&'a str>,
    /// Whether it is known not to be there, so that nobody need ask.
    is_new: bool,
}

impl Client {
    /// Puts a blob into the repository of `reference`, unless it is there. `mount_from` is a
    /// repository on the same registry that may have it. A blob that is on its way already is
    /// waited for.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &ContentStore,
        mount_from: Option<&str>,
        progress: &VertexProgress,
    ) -> Result<Pushed, Error> {
        let ways = Ways {
            mount_from,
            is_new: false,
        };
        self.bring_blob(reference, descriptor, store, ways, progress)
            .await
    }

    /// Puts a blob into the repository of `reference` that whoever calls knows not to be there:
    /// nobody asks first.
    pub async fn push_new_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<Pushed, Error> {
        let ways = Ways {
            mount_from: None,
            is_new: true,
        };
        self.bring_blob(reference, descriptor, store, ways, progress)
            .await
    }

    async fn bring_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &ContentStore,
        ways: Ways<'_>,
        progress: &VertexProgress,
    ) -> Result<Pushed, Error> {
        let repository = reference.name();
        let flight = self.flight(&repository, &descriptor.digest);
        let _turn = flight.lock().await;
        if self.knows(&repository, &descriptor.digest) {
            return Ok(Pushed::Present);
        }
        let site = self.site(reference).await?;
        let scopes = Scopes::repository(&site.repository, "pull,push");
        let mut upload = Upload::new(self, &site, reference, descriptor, store, progress);
        let mounts = mounts(reference, descriptor, store, ways.mount_from);
        let pushed = if upload.mount(&mounts).await? {
            Pushed::Mounted
        } else if !ways.is_new && self.has_blob(&site, reference, descriptor, &scopes).await? {
            upload.cancel().await;
            Pushed::Present
        } else {
            self.provide(descriptor, store, progress).await?;
            let _permit = self.shared.uploads.acquire().await;
            upload.send().await?;
            Pushed::Uploaded
        };
        if !ways.is_new && pushed != Pushed::Uploaded {
            Report::new(progress, descriptor, pushed.word()).done();
        }
        self.remember(&repository, &descriptor.digest);
        store.note_origin(&descriptor.digest, &repository)?;
        Ok(pushed)
    }

    /// Fetches a blob that is only known to be elsewhere.
    async fn provide(
        &self,
        descriptor: &Descriptor,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        if store.contains(&descriptor.digest) {
            return Ok(());
        }
        let mut failure = None;
        for origin in store.origins(&descriptor.digest) {
            let Ok(origin) = origin.parse::<Reference>() else {
                continue;
            };
            match self.fetch_blob(&origin, descriptor, store, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        // Without an origin whoever opens the blob says that it is missing.
        failure.map_or(Ok(()), Err)
    }

    /// Puts a manifest or index with everything it points at into a registry. The name in
    /// `reference` is written last, so a push that fails leaves no tag.
    pub async fn push_image(
        &self,
        reference: &Reference,
        root: &Descriptor,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<Descriptor, Error> {
        let parts = self.parts(reference, root, store).await?;
        // A registry that has the document has what it points at: it was checked then.
        if self.has_document(reference, root).await? {
            if reference.digest() == Some(&root.digest) {
                return Ok(root.clone());
            }
            let named = self.push_manifest(reference, &root.media_type, &parts.root);
            match named.await {
                Err(error) if error.is_part_unknown() => {}
                other => return other,
            }
        }
        let mut tries = Tries::new(&self.shared.options.retry);
        let mut unknown = 0;
        loop {
            match self
                .push_parts(reference, root, &parts, store, progress)
                .await
            {
                // Pushed by somebody else at this very moment, which passes if nobody brings it
                // again; or collected since we asked.
                Err(error) if error.is_part_unknown() => {
                    unknown += 1;
                    if unknown % BROUGHT_AGAIN_EVERY == 0 {
                        self.forget_repository(&reference.name());
                    }
                    if !tries.again(None).await {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// Pushes the blobs, then the documents, each after those that it points at.
    async fn push_parts(
        &self,
        reference: &Reference,
        root: &Descriptor,
        parts: &Parts,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<Descriptor, Error> {
        let mut blobs: Vec<&Descriptor> = parts.blobs.iter().collect();
        // The largest first: they decide how long it takes.
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let pushes: FuturesUnordered<_> = blobs
            .into_iter()
            .map(|blob| self.push_blob(reference, blob, store, None, progress))
            .collect();
        // What can be brought there is brought, also when something else cannot.
        let results: Vec<Result<Pushed, Error>> = pushes.collect().await;
        for result in results {
            result?;
        }
        for (descriptor, bytes) in &parts.documents {
            let pinned = reference.clone().with_digest(descriptor.digest.clone());
            self.push_manifest(&pinned, &descriptor.media_type, bytes)
                .await?;
        }
        self.push_manifest(reference, &root.media_type, &parts.root)
            .await
    }

    /// Says whether a repository has a manifest or index; what cannot be found out counts as no.
    async fn has_document(&self, reference: &Reference, root: &Descriptor) -> Result<bool, Error> {
        let site = self.site(reference).await?;
        let pinned = reference.clone().with_digest(root.digest.clone());
        let found = self.head_document(&site, &pinned, "pull,push").await;
        match found {
            Ok(found) => Ok(found.is_some_and(|found| found.digest == root.digest)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) if error.is_access() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Reads the documents of an image and lists its blobs.
    async fn parts(
        &self,
        reference: &Reference,
        root: &Descriptor,
        store: &ContentStore,
    ) -> Result<Parts, Error> {
        let (store, root) = (store.clone(), root.clone());
        let what = reference.familiar();
        let read = tokio::task::spawn_blocking(move || {
            let mut parts = Parts::default();
            parts.root = parts.add(&what, &root, &store, 0)?;
            Ok(parts)
        });
        match read.await {
            Ok(result) => result,
            Err(error) => Err(protocol(&reference.familiar(), &error.to_string())),
        }
    }
}

/// Lists repositories on the same registry that were seen to have a blob.
fn mounts(
    reference: &Reference,
    descriptor: &Descriptor,
    store: &ContentStore,
    given: Option<&str>,
) -> Vec<String> {
    let prefix = format!("{}/", reference.domain());
    let origins = store.origins(&descriptor.digest);
    // The latest first: it is the least likely to have lost it.
    let seen = origins.iter().rev();
    let seen = seen.filter_map(|name| name.strip_prefix(&prefix));
    let mut paths: Vec<String> = Vec::new();
    for path in given.into_iter().chain(seen) {
        if path != reference.path() && !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
    }
    paths.truncate(MOUNTS_MAX);
    paths
}

impl Pushed {
    fn word(self) -> &'static str {
        match self {
            Self::Present => "exists",
            Self::Mounted => "mounted",
            Self::Uploaded => "pushing",
        }
    }
}

/// What a push consists of.
#[derive(Default)]
struct Parts {
    blobs: Vec<Descriptor>,
    /// Documents below the root, each after those that it points at.
    documents: Vec<(Descriptor, Vec<u8>)>,
    root: Vec<u8>,
}

impl Parts {
    fn add(
        &mut self,
        what: &str,
        descriptor: &Descriptor,
        store: &ContentStore,
        depth: u32,
    ) -> Result<Vec<u8>, Error> {
        let bytes = store.read(descriptor, INDEX_BYTES_MAX)?;
        let (_, document) =
            document::parse(&descriptor.media_type, &bytes).map_err(|source| Error::Document {
                what: what.to_owned(),
                source,
            })?;
        match document {
            Document::Manifest(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    let known = self.blobs.iter().any(|known| known.digest == blob.digest);
                    // Layers that must not be redistributed stay where they are.
                    if !known && !media_type::is_foreign(&blob.media_type) {
                        self.blobs.push(blob.clone());
                    }
                }
            }
            Document::Index(_) if depth >= INDEX_DEPTH_MAX => {
                let reason = format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}");
                return Err(protocol(what, &reason));
            }
            Document::Index(index) => {
                for child in index.manifests {
                    // Platforms that were not pulled are not there to be pushed.
                    let known = self.documents.iter().any(|(d, _)| d.digest == child.digest);
                    if known || !store.contains(&child.digest) {
                        continue;
                    }
                    let bytes = self.add(what, &child, store, depth + 1)?;
                    self.documents.push((child, bytes));
                }
            }
        }
        Ok(bytes)
    }
}
