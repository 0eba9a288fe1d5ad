//! Files that a build needs before it is known: the Dockerfile in a context behind a URL.
//!
//! They are solved for like everything else, with the ops that the Dockerfile will use too: what
//! is fetched here is in the cache when the build wants it, and pinned to the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::gc::room::Keeper;
use super::policy::Guard;
use super::request::{BucketObject, BuildRequest, CacheModes};
use crate::cache::remote::FaultKind;
use crate::executor::Resources;
use crate::frontend::diagnostic::Source;
use crate::frontend::{self, ContextSource, FrontendOptions};
use crate::llb::Definition;
use crate::oci::{Descriptor, Digest, Platform};
use crate::progress::Progress;
use crate::session::Session;
use crate::snapshot::{LayerId, View};
use crate::solver::{self, SolveOptions};
use crate::source::local::is_archive;
use crate::source::{Images, Repositories, WebFiles};
use crate::worker::{Ahead, ImageLayers, LocalWorker, WorkerOptions};

/// Bytes of a file that are looked at to tell an archive from a Dockerfile.
const HEAD_BYTES: u64 = 1024;

/// What is at hand before the build.
pub(super) struct Setup<'a> {
    /// The store and all that works on it.
    pub(super) engine: &'a Engine,
    /// Judges sources before they are used.
    pub(super) guard: &'a Guard,
    /// Finds images.
    pub(super) images: &'a Images,
    /// Finds web files; a URL means the same here and in the build.
    pub(super) web_files: &'a WebFiles,
    /// Finds commits; a branch means the same here and in the build.
    pub(super) repositories: &'a Repositories,
    /// The platform to build for.
    pub(super) platform: Platform,
    /// Where fetching is shown.
    pub(super) progress: &'a Progress,
    /// Ends it.
    pub(super) cancel: &'a CancellationToken,
}

impl Setup<'_> {
    /// Fetches the main build context, and finds out whether a file is an archive of it.
    pub(super) async fn open(
        &self,
        session: &Arc<Session>,
        request: &BuildRequest,
        source: ContextSource,
    ) -> Result<(ContextSource, View), EngineError> {
        let view = self.files(session, request, &source).await?;
        match source {
            ContextSource::Http { url, unpack: false } if begins_archive(&view)? => {
                let source = ContextSource::Http { url, unpack: true };
                let view = self.files(session, request, &source).await?;
                Ok((source, view))
            }
            source => Ok((source, view)),
        }
    }

    /// Fetches an object of a bucket into the store.
    pub(super) async fn keep_object(
        &self,
        session: &Session,
        object: &BucketObject,
    ) -> Result<Descriptor, EngineError> {
        let url = object.url();
        let judged = self.guard.judge_input(url.to_string(), &self.platform);
        judged.await?;
        let step = self.progress.of_vertex(Digest::of(url.as_bytes()));
        step.start(&format!("[internal] load build context {url}"));
        let client = self.engine.registry(session, Vec::new());
        let kept = tokio::select! {
            kept = object.fetch(&client, &self.engine.content) => kept.map_err(|error| {
                let kind = match error.kind {
                    FaultKind::Missing => ErrorKind::User,
                    _ => ErrorKind::Registry,
                };
                let text = format!("cannot read the build context: {error}");
                EngineError::new(kind, text).with_source(error)
            }),
            () = self.cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(kept.as_ref().err().map(ToString::to_string));
        kept
    }

    /// Fetches the files behind a URL and shows them.
    pub(super) async fn files(
        &self,
        session: &Arc<Session>,
        request: &BuildRequest,
        source: &ContextSource,
    ) -> Result<View, EngineError> {
        let definition = source
            .remote_definition(&request.build_args, request.source_date_epoch_s)
            .map_err(|error| EngineError::new(ErrorKind::User, error.to_string()))?;
        self.solved(session, definition).await
    }

    /// Tells the time of what `SOURCE_DATE_EPOCH` names: that of a commit, that of the last
    /// change as a server knows it, or that of the newest file of an archive.
    pub(super) async fn named_epoch(
        &self,
        session: &Arc<Session>,
        dockerfile: &Source,
        options: &FrontendOptions,
    ) -> Result<Option<i64>, EngineError> {
        let source = frontend::epoch_source(&dockerfile.text, options);
        let source = source.map_err(|error| EngineError::from_frontend(error, dockerfile))?;
        let Some(source) = source else {
            return Ok(None);
        };
        let view = self.solved(session, source.files).await?;
        let time_s = newest_file(view.path()).map_err(unreadable)?;
        let Some(archive) = source.unpacked else {
            return Ok(time_s);
        };
        // Without an answer of the server a download has the time 0.
        if time_s.is_some_and(|time_s| time_s != 0) {
            return Ok(time_s);
        }
        if !begins_archive(&view)? {
            return Ok(None);
        }
        let view = self.solved(session, archive).await?;
        newest_file(view.path()).map_err(unreadable)
    }

    async fn solved(
        &self,
        session: &Arc<Session>,
        definition: Definition,
    ) -> Result<View, EngineError> {
        let definitions = [self.guard.judge_definition(definition).await?];
        let worker = self.worker(session);
        let options = SolveOptions::new(clock::now_ns());
        let (progress, cancel) = (self.progress.clone(), self.cancel.clone());
        let cache = &self.engine.cache;
        let solved = solver::solve(&definitions, worker, cache, progress, options, cancel).await;
        let solved = solved.map_err(|error| from_solve(error, &definitions))?;
        let outputs = solved.results.iter().filter_map(|r| r.output.as_ref());
        let layers: Vec<LayerId> = outputs.flat_map(|o| o.layers().to_vec()).collect();
        Ok(self.engine.snapshots.view(&layers)?)
    }

    pub(super) fn worker(&self, session: &Arc<Session>) -> Arc<LocalWorker> {
        let engine = self.engine;
        let layers = ImageLayers::new(
            engine.snapshots.clone(),
            engine.content.clone(),
            self.images.clone(),
        );
        Arc::new(LocalWorker::new(WorkerOptions {
            mount_source: None,
            nested: None,
            failed: None,
            narrows_folders: false,
            room: Arc::new(Keeper::new(engine, &Progress::silent())),
            content: engine.content.clone(),
            snapshots: engine.snapshots.clone(),
            executor: Arc::clone(&engine.executor),
            session: Arc::clone(session),
            images: self.images.clone(),
            web_files: self.web_files.clone(),
            repositories: self.repositories.clone(),
            layers: Arc::new(layers),
            imports: Arc::default(),
            cache_mounts: engine.dir("cache/mounts"),
            copies: engine.dir("cache/copies"),
            stat_caches: engine.dir("cache/stat"),
            scratch: engine.dir("tmp"),
            shm_size_bytes: 0,
            resources: Resources::default(),
            devices: Arc::default(),
            device_aliases: BTreeMap::new(),
            image_steps: std::iter::empty().collect(),
            ahead: Ahead::new(&[]),
            arguments: BTreeSet::new(),
            modes: CacheModes::default(),
            compression: None,
            on_layer: None,
            now_ns: clock::now_ns,
        }))
    }
}

