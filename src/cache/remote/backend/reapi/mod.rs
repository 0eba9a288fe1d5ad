//! `type=reapi`: the cache of a fleet that speaks the Bazel Remote Execution API (v2).
//!
//! Blobs lie in its content-addressed storage under their own digests, so layers that some other
//! tool has put there are not put again. An object is the result of an action that nobody runs:
//!
//! ```text
//! Command        arguments: "cooper-cache-1", the name of the cache, the name of the object
//! Action         that command, no inputs; its digest is the key
//! ActionResult   output file "object": an envelope; one output file for each blob it keeps alive
//! ```
//!
//! The service replaces results without any condition and lists none, so records are looked up
//! one by one. A server that checks that the outputs of a result exist drops what lost a layer.

mod channel;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as re;
use bazel_remote_apis::google::bytestream as bs;
use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use tokio::sync::Semaphore;

pub(super) use self::channel::Settings;
use self::channel::{Service, broken, classify};
use super::Direction;
use super::envelope::{self, ENVELOPE_BYTES_MAX};
use super::transfer::{Incoming, Outgoing, Report, fetched, tried};
use crate::cache::remote::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version, refused,
};
use crate::content::ContentStore;
use crate::oci::{Algorithm, Descriptor, Digest};
use crate::progress::VertexProgress;

/// First argument of the commands that stand for objects.
const PROGRAM: &str = "cooper-cache-1";
/// Path of the output file that holds an object.
const OBJECT_PATH: &str = "object";
/// Bytes of one message of a stream.
const PIECE_BYTES: usize = 1 << 20;
/// Blobs of up to this size go with one request; messages hold 4 MiB.
const BATCH_BYTES_MAX: u64 = 2 << 20;
/// Blobs that are uploaded at a time.
const UPLOADS_AT_ONCE: usize = 4;
/// How long a stream may stand still.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

impl Settings {
    /// Connects, and asks what the server can.
    pub(super) async fn open(
        self,
        direction: Direction,
    ) -> Result<Arc<dyn RemoteStore>, StoreError> {
        let service = Service::connect(self).await?;
        let capabilities = service.capabilities().await?;
        let store = ReapiStore {
            batch_bytes: batch_bytes(&capabilities),
            service,
            uploads: Semaphore::new(UPLOADS_AT_ONCE),
        };
        check(&store.name(), &capabilities, direction)?;
        Ok(Arc::new(store))
    }
}

/// A fleet's cache.
#[derive(Debug)]
struct ReapiStore {
    service: Service,
    batch_bytes: u64,
    uploads: Semaphore,
}

/// What a store puts as one message.
struct Small {
    digest: re::Digest,
    data: Vec<u8>,
}

impl Small {
    fn new(data: Vec<u8>) -> Self {
        let digest = re::Digest {
            hash: Digest::of(&data).hex().to_owned(),
            size_bytes: data.len().try_into().unwrap_or(i64::MAX),
        };
        Self { digest, data }
    }
}

impl ReapiStore {
    /// Returns the command and the action that stand for an object.
    fn action(&self, name: &ObjectName) -> (Small, Small) {
        let settings = self.service.settings();
        let arguments = [PROGRAM, &settings.name, name.as_str()].map(str::to_owned);
        let command = re::Command {
            arguments: arguments.to_vec(),
            ..re::Command::default()
        };
        let command = Small::new(command.encode_to_vec());
        let action = re::Action {
            command_digest: Some(command.digest.clone()),
            input_root_digest: Some(Small::new(Vec::new()).digest),
            ..re::Action::default()
        };
        (command, Small::new(action.encode_to_vec()))
    }

    async fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        let (_, action) = self.action(name);
        let request = re::GetActionResultRequest {
            instance_name: self.service.settings().instance.clone(),
            action_digest: Some(action.digest),
            inline_output_files: vec![OBJECT_PATH.to_owned()],
            ..re::GetActionResultRequest::default()
        };
        let Some(result) = self.service.action_result(request).await? else {
            return Ok(None);
        };
        let mut files = result.output_files.into_iter();
        let Some(file) = files.find(|file| file.path == OBJECT_PATH) else {
            return Ok(None);
        };
        let Some(digest) = file.digest else {
            return Ok(None);
        };
        let bytes = match file.contents.is_empty() {
            false => Bytes::from(file.contents),
            true => match self.read_small(&digest).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind == FaultKind::Missing => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if Digest::of(&bytes).hex() != digest.hash {
            let text = format!("{}: {name}: wrong bytes came", self.name());
            return Err(StoreError::new(FaultKind::Permanent, text));
        }
        Ok(Some(Stored {
            object: envelope::decode(&bytes).unwrap_or_default(),
            version: Version(digest.hash),
        }))
    }

