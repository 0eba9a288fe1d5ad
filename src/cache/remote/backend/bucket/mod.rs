//! `type=s3`, `type=azblob` and `type=gcs`: a bucket or container, through opendal.
//!
//! ```text
//! [PREFIX]manifests/NAME.cooper/<name>   an object, as `envelope` writes it
//! [PREFIX]manifests/NAME                 a cache in BuildKit's format (`buildkit`)
//! [PREFIX]blobs/sha256:<hex>             a blob
//! ```
//!
//! These are the places of BuildKit's own caches, so that both can use one bucket. The
//! attributes are BuildKit's, too (`settings`). Blobs that go on being used are kept young
//! (`touch`), so that a rule of the bucket may delete old objects.

mod buildkit;
mod settings;
mod touch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::options::{ListOptions, WriteOptions};
use opendal::{ErrorKind, HttpTransporter, Metadata, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use tokio::sync::Semaphore;

pub(super) use self::settings::Settings;
use super::envelope::{self, ENVELOPE_BYTES_MAX};
use super::transfer::{Incoming, Outgoing, Report, Stranger, claim};
use super::{Direction, coordinate};
use crate::cache::remote::buildkit::{Chains, Written};
use crate::cache::remote::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest};
use crate::progress::VertexProgress;
use crate::registry::Client;

/// Smallest part of an upload; S3 takes no smaller ones.
const PART_BYTES: u64 = 5 << 20;
/// Most parts of an upload; S3 takes 10 000.
const PARTS_MAX: u64 = 9000;
/// Parts of one blob that are under way at a time.
const PARTS_AT_ONCE: usize = 2;
/// How long one request may take, a transfer apart.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a transfer may stand still.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause before a request is tried again; doubled for each further try.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

impl Settings {
    /// Connects, and finds out how writers keep out of each other's way there.
    pub(super) async fn open(
        self,
        client: &Client,
        direction: Direction,
    ) -> Result<Arc<dyn RemoteStore>, StoreError> {
        let operator = self.connected(&self.place(), client)?;
        let store = BucketStore {
            uploads: Semaphore::new(self.uploads_at_once),
            settings: self,
            operator,
            coordination: OnceLock::new(),
            kept: Mutex::default(),
        };
        let found = coordinate::find_out(&store, direction).await?;
        let _ = store.coordination.set(found);
        Ok(Arc::new(store))
    }

    /// Copies an object, wherever in the bucket it lies, into the store; `place` is what people
    /// call it, and its path.
    pub(super) async fn fetch_object(
        &self,
        (name, path): (&str, &str),
        client: &Client,
        into: &ContentStore,
    ) -> Result<Descriptor, StoreError> {
        let failed = |error: opendal::Error| fault(name, &error);
        let operator = self.connected(name, client)?;
        let reader = operator.reader(path).await.map_err(failed)?;
        let mut stream = reader.into_bytes_stream(..).await.map_err(failed)?;
        let mut stranger = Stranger::start(into).await?;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| broken(name, &error))?;
            stranger.push(piece).await;
        }
        stranger.finish().await
    }

    /// Connects; `place` is what people call it.
    fn connected(&self, place: &str, client: &Client) -> Result<Operator, StoreError> {
        let failed = |error: opendal::Error| fault(place, &error);
        let url = reqwest::Url::parse(&self.endpoint())
            .map_err(|error| StoreError::new(FaultKind::Permanent, format!("{place}: {error}")))?;
        let connections = client.http().connections(&url);
        let connections = connections.map_err(super::faults::of_registry)?;
        let transport = HttpTransporter::new(ReqwestTransport::new(connections));
        let operator = self.operator().map_err(failed)?;
        Ok(operator
            .with_context(OperationContext::default().with_http_transport(transport))
            .layer(
                TimeoutLayer::new()
                    .with_timeout(REQUEST_TIMEOUT)
                    .with_io_timeout(STALL_TIMEOUT),
            )
            .layer(
                RetryLayer::new()
                    .with_max_times(self.attempts_max - 1)
                    .with_min_delay(FIRST_PAUSE)
                    .with_jitter(),
            ))
    }
}

