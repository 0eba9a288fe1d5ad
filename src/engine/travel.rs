//! Cache mounts on their way from and to remote caches.
//!
//! Downloads begin with the build, one task for each mount of the definition that this machine
//! has no folder of; the step that has the mount waits for its own. Uploads begin when
//! the last step is done, beside the writing of the outputs, or after a failure: of the folders
//! that steps used. Each is bounded by the `timeout` of its cache, and what goes wrong is one
//! warning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::build::Build;
use super::caches::{Ready, warn};
use super::clock;
use crate::cache::mounts::listing::Listing;
use crate::cache::mounts::restore::restore;
use crate::cache::mounts::travel::{self, MountTravel};
use crate::cache::mounts::{MountFolder, folders};
use crate::cache::remote::RemoteStore;
use crate::content::ContentStore;
use crate::llb::{Vertex, pb};
use crate::oci::Digest;
use crate::progress::Progress;
use crate::worker::mount_source::MountSource;
use crate::worker::ops::exec::cache_id;

/// How far the clock of file systems may be behind ours.
const CLOCK_LAG_NS: i64 = 100_000_000;

/// One remote cache that cache mounts come from or go to.
#[derive(Debug, Clone)]
pub(super) struct MountRoute {
    /// The cache.
    pub(super) store: Arc<dyn RemoteStore>,
    /// Which mounts, under which key.
    pub(super) mounts: MountTravel,
    /// How long each may take.
    pub(super) timeout: Duration,
}

/// What a download will bring.
type Coming = Shared<BoxFuture<'static, Option<Arc<Listing>>>>;

/// Downloads on their way.
pub(super) struct MountDownloads {
    coming: BTreeMap<String, Coming>,
    content: ContentStore,
    progress: Progress,
}

impl fmt::Debug for MountDownloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountDownloads").finish_non_exhaustive()
    }
}

/// Lists the ids of the cache mounts that steps have.
pub(super) fn mount_ids(vertices: &[Vertex]) -> BTreeSet<String> {
    let mounts = vertices.iter().flat_map(|vertex| match &vertex.op {
        pb::op::Op::Exec(exec) => exec.mounts.as_slice(),
        _ => &[],
    });
    mounts
        .filter(|mount| mount.mount_type == pb::MountType::Cache as i32)
        .map(|mount| cache_id(mount).to_owned())
        .collect()
}

impl MountDownloads {
    /// Begins to fetch the mounts of a build that have no folder here. Call it in a runtime.
    pub(super) fn start(
        routes: Vec<MountRoute>,
        ids: BTreeSet<String>,
        mounts_dir: &Path,
        (content, progress): (&ContentStore, &Progress),
    ) -> Self {
        let here = folders::list(mounts_dir).unwrap_or_default();
        let here: BTreeSet<String> = here.into_iter().map(|folder| folder.full_id).collect();
        let routes = Arc::new(routes);
        let begin = |id: String| {
            let (routes, content) = (Arc::clone(&routes), content.clone());
            let (progress, name) = (progress.clone(), id.clone());
            let task = tokio::spawn(async move {
                let found = first_found(&routes, &name, &content, &progress).await;
                found.map(Arc::new)
            });
            // A task that panicked brings nothing.
            (id, task.map(|ended| ended.ok().flatten()).boxed().shared())
        };
        let wanted = |id: &String| {
            let shown = folders::shown_id(id);
            !here.contains(id) && routes.iter().any(|route| route.mounts.includes(shown))
        };
        Self {
            coming: ids.into_iter().filter(wanted).map(begin).collect(),
            content: content.clone(),
            progress: progress.clone(),
        }
    }
}

async fn first_found(
    routes: &[MountRoute],
    id: &str,
    content: &ContentStore,
    progress: &Progress,
) -> Option<Listing> {
    let shown = folders::shown_id(id);
    for route in routes.iter().filter(|route| route.mounts.includes(shown)) {
        let name = route.store.name();
        let download = travel::download(&*route.store, id, &route.mounts.keys, content);
        match tokio::time::timeout(route.timeout, download).await {
            Ok(Ok(Some(listing))) => return Some(listing),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => warn(
                progress,
                &format!("cache mount {shown} from {name}: {error}"),
            ),
            Err(_) => {
                let seconds = route.timeout.as_secs();
                warn(
                    progress,
                    &format!("cache mount {shown} from {name}: no answer within {seconds} s"),
                );
            }
        }
    }
    None
}