/// Says whether the user or the Dockerfile may name a source whose time counts.
pub(super) fn may_name_epoch(request: &BuildRequest, dockerfile: &str) -> bool {
    request.build_args.contains_key(frontend::EPOCH)
        || request.source_date_epoch_s.is_none() && dockerfile.contains(frontend::EPOCH)
}

/// Finds the time of the newest file below a folder, in seconds since 1970. Folders do not
/// count: those that an archive does not name are as old as their unpacking.
fn newest_file(folder: &Path) -> io::Result<Option<i64>> {
    let mut newest = None;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                newest = newest.max(Some(metadata.mtime()));
            }
        }
    }
    Ok(newest)
}

fn unreadable(error: io::Error) -> EngineError {
    let text = format!("cannot read the build context: {error}");
    EngineError::new(ErrorKind::Config, text).with_source(error)
}

/// Reads the URL of a build context.
pub(super) fn source(url: &str) -> Result<ContextSource, EngineError> {
    let parsed = url.parse::<ContextSource>();
    parsed.map_err(|error| EngineError::new(ErrorKind::User, error.to_string()).with_source(error))
}

/// Writes a stream into the store.
pub(super) async fn keep_stream(
    engine: &Engine,
    mut reader: Box<dyn Read + Send>,
) -> Result<Descriptor, EngineError> {
    let content = engine.content.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let mut ingest = content.ingest()?;
        std::io::copy(&mut reader, &mut ingest).map_err(|error| {
            let text = format!("cannot read the build context: {error}");
            EngineError::new(ErrorKind::User, text).with_source(error)
        })?;
        let (digest, size) = ingest.commit(None)?;
        Ok(Descriptor::new("", digest, size))
    });
    match kept.await {
        Ok(kept) => kept,
        Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
    }
}

fn begins_archive(view: &View) -> Result<bool, EngineError> {
    let path = view.path().join(ContextSource::HTTP_FILE);
    let mut head = Vec::new();
    let mut read = || {
        std::fs::File::open(&path)?
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
    };
    read().map_err(|error| {
        let text = format!("cannot read what was downloaded: {error}");
        EngineError::new(ErrorKind::Config, text).with_source(error)
    })?;
    Ok(is_archive(&head))
}

/// Says why fetching failed; there is no Dockerfile yet in which it has a place.
fn from_solve(error: solver::SolveError, definitions: &[Definition]) -> EngineError {
    let mut error = EngineError::from_solve(error, definitions);
    error.step = None;
    error
}