    async fn read_small(&self, digest: &re::Digest) -> Result<Bytes, StoreError> {
        let mut stream = self.service.read(digest).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = next(&mut stream).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > ENVELOPE_BYTES_MAX {
                let text = format!("{} is larger than {ENVELOPE_BYTES_MAX} bytes", digest.hash);
                return Err(StoreError::new(FaultKind::Permanent, text));
            }
        }
        Ok(bytes.into())
    }

    async fn write_object(
        &self,
        name: &ObjectName,
        object: &Object,
    ) -> Result<Version, StoreError> {
        let bytes = envelope::encode(object)
            .map_err(|error| StoreError::new(FaultKind::Permanent, error))?;
        let content = Small::new(bytes.to_vec());
        let version = Version(content.digest.hash.clone());
        let (command, action) = self.action(name);
        let files = object.blobs.iter().map(|blob| {
            let path = format!("blobs/{}", blob.digest);
            digest_of(blob).map(|digest| file(path, digest))
        });
        let mut files: Vec<re::OutputFile> = files.collect::<Result<_, _>>()?;
        files.insert(0, file(OBJECT_PATH.to_owned(), content.digest.clone()));
        let request = re::UpdateActionResultRequest {
            instance_name: self.service.settings().instance.clone(),
            action_digest: Some(action.digest.clone()),
            action_result: Some(re::ActionResult {
                output_files: files,
                ..re::ActionResult::default()
            }),
            ..re::UpdateActionResultRequest::default()
        };
        let mut batch = vec![command, action];
        match content.data.len() as u64 <= self.batch_bytes {
            true => batch.push(content),
            false => {
                self.write_stream(&content.digest, Source::Bytes(content.data))
                    .await?;
            }
        }
        self.put_batch(batch).await?;
        self.service.update(request).await?;
        Ok(version)
    }

    async fn put_batch(&self, batch: Vec<Small>) -> Result<(), StoreError> {
        let requests = batch
            .into_iter()
            .map(|small| re::batch_update_blobs_request::Request {
                digest: Some(small.digest),
                data: small.data,
                ..re::batch_update_blobs_request::Request::default()
            });
        let request = re::BatchUpdateBlobsRequest {
            instance_name: self.service.settings().instance.clone(),
            requests: requests.collect(),
            ..re::BatchUpdateBlobsRequest::default()
        };
        let response = self.service.put_batch(request).await?;
        for response in response.responses {
            if let Some(status) = response.status.filter(|status| status.code != 0) {
                let kind = classify(tonic::Code::from_i32(status.code));
                let text = format!("{}: {}", self.name(), status.message);
                return Err(StoreError::new(kind, text));
            }
        }
        Ok(())
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        into: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let mut incoming = Incoming::start(into, blob, progress).await?;
        if blob.size > 0 {
            let mut stream = self.service.read(&digest_of(blob)?).await?;
            while let Some(piece) = next(&mut stream).await? {
                incoming.push(piece).await?;
            }
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
        let digest = digest_of(blob)?;
        if blob.size == 0 || !self.service.is_missing(&digest).await? {
            return Ok(());
        }
        let report = Report::new(blob, "uploading", progress);
        if blob.size <= self.batch_bytes {
            let mut data = Vec::new();
            let mut outgoing = Outgoing::start(from, blob, PIECE_BYTES);
            while let Some(piece) = outgoing.next().await? {
                data.extend_from_slice(&piece);
            }
            self.put_batch(vec![Small { digest, data }]).await?;
        } else {
            tried(|| {
                let outgoing = Outgoing::start(from, blob, PIECE_BYTES);
                self.write_stream(&digest, Source::Blob(outgoing))
            })
            .await?;
        }
        report.done();
        Ok(())
    }

    /// Puts something large. The server may say early that it has it already.
    async fn write_stream(&self, digest: &re::Digest, source: Source) -> Result<(), StoreError> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let resource = self.service.upload_name(digest);
        let size = digest.size_bytes;
        let sent: Arc<AtomicU64> = Arc::default();
        let counter = sent.clone();
        let pump = async move {
            let mut source = source;
            let (mut offset, mut resource) = (0_i64, resource);
            while let Some(piece) = source.next().await? {
                let length = piece.len().try_into().unwrap_or(i64::MAX);
                let request = bs::WriteRequest {
                    resource_name: std::mem::take(&mut resource),
                    write_offset: offset,
                    finish_write: offset + length >= size,
                    data: piece.to_vec(),
                };
                offset += length;
                if sender.send(request).await.is_err() {
                    break;
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), StoreError>(())
        };
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let writing = self.service.write(stream);
        let both = async { tokio::join!(pump, writing) };
        let (pumped, written) = watch(both, &sent)
            .await
            .ok_or_else(|| broken(&self.name(), "no progress"))?;
        pumped?;
        let committed = written?;
        if committed == size || committed == -1 {
            return Ok(());
        }
        let text = format!("it took {committed} of {size} bytes");
        Err(broken(&self.name(), &text))
    }
}