impl MountSource for MountDownloads {
    fn fill(&self, id: &str, folder: &Path) -> bool {
        let Some(coming) = self.coming.get(id).cloned() else {
            return false;
        };
        let id = folders::shown_id(id);
        let title = format!("[internal] restore the cache mount {id}");
        let vertex = self.progress.of_vertex(Digest::of(title.as_bytes()));
        vertex.start(&title);
        let listing = tokio::runtime::Handle::current().block_on(coming);
        let restored = listing.map(|listing| restore(&listing, &self.content, folder));
        let is_filled = match restored {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                warn(
                    &self.progress,
                    &format!("cache mount {id} is not used: {error}"),
                );
                // Half of it is worth nothing: the folder is made anew, or the step says why not.
                let _ = std::fs::remove_dir_all(folder);
                let _ = std::fs::create_dir(folder);
                false
            }
        };
        vertex.complete(None);
        is_filled
    }
}

/// Puts the folders that steps used since `since_ns` where they are wanted.
pub(super) async fn upload_mounts(
    routes: &[MountRoute],
    (mounts_dir, content): (&Path, &ContentStore),
    since_ns: i64,
    progress: &Progress,
) {
    // A folder of its own, beside the one that everybody wants, is somebody's second best.
    let is_used = |folder: &MountFolder| folder.number == 0 && folder.last_used_ns >= since_ns;
    let folders = folders::list(mounts_dir).unwrap_or_default();
    for folder in folders.into_iter().filter(is_used) {
        let wanted: Vec<&MountRoute> = routes
            .iter()
            .filter(|route| route.mounts.includes(&folder.id))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let Ok(Some(_alone)) = folder.lock() else {
            let text = format!("cache mount {} is in use and stays here", folder.id);
            warn(progress, &text);
            continue;
        };
        let title = format!("exporting cache mount {}", folder.id);
        let vertex = progress.of_vertex(Digest::of(title.as_bytes()));
        vertex.start(&title);
        for route in wanted {
            let now_ms = u64::try_from(clock::now_ns() / 1_000_000).unwrap_or(0);
            let what = (folder.full_id.as_str(), folder.path.as_path());
            let keys = &route.mounts.keys;
            let upload = travel::upload(&*route.store, what, keys, content, now_ms);
            let name = route.store.name();
            match tokio::time::timeout(route.timeout, upload).await {
                Ok(Ok(uploaded)) => {
                    vertex.status(&name, "uploaded", uploaded.bytes, uploaded.bytes, true);
                }
                Ok(Err(error)) => {
                    warn(
                        progress,
                        &format!("cache mount {} to {name}: {error}", folder.id),
                    );
                }
                Err(_) => {
                    let seconds = route.timeout.as_secs();
                    let text = format!(
                        "cache mount {} to {name}: not done within {seconds} s",
                        folder.id
                    );
                    warn(progress, &text);
                }
            }
        }
        vertex.complete(None);
    }
}

impl Build {
    /// Begins to fetch the cache mounts of the steps; `None` where nobody is to be asked.
    pub(super) fn start_mounts(
        &self,
        vertices: &[Vertex],
        ready: &Ready,
    ) -> Option<Arc<MountDownloads>> {
        let imports = self.request.cache_from.iter().enumerate();
        let routes = imports.filter_map(|(number, import)| {
            Some(MountRoute {
                mounts: import.mounts.clone()?,
                store: ready.import_store(number)?,
                timeout: import.timeout,
            })
        });
        let routes: Vec<MountRoute> = routes.collect();
        if routes.is_empty() {
            return None;
        }
        let (mounts_dir, ids) = (self.engine.dir("cache/mounts"), mount_ids(vertices));
        let tools = (&self.engine.content, &self.progress);
        let downloads = MountDownloads::start(routes, ids, &mounts_dir, tools);
        Some(Arc::new(downloads))
    }

    /// Lists the caches that cache mounts go to.
    pub(super) fn mount_exports(&self, ready: &Ready) -> Vec<MountRoute> {
        let exports = self.request.cache_to.iter().enumerate();
        let routes = exports.filter_map(|(number, export)| {
            Some(MountRoute {
                mounts: export.mounts.clone()?,
                store: ready.export_store(number)?,
                timeout: export.timeout,
            })
        });
        routes.collect()
    }

    /// Gives away the cache mounts that steps used since the build began.
    pub(super) async fn give_mounts(&self, routes: &[MountRoute], since_ns: i64) {
        if !routes.is_empty() {
            let places = (self.engine.dir("cache/mounts"), &self.engine.content);
            let places = (places.0.as_path(), places.1);
            let since_ns = since_ns - CLOCK_LAG_NS;
            tokio::select! {
                () = upload_mounts(routes, places, since_ns, &self.progress) => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }
}
