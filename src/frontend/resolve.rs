//! The port through which the frontend asks about images: its only way out.

use std::collections::BTreeMap;

use futures::future::{BoxFuture, join_all};

use super::options::ResolveMode;
use crate::oci::{Digest, ImageConfig, ImageFile, Platform, Reference};

/// Looks up images; implemented where registries and stores are known.
pub trait ImageResolver: Send + Sync {
    /// Finds out which image a name means now, and its config for a platform.
    fn resolve<'a>(
        &'a self,
        request: &'a ImageRequest,
    ) -> BoxFuture<'a, Result<ResolvedImage, ResolveError>>;
}

/// A question to an [`ImageResolver`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// The image, with a tag or a digest.
    pub reference: Reference,
    /// The name without tag and digest, where it was written without a registry.
    pub short_name: Option<String>,
    /// The platform wanted.
    pub platform: RequestPlatform,
    /// Where to look.
    pub mode: ResolveMode,
    /// The OCI layout of the client to look into instead.
    pub oci_layout: Option<String>,
    /// The file or folder that is the image, if it exists or must be meant; otherwise
    /// `reference` counts.
    pub file: Option<ImageFile>,
    /// What the progress display calls the look-up.
    pub log_name: String,
}

/// A platform that can be a key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPlatform(pub Platform);

impl PartialOrd for RequestPlatform {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RequestPlatform {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

/// An answer of an [`ImageResolver`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// The name, perhaps another than was asked for: that of an image in a file, for one.
    pub reference: Reference,
    /// What the name means now: the digest of an index or of a manifest.
    pub digest: Digest,
    /// The config of the image for the platform.
    pub config: ImageConfig,
}

/// Says why an image cannot be looked up.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// What went wrong, in words for the user.
    pub message: String,
    /// Whether there is no such image, so that a mistyped name is likely.
    pub not_found: bool,
    /// Whether the mistake is in what the user gave, rather than with a registry.
    pub is_input: bool,
    /// What it was caused by.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ResolveError {
    /// Makes an error from its message.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            not_found: false,
            is_input: false,
            source: None,
        }
    }

    /// Says that there is no such image.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            not_found: true,
            ..Self::new(message)
        }
    }
}

/// Asks for all images at the same time; equal questions are asked once.
pub(super) async fn resolve_all(
    requests: impl IntoIterator<Item = ImageRequest>,
    resolver: &dyn ImageResolver,
) -> BTreeMap<ImageRequest, Result<ResolvedImage, ResolveError>> {
    let requests: std::collections::BTreeSet<ImageRequest> = requests.into_iter().collect();
    let answers = join_all(requests.iter().map(|request| resolver.resolve(request))).await;
    requests.into_iter().zip(answers).collect()
}
