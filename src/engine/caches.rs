//! Remote caches of one build that it takes from, and the way to those that it gives to
//! ([`giving`](super::giving)).
//!
//! Reading begins with the build, beside the translation of the Dockerfile, and is waited for
//! before the first step; each cache has its time. What goes wrong is one warning for each cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::error::Elapsed;

use super::build::Build;
use crate::cache::remote::backend::{Direction, seal};
use crate::cache::remote::buildkit::{self, Chains};
use crate::cache::remote::merge::Known;
use crate::cache::remote::{
    CacheFormat, CacheImport, CachePlace, Coordination, FaultKind, Imports, Index, LocalStore,
    RegistryStore, RemoteStore, StoreError, read_index,
};
use crate::content::ContentStore;
use crate::llb::Loaded;
use crate::oci::Digest;
use crate::progress::{Event, Progress, Warning};
use crate::registry::Client;

/// How long a server may take to say what it can, before an export.
const REACH_TIMEOUT: Duration = Duration::from_secs(20);

/// Caches that are being read, and those to give to that are being reached.
pub(super) struct Importing {
    reads: JoinSet<Option<Read>>,
    exports: JoinSet<(usize, Reached)>,
}

/// What was read of a store: its index, and caches in BuildKit's format instead.
type Contents = (Known<Index>, Vec<Chains>);

/// A store of an export, or why it cannot be reached.
pub(super) type Reached = Result<Arc<dyn RemoteStore>, StoreError>;

/// What there is before the first step.
pub(super) struct Ready {
    /// The caches that were read.
    pub(super) imports: Arc<Imports>,
    /// Caches in BuildKit's format, with where they lie.
    chains: Vec<(Arc<dyn RemoteStore>, Chains)>,
    /// The stores that the build takes from, by place.
    stores: BTreeMap<usize, Arc<dyn RemoteStore>>,
    /// The stores of the exports that do not go into the image, by place.
    pub(super) exports: BTreeMap<usize, Reached>,
}

/// A cache while it is read: its place among the others and its name.
struct Reading<'a> {
    number: usize,
    name: &'a str,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Says what came of it, and warns where that is nothing.
    fn ended(
        self,
        reached: Option<Arc<dyn RemoteStore>>,
        known: Result<Result<Contents, StoreError>, Elapsed>,
        timeout: Duration,
    ) -> Option<Read> {
        let name = self.name;
        let (store, known, chains) = match (reached, known) {
            (Some(store), Ok(Ok((known, chains)))) => {
                // Where records are looked up one by one, nothing is known yet.
                let listed = store.coordination() != Coordination::Keyed && chains.is_empty();
                if listed && known.version.is_none() && known.value.is_empty() {
                    warn(self.progress, &format!("cache {name}: there is none yet"));
                }
                (store, Some(known), chains)
            }
            (reached, failed) => {
                let text = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {}", seconds(timeout)),
                };
                let text = text.trim_start_matches(&format!("{name}: "));
                let text = format!("cache {name} is not used: {text}");
                warn(self.progress, &text);
                (reached?, None, Vec::new())
            }
        };
        Some(Read {
            number: self.number,
            store,
            known,
            chains,
        })
    }
}

/// A store that was reached, with its place among the others, and what its index says if that
/// could be read.
struct Read {
    number: usize,
    store: Arc<dyn RemoteStore>,
    known: Option<Known<Index>>,
    chains: Vec<Chains>,
}

impl Ready {
    /// Has the steps of the build looked up in caches of BuildKit's, if there are any.
    ///
    /// `writes` says whether a cache is to be written in its format.
    pub(super) fn look_up(&mut self, loaded: &Loaded, writes: bool) {
        let chains = std::mem::take(&mut self.chains);
        if writes || !chains.is_empty() {
            let keys = buildkit::Keys::new(&loaded.vertices, chains);
            self.imports.set_buildkit(keys);
        }
    }

    /// Returns the store of the import at a place; `None` where it could not be reached.
    pub(super) fn import_store(&self, number: usize) -> Option<Arc<dyn RemoteStore>> {
        self.stores.get(&number).cloned()
    }

    /// Returns the store of the export at a place; `None` where it could not be reached.
    pub(super) fn export_store(&self, number: usize) -> Option<Arc<dyn RemoteStore>> {
        self.exports.get(&number)?.as_ref().ok().cloned()
    }
}

impl Importing {
    /// Waits for what is being read.
    pub(super) async fn finish(mut self) -> Ready {
        let imports = Arc::new(Imports::default());
        let (mut stores, mut read) = (BTreeMap::new(), BTreeMap::new());
        let mut by_place = BTreeMap::new();
        while let Some(ended) = self.reads.join_next().await {
            // A task that panicked is a cache that says nothing.
            if let Ok(Some(Read {
                number,
                store,
                known,
                chains,
            })) = ended
            {
                by_place.insert(number, (Arc::clone(&store), chains));
                read.extend(known.map(|known| (number, (Arc::clone(&store), known))));
                stores.insert(number, store);
            }
        }
        for (store, known) in read.into_values() {
            imports.add(store, known);
        }
        let mut exports = BTreeMap::new();
        while let Some(ended) = self.exports.join_next().await {
            exports.extend(ended);
        }
        let chains = by_place.into_values().flat_map(|(store, chains)| {
            let chains = chains.into_iter();
            chains.map(move |chains| (Arc::clone(&store), chains))
        });
        Ready {
            imports,
            chains: chains.collect(),
            stores,
            exports,
        }
    }
}