/// A bucket.
struct BucketStore {
    settings: Settings,
    operator: Operator,
    uploads: Semaphore,
    coordination: OnceLock<Coordination>,
    /// Blobs that were found there.
    kept: Mutex<BTreeSet<Digest>>,
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl BucketStore {
    fn fault(&self, error: &opendal::Error) -> StoreError {
        fault(&self.settings.place(), error)
    }

    /// Reads what lies at a path, whole, with its version; `None` where nothing does.
    async fn read_whole(
        &self,
        path: &str,
        bytes_max: usize,
    ) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        let reader = self.operator.reader(path).await;
        let reader = reader.map_err(|error| self.fault(&error))?;
        let mut stream = match reader.clone().into_bytes_stream(..).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.fault(&error)),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => match of_stream(&error) {
                    Some(ErrorKind::NotFound) => return Ok(None),
                    _ => return Err(self.broken(error)),
                },
            }
            if bytes.len() > bytes_max {
                let text = format!("{path} is larger than {bytes_max} bytes");
                return Err(StoreError::new(FaultKind::Permanent, text));
            }
        }
        let metadata = reader.metadata();
        let version = metadata.map(|found| self.version_of(found));
        let version = version.unwrap_or_default();
        Ok(Some((bytes, version)))
    }

    async fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        let path = self.settings.object_path(0, name);
        let read = self.read_whole(&path, ENVELOPE_BYTES_MAX).await?;
        // Anything else than an envelope counts as an empty one, which an exporter replaces.
        Ok(read.map(|(bytes, version)| Stored {
            object: envelope::decode(&bytes.into()).unwrap_or_default(),
            version: Version(version),
        }))
    }

    async fn write_object(
        &self,
        name: &ObjectName,
        object: &Object,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let bytes = envelope::encode(object)
            .map_err(|error| StoreError::new(FaultKind::Permanent, error))?;
        let options = self.options(condition)?;
        let path = self.settings.object_path(0, name);
        let written = self.operator.write_options(&path, bytes.clone(), options);
        let metadata = written.await.map_err(|error| self.fault(&error))?;
        // Each further name of the cache gets a copy of what lies under the first.
        for index in 1..self.settings.names.len() {
            let path = self.settings.object_path(index, name);
            let copied = self
                .operator
                .write_options(&path, bytes.clone(), plain_options());
            copied.await.map_err(|error| self.fault(&error))?;
        }
        Ok(Version(self.version_of(&metadata)))
    }

    /// Says whether conditions are about entity tags, and not about generations.
    fn compares_tags(&self) -> bool {
        self.operator.info().capability().write_with_if_match
    }

    /// Returns what conditions tell versions apart by.
    fn version_of(&self, metadata: &Metadata) -> String {
        let version = match self.compares_tags() {
            true => metadata.etag(),
            false => metadata.version(),
        };
        version.unwrap_or_default().to_owned()
    }

    fn options(&self, condition: Condition) -> Result<WriteOptions, StoreError> {
        let mut options = plain_options();
        match condition {
            Condition::Any => {}
            Condition::Absent => options.if_not_exists = true,
            Condition::Same(Version(version)) if version.is_empty() => {
                let text = format!("{} gives no versions", self.settings.place());
                return Err(StoreError::new(FaultKind::Permanent, text));
            }
            Condition::Same(Version(version)) => match self.compares_tags() {
                true => options.if_match = Some(version),
                false => options.if_version_match = Some(version),
            },
        }
        Ok(options)
    }

    async fn list_objects(&self, prefix: &str) -> Result<Vec<ObjectName>, StoreError> {
        let path = format!("{}{prefix}", self.settings.object_folder(0));
        let entries = self.operator.list_options(&path, ListOptions::default());
        let entries = entries.await.map_err(|error| self.fault(&error))?;
        let names = entries
            .iter()
            .filter_map(|entry| ObjectName::new(entry.name()));
        Ok(names.collect())
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        into: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        if claim(into, blob).await? {
            return Ok(());
        }
        let path = self.settings.blob_path(&blob.digest);
        let reader = self.operator.reader(&path).await;
        let reader = reader.map_err(|error| self.fault(&error))?;
        let stream = reader.into_bytes_stream(0..blob.size).await;
        let mut stream = stream.map_err(|error| self.fault(&error))?;
        let mut incoming = Incoming::start(into, blob, progress).await?;
        while let Some(piece) = stream.next().await {
            incoming
                .push(piece.map_err(|error| self.broken(error))?)
                .await?;
        }
        incoming.finish().await
    }

    async fn put(
        &self,
        blob: &Descriptor,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let _permit = self.uploads.acquire().await;
        let part = PART_BYTES.max(blob.size.div_ceil(PARTS_MAX));
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        let options = WriteOptions {
            chunk: Some(part),
            concurrent: PARTS_AT_ONCE,
            ..plain_options()
        };
        let path = self.settings.blob_path(&blob.digest);
        let writer = self.operator.writer_options(&path, options).await;
        let mut writer = writer.map_err(|error| self.fault(&error))?;
        let mut outgoing = Outgoing::start(from, blob, part);
        let mut report = Report::new(blob, "uploading", progress);
        let mut sent = 0;
        loop {
            let failed = match outgoing.next().await {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    sent += piece.len() as u64;
                    let written = writer.write(piece).await;
                    written.err().map(|error| self.fault(&error))
                }
                Err(error) => Some(error),
            };
            if let Some(error) = failed {
                // What was begun is given back, if that can be had; the first error counts.
                let _ = writer.abort().await;
                return Err(error);
            }
            report.at(sent);
        }
        writer.close().await.map_err(|error| self.fault(&error))?;
        report.done();
        Ok(())
    }

    /// Classifies an error that came in the middle of a body.
    fn broken(&self, error: std::io::Error) -> StoreError {
        broken(&self.settings.place(), &error)
    }
}

