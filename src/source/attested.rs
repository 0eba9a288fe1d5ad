//! What is said about an image beside it, as a chain that can be verified from its root: the
//! index, the manifest with statements about the image of a platform, the signature of that
//! manifest, and the blobs that these name.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Error;
use super::image::{Images, PinnedImage, unusable};
use crate::oci::{Descriptor, Digest, Manifest, media_type};
use crate::progress::VertexProgress;
use crate::registry::document::{self, Document, INDEX_BYTES_MAX};

/// Most bytes of a whole chain: it must fit into one message.
const CHAIN_BYTES_MAX: u64 = 15 << 20;
/// Types of manifests that hold a signature, the one that counts first.
const SIGNATURES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
];
/// Annotation of a layer that names its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// What is said about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationChain {
    /// The index that the name of the image points at.
    pub root: Digest,
    /// The manifest of the image.
    pub image: Digest,
    /// The manifest with statements about it.
    pub statements: Option<Digest>,
    /// The manifest with the signature of that manifest.
    pub signature: Option<Digest>,
    /// Everything that the chain is verified with.
    pub blobs: BTreeMap<Digest, (Descriptor, Bytes)>,
}

impl Images {
    /// Reads what is said about an image, with the statements of these predicate types; `None` for
    /// one that is in no OCI index.
    pub async fn attestation_chain(
        &self,
        image: &PinnedImage,
        predicate_types: &[String],
        progress: &VertexProgress,
    ) -> Result<Option<AttestationChain>, Error> {
        if image.root.media_type != media_type::OCI_INDEX {
            return Ok(None);
        }
        let mut reading = Reading {
            images: self,
            image,
            progress,
            blobs: BTreeMap::new(),
            left_bytes: CHAIN_BYTES_MAX,
        };
        let bytes = reading.document(&image.root).await?;
        let Document::Index(index) = reading.parsed(&image.root, &bytes)? else {
            return Err(unusable(&image.reference, "its index is none"));
        };
        let own = &image.manifest_descriptor.digest;
        let mut entries = index.manifests.into_iter();
        let statements = entries.find(|entry| entry.attested().as_ref() == Some(own));
        let mut chain = AttestationChain {
            root: image.root.digest.clone(),
            image: own.clone(),
            statements: statements.as_ref().map(|entry| entry.digest.clone()),
            signature: None,
            blobs: BTreeMap::new(),
        };
        if let Some(statements) = statements {
            chain.signature = reading.follow(&statements, predicate_types).await?;
        }
        chain.blobs = reading.blobs;
        Ok(Some(chain))
    }
}

/// Reads the blobs of a chain.
struct Reading<'a> {
    images: &'a Images,
    image: &'a PinnedImage,
    progress: &'a VertexProgress,
    blobs: BTreeMap<Digest, (Descriptor, Bytes)>,
    left_bytes: u64,
}

impl Reading<'_> {
    /// Reads a manifest with statements, what signs it, and the statements that are wanted.
    async fn follow(
        &mut self,
        statements: &Descriptor,
        predicate_types: &[String],
    ) -> Result<Option<Digest>, Error> {
        let manifest = self.manifest(statements).await?;
        let signature = self.signature(&statements.digest).await?;
        if let Some(signature) = &signature {
            for layer in self.manifest(signature).await?.layers {
                self.blob(&layer).await?;
            }
        }
        for layer in manifest.layers {
            let kind = layer.annotations.get(PREDICATE_TYPE);
            if kind.is_some_and(|kind| !kind.is_empty() && predicate_types.contains(kind)) {
                self.blob(&layer).await?;
            }
        }
        Ok(signature.map(|signature| signature.digest))
    }

    /// Finds the signature of a manifest.
    async fn signature(&self, of: &Digest) -> Result<Option<Descriptor>, Error> {
        let referrers = self.images.client.referrers(&self.image.reference, of);
        let mut referrers = referrers.await?;
        let rank = |entry: &Descriptor| {
            let kind = entry.artifact_type.as_deref();
            SIGNATURES.iter().position(|known| Some(*known) == kind)
        };
        referrers.retain(|entry| rank(entry).is_some());
        // The first of those that are equally good.
        referrers.sort_by_key(|entry| rank(entry));
        Ok(referrers.into_iter().next())
    }

    async fn manifest(&mut self, descriptor: &Descriptor) -> Result<Manifest, Error> {
        let bytes = self.document(descriptor).await?;
        match self.parsed(descriptor, &bytes)? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => {
                let reason = format!("{} is an index", descriptor.digest);
                Err(unusable(&self.image.reference, &reason))
            }
        }
    }

    fn parsed(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, Error> {
        let parsed = document::parse(&descriptor.media_type, bytes);
        let (_, document) = parsed.map_err(|source| Error::Document {
            reference: self.image.reference.familiar(),
            source,
        })?;
        Ok(document)
    }

    /// Reads a manifest or index: from the local store, or else from the registry.
    async fn document(&mut self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        self.take(descriptor)?;
        let bytes = match self.images.local(descriptor, INDEX_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(_) => {
                let client = &self.images.client;
                let bytes = client.manifest(&self.image.reference, descriptor).await?;
                self.images.keep(bytes.clone()).await?;
                bytes
            }
        };
        self.add(descriptor, bytes.clone());
        Ok(bytes)
    }

    async fn blob(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        self.take(descriptor)?;
        let (reference, images) = (&self.image.reference, self.images);
        images.fetch(reference, descriptor, self.progress).await?;
        let bytes = images.local(descriptor, CHAIN_BYTES_MAX).await?;
        self.add(descriptor, bytes);
        Ok(())
    }

    fn add(&mut self, descriptor: &Descriptor, bytes: Bytes) {
        let added = (descriptor.clone(), bytes);
        self.blobs.insert(descriptor.digest.clone(), added);
    }

    /// Takes account of a blob before it is read.
    fn take(&mut self, descriptor: &Descriptor) -> Result<(), Error> {
        let left = self.left_bytes.checked_sub(descriptor.size);
        self.left_bytes = left.ok_or_else(|| {
            let reason = format!("what is said about it is larger than {CHAIN_BYTES_MAX} bytes");
            unusable(&self.image.reference, &reason)
        })?;
        Ok(())
    }
}