/// Reads caches.
pub(super) struct CacheReader {
    pub(super) client: Client,
    pub(super) content: ContentStore,
    pub(super) progress: Progress,
}

impl CacheReader {
    /// Reads what these caches know; each that cannot be read is a warning.
    pub(super) async fn read(&self, caches: &[CacheImport]) -> Arc<Imports> {
        let importing = Importing {
            reads: self.start(caches),
            exports: JoinSet::new(),
        };
        importing.finish().await.imports
    }

    /// Begins to read caches.
    fn start(&self, caches: &[CacheImport]) -> JoinSet<Option<Read>> {
        let mut reads = JoinSet::new();
        for (number, import) in caches.iter().enumerate() {
            warn_of_notes(&import.place, &self.progress);
            let near = self.near_store(&import.place);
            let name = match (&near, &import.place) {
                (Some(store), _) => store.name(),
                (None, CachePlace::Backend(backend)) => backend.name(),
                (None, _) => continue,
            };
            let (client, content) = (self.client.clone(), self.content.clone());
            let (progress, import) = (self.progress.clone(), import.clone());
            reads.spawn(async move {
                let title = format!("importing cache manifest from {name}");
                let vertex = progress.of_vertex(Digest::of(title.as_bytes()));
                vertex.start(&title);
                let timeout = import.timeout;
                let reading = Reading {
                    number,
                    name: &name,
                    progress: &progress,
                };
                let mut reached = None;
                let read = async {
                    let store = reach(near, &import.place, &client, Direction::Import).await?;
                    let store = seal::wrap(store, &import.seal, Direction::Import)?;
                    let store = reached.insert(store);
                    let known = read_index(&**store, &content, &vertex).await?;
                    let chains = match known.value.is_empty() {
                        true => store.read_buildkit().await?,
                        false => Vec::new(),
                    };
                    Ok((known, chains))
                };
                let known = tokio::time::timeout(timeout, read).await;
                let read = reading.ended(reached, known, timeout);
                vertex.complete(None);
                read
            });
        }
        reads
    }

    /// Makes a store of which everything is known before it is asked.
    fn near_store(&self, place: &CachePlace) -> Option<Arc<dyn RemoteStore>> {
        match place {
            CachePlace::Registry { reference, .. } => Some(Arc::new(RegistryStore::new(
                self.client.clone(),
                reference.clone(),
                self.content.clone(),
            ))),
            CachePlace::Local { .. } => Some(Arc::new(LocalStore::new(place)?)),
            CachePlace::Inline | CachePlace::Backend(_) => None,
        }
    }
}

impl Build {
    /// Begins to read the caches that the build takes from.
    pub(super) fn start_imports(&self) -> Importing {
        Importing {
            reads: self.cache_reader().start(&self.request.cache_from),
            exports: self.reach_exports(),
        }
    }

    fn cache_reader(&self) -> CacheReader {
        CacheReader {
            client: self.client.clone(),
            content: self.engine.content.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Begins to reach the stores that the build gives to.
    fn reach_exports(&self) -> JoinSet<(usize, Reached)> {
        let (mut exports, reader) = (JoinSet::new(), self.cache_reader());
        for (number, export) in self.request.cache_to.iter().enumerate() {
            if export.place == CachePlace::Inline {
                continue;
            }
            warn_of_notes(&export.place, &self.progress);
            let near = reader.near_store(&export.place);
            let (client, export) = (self.client.clone(), export.clone());
            exports.spawn(async move {
                // A cache in BuildKit's format is written by one exporter at a time.
                let direction = match export.format {
                    CacheFormat::Cooper => Direction::Export,
                    CacheFormat::BuildKit { .. } => Direction::Import,
                };
                let reached = reach(near, &export.place, &client, direction);
                let reached = match tokio::time::timeout(REACH_TIMEOUT, reached).await {
                    Ok(reached) => reached,
                    Err(_) => {
                        let text = format!("no answer within {}", seconds(REACH_TIMEOUT));
                        Err(StoreError::new(FaultKind::Transient, text))
                    }
                };
                let wrap = |store| seal::wrap(store, &export.seal, Direction::Export);
                (number, reached.and_then(wrap))
            });
        }
        exports
    }
}

/// Reaches a store; asks the server what it can where that is to be known.
async fn reach(
    near: Option<Arc<dyn RemoteStore>>,
    place: &CachePlace,
    client: &Client,
    direction: Direction,
) -> Reached {
    match (near, place) {
        (Some(store), _) => Ok(store),
        (None, CachePlace::Backend(backend)) => backend.open(client, direction).await,
        (None, _) => Err(StoreError::new(FaultKind::Permanent, "there is no store")),
    }
}

fn warn_of_notes(place: &CachePlace, progress: &Progress) {
    if let CachePlace::Backend(backend) = place {
        for note in backend.notes() {
            warn(progress, note);
        }
    }
}

pub(super) fn title(place: &CachePlace) -> String {
    let title = match place {
        CachePlace::Backend(backend) => return format!("exporting cache to {}", backend.service()),
        CachePlace::Registry { .. } => "exporting cache to registry",
        CachePlace::Local { .. } => "exporting cache to client directory",
        CachePlace::Inline => "preparing inline build cache",
    };
    title.to_owned()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

pub(super) fn warn(progress: &Progress, short: &str) {
    progress.send(Event::Warning(Warning {
        short: short.to_owned(),
        ..Warning::default()
    }));
}