impl RemoteStore for BucketStore {
    fn name(&self) -> String {
        self.settings.place()
    }

    fn coordination(&self) -> Coordination {
        let found = self.coordination.get();
        found.copied().unwrap_or(Coordination::Listing)
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        self.read_object(name).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        async move { self.write_object(name, &object, condition).await }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, _from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        self.list_objects(prefix).boxed()
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        async move {
            for index in 0..self.settings.names.len() {
                let path = self.settings.object_path(index, name);
                let removed = self.operator.delete(&path).await;
                removed.map_err(|error| self.fault(&error))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.fetch(blob, into, progress).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.put(blob, from, progress).boxed()
    }

    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        self.read_chains().boxed()
    }

    fn write_buildkit<'a>(
        &'a self,
        cache: &'a Written,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.write_chains(cache, from, progress).boxed()
    }

    fn refreshes_blobs(&self) -> bool {
        self.settings.touch_refresh.is_some()
    }

    fn keeps_blob<'a>(&'a self, blob: &'a Descriptor, now_ns: i64) -> Answer<'a, bool> {
        self.keep(blob, now_ns).boxed()
    }
}

/// Says what everything here is: bytes. Some servers want to be told.
fn plain_options() -> WriteOptions {
    WriteOptions {
        content_type: Some("application/octet-stream".to_owned()),
        ..WriteOptions::default()
    }
}

fn of_stream(error: &std::io::Error) -> Option<ErrorKind> {
    let inner: &opendal::Error = error.get_ref()?.downcast_ref()?;
    Some(inner.kind())
}

/// Classifies an error that came in the middle of a body.
fn broken(place: &str, error: &std::io::Error) -> StoreError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(inner) => fault(place, inner),
        None => StoreError::new(FaultKind::Transient, format!("{place}: {error}")),
    }
}

/// Classifies what opendal says, in one line.
fn fault(place: &str, error: &opendal::Error) -> StoreError {
    let kind = match error.kind() {
        ErrorKind::NotFound => FaultKind::Missing,
        ErrorKind::ConditionNotMatch | ErrorKind::Conflict | ErrorKind::AlreadyExists => {
            FaultKind::Conflict
        }
        // A network, a server that fails: retries hide whether it called itself temporary.
        ErrorKind::RateLimited | ErrorKind::Unexpected => FaultKind::Transient,
        _ => FaultKind::Permanent,
    };
    let text = error.to_string().replace('\n', " ");
    let text = shortened(&text);
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let cause = shortened(&cause.to_string().replace('\n', " "));
    match text.contains(&cause) || cause.contains(&text) {
        true => StoreError::new(kind, format!("{place}: {text}")),
        false => StoreError::new(kind, format!("{place}: {text}: {cause}")),
    }
}

/// Leaves out what opendal says of the request: what failed comes first, and why comes last.
fn shortened(text: &str) -> String {
    let Some((what, rest)) = text.split_once(", context: {") else {
        return text.to_owned();
    };
    match rest.rsplit_once("} => ") {
        Some((_, why)) => format!("{what}: {why}"),
        None => what.to_owned(),
    }
}