/// Where the bytes of a stream come from.
enum Source {
    Blob(Outgoing),
    Bytes(Vec<u8>),
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Blob(outgoing) => outgoing.next().await,
            Self::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Self::Bytes(bytes) => {
                let rest = bytes.split_off(bytes.len().min(PIECE_BYTES));
                Ok(Some(std::mem::replace(bytes, rest).into()))
            }
        }
    }
}

impl RemoteStore for ReapiStore {
    fn name(&self) -> String {
        self.service.settings().place()
    }

    fn coordination(&self) -> Coordination {
        Coordination::Keyed
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        self.read_object(name).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        _condition: Condition,
    ) -> Answer<'a, Version> {
        async move { self.write_object(name, &object).await }.boxed()
    }

    fn list<'a>(&'a self, _prefix: &'a str, _from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        refused("a fleet's cache lists nothing")
    }

    fn remove<'a>(&'a self, _name: &'a ObjectName) -> Answer<'a, ()> {
        refused("a fleet's cache removes nothing")
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        fetched(into, blob, move || self.fetch(blob, into, progress)).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.put(blob, from, progress).boxed()
    }
}

/// Waits for `work` for as long as `moved` grows.
async fn watch<T>(work: impl Future<Output = T>, moved: &AtomicU64) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(STALL_TIMEOUT, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if moved.load(Ordering::Relaxed) == before => return None,
            Err(_) => {}
        }
    }
}

async fn next(
    stream: &mut tonic::Streaming<bs::ReadResponse>,
) -> Result<Option<Bytes>, StoreError> {
    match tokio::time::timeout(STALL_TIMEOUT, stream.message()).await {
        Ok(Ok(message)) => Ok(message.map(|message| message.data.into())),
        Ok(Err(status)) => Err(channel::fault("reapi", &status)),
        Err(_) => Err(broken("reapi", "no byte came for a minute")),
    }
}

fn file(path: String, digest: re::Digest) -> re::OutputFile {
    re::OutputFile {
        path,
        digest: Some(digest),
        ..re::OutputFile::default()
    }
}

fn digest_of(blob: &Descriptor) -> Result<re::Digest, StoreError> {
    if blob.digest.algorithm() != Algorithm::Sha256 {
        let text = format!("{}: a fleet's cache is asked for sha256 only", blob.digest);
        return Err(StoreError::new(FaultKind::Permanent, text));
    }
    Ok(re::Digest {
        hash: blob.digest.hex().to_owned(),
        size_bytes: blob.size.try_into().unwrap_or(i64::MAX),
    })
}

fn batch_bytes(capabilities: &re::CacheCapabilities) -> u64 {
    match u64::try_from(capabilities.max_batch_total_size_bytes) {
        // Zero means that the server sets no limit of its own.
        Ok(0) | Err(_) => BATCH_BYTES_MAX,
        Ok(limit) => (limit / 2).min(BATCH_BYTES_MAX),
    }
}

fn check(
    name: &str,
    capabilities: &re::CacheCapabilities,
    direction: Direction,
) -> Result<(), StoreError> {
    let sha256 = re::digest_function::Value::Sha256 as i32;
    if !capabilities.digest_functions.contains(&sha256) {
        let text = format!("{name}: the server does not know sha256");
        return Err(StoreError::new(FaultKind::Permanent, text));
    }
    let update = capabilities.action_cache_update_capabilities.as_ref();
    let refuses = update.is_some_and(|update| !update.update_enabled);
    if direction == Direction::Export && refuses {
        let text = format!("{name}: the server takes no results from clients");
        return Err(StoreError::new(FaultKind::Permanent, text));
    }
    Ok(())
}
