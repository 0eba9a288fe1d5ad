//! What git knows about the folder that is built: labels, and members of provenance.

use std::path::{Path, PathBuf};

use super::caches;
use super::inputs::Inputs;
use super::request::BuildRequest;
use crate::attestation::without_credentials;
use crate::progress::Progress;
use crate::source::{WorkingTree, is_dirty};

/// Labels of the image, under buildx's and the OCI's names.
const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const ENTRYPOINT: &str = "com.docker.image.source.entrypoint";
/// What is added to the commit of a tree that holds something else.
const DIRTY: &str = "-dirty";

/// What git knows about the main build context.
#[derive(Debug)]
pub(super) struct Known {
    /// The working tree; its commit says so where the tree is dirty.
    tree: WorkingTree,
    /// The main build context.
    folder: PathBuf,
}

impl Known {
    /// Looks, where somebody wants to know and the main build context is a folder in a working
    /// tree.
    pub(super) async fn look(
        request: &BuildRequest,
        inputs: &Inputs,
        progress: &Progress,
    ) -> Option<Self> {
        let asked = &request.attestations;
        let tells = asked.git.info && (asked.provenance.is_some() || asked.reported.is_some());
        if !tells && !asked.git.labels {
            return None;
        }
        let folder = inputs.main_folder()?.to_owned();
        let mut tree = WorkingTree::around(&folder)?;
        if let Some(commit) = tree.commit.as_mut().filter(|_| asked.git.checks_dirty) {
            let dirty = is_dirty(&tree.root).await.unwrap_or_else(|reason| {
                let text = format!("the commit counts as {DIRTY}: {reason}");
                caches::warn(progress, &text);
                true
            });
            if dirty {
                commit.push_str(DIRTY);
            }
        }
        Some(Self { tree, folder })
    }

    /// Returns the labels of the image; `dockerfile` is a path on this machine.
    pub(super) fn labels(&self, dockerfile: Option<&Path>) -> Vec<(String, String)> {
        let source = self.tree.remote.as_deref().map(without_credentials);
        let labels = [
            (REVISION, self.tree.commit.clone()),
            (SOURCE, source),
            (ENTRYPOINT, dockerfile.and_then(|path| self.place_of(path))),
        ];
        let named = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
        labels.into_iter().filter_map(named).collect()
    }

    /// Returns what provenance tells.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let place = self.folder.strip_prefix(&self.tree.root);
        let place = place.unwrap_or(&self.folder).to_string_lossy().into_owned();
        let place = if place.is_empty() {
            ".".to_owned()
        } else {
            place
        };
        let facts = [
            ("source", self.tree.remote.clone()),
            ("revision", self.tree.commit.clone()),
            ("localdir:context", Some(place)),
        ];
        let told = facts.into_iter();
        told.filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// Returns where a file stands in the working tree.
    fn place_of(&self, file: &Path) -> Option<String> {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        let place = folder.join(file.file_name()?);
        let place = place.strip_prefix(&self.tree.root).ok()?;
        Some(place.to_string_lossy().into_owned())
    }
}
