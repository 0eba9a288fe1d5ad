//! The port of the gateway: what a frontend can have done.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tonic::Code;

use super::files::Files;
use super::wire;
use crate::executor::Streams;
use crate::llb::{Definition, pb};
use crate::oci::{Descriptor, Platform};

/// A result that a frontend can name: what it is the result of; `None` for the empty file system.
pub type Handle = Option<Arc<Definition>>;

/// What comes of a call.
pub type Outcome<T> = Result<T, BridgeError>;

/// Does what frontends ask for, within one build.
pub trait Bridge: fmt::Debug + Send + Sync + 'static {
    /// Lists the platforms that processes can run on, the preferred one first.
    fn platforms(&self) -> Vec<Platform>;

    /// Returns the inputs that were given to the frontend, by name.
    fn inputs(&self) -> BTreeMap<String, Arc<Definition>>;

    /// Checks a definition, without solving it.
    fn check(&self, definition: &Definition) -> Outcome<()>;

    /// Solves a definition and lets the caller look into the result.
    fn files<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Outcome<Arc<Files>>>;

    /// Looks up an image.
    fn resolve_image(&self, query: ImageQuery) -> BoxFuture<'_, Outcome<ImageMeta>>;

    /// Finds out what a source is now.
    fn resolve_source(&self, query: SourceQuery) -> BoxFuture<'_, Outcome<SourceMeta>>;

    /// Has another frontend do the work.
    fn forward(&self, request: Forward) -> BoxFuture<'_, Outcome<Answer>>;

    /// Tells the user something.
    fn warn(&self, warning: wire::WarnRequest);

    /// Makes a container, in which nothing runs yet.
    fn container(&self, request: ContainerRequest) -> BoxFuture<'_, Outcome<Arc<dyn Container>>>;
}

/// A container that a frontend made. Dropping it ends what runs in it.
pub trait Container: fmt::Debug + Send + Sync {
    /// Runs a process in it and waits for its end; returns its exit code.
    fn run(&self, process: ProcessRequest) -> BoxFuture<'_, Outcome<i32>>;

    /// Sends a signal to a process.
    fn signal(&self, process: u32, signal: i32);

    /// Lets the caller look into one of its mounts, by its place in the request.
    fn files(&self, mount: usize) -> Outcome<Arc<Files>>;

    /// Ends it and waits until nothing of it is left.
    fn release(&self) -> BoxFuture<'_, ()>;
}

/// Asks for a container.
#[derive(Debug, Default)]
pub struct ContainerRequest {
    /// Its mounts, each with what it shows; the one on `/` is the root.
    pub mounts: Vec<(pb::Mount, Handle)>,
    /// Its network ([`pb::NetMode`]).
    pub network: i32,
    /// Name of the machine; empty for the usual one.
    pub hostname: String,
    /// Further host names.
    pub extra_hosts: Vec<pb::HostIp>,
}

/// Asks for a process in a container.
#[derive(Debug)]
pub struct ProcessRequest {
    /// The number that it goes by in this container; no other process has had it.
    pub number: u32,
    /// Program, arguments, environment, directory, user.
    pub meta: pb::Meta,
    /// Secrets that are variables.
    pub secrets: Vec<pb::SecretEnv>,
    /// How it is confined ([`pb::SecurityMode`]).
    pub security: i32,
    /// Its standard streams.
    pub streams: Streams,
}

/// Asks about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageQuery {
    /// Its name.
    pub name: String,
    /// The platform; the preferred one where `None`.
    pub platform: Option<Platform>,
    /// `default`, `pull`, `local`; empty for the default.
    pub mode: String,
    /// What the progress display calls the look-up; empty for a usual name.
    pub log_name: String,
    /// The OCI layout of the client to look into instead.
    pub oci_layout: Option<String>,
    /// Whether digest and config are wanted.
    pub config: bool,
    /// Whether what is said about it is wanted, with statements of these predicate types.
    pub attestations: Option<Vec<String>>,
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMeta {
    /// Its full name.
    pub name: String,
    /// What the name points at; empty where it is not wanted.
    pub digest: String,
    /// Its config for the platform, as it was written.
    pub config: Vec<u8>,
    /// What is said about it.
    pub attestations: Option<AttestationChain>,
}

/// What is said about an image, with everything that it is verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationChain {
    /// Digest of the index.
    pub root: String,
    /// Digest of the manifest of the image.
    pub image_manifest: String,
    /// Digest of the manifest with statements about it.
    pub attestation_manifest: Option<String>,
    /// Digests of the manifests that sign that one.
    pub signature_manifests: Vec<String>,
    /// The blobs.
    pub blobs: Vec<Blob>,
}

/// A blob of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// How it is named where it was found.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Asks about a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceQuery {
    /// The source.
    pub source: pb::SourceOp,
    /// Whether commit and tag are wanted as git keeps them.
    pub objects: bool,
    /// What else is wanted of a web file: its hash, by this algorithm, with bytes after it.
    pub checksum: Option<(String, Vec<u8>)>,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceMeta {
    /// A commit.
    Commit {
        /// The object that the reference names: the commit, or a tag.
        object: String,
        /// The commit that a tag points at; empty where there is no tag.
        commit: String,
        /// Full name of the branch or tag.
        reference: String,
        /// The commit as git keeps it, where it was asked for.
        commit_object: Vec<u8>,
        /// The tag as git keeps it, where there is one.
        tag_object: Vec<u8>,
    },
    /// A file of a web server.
    File {
        /// Digest of its bytes.
        digest: String,
        /// Its name.
        name: String,
        /// When it was last changed, in seconds since 1970; 0 where the server does not say.
        mtime_s: i64,
        /// The hash that was asked for.
        checksum: Option<String>,
    },
    /// One of the client's folders, or anything else of which nothing is known before it is read.
    Unknown,
}

/// Hands the work to another frontend.
#[derive(Debug, Default)]
pub struct Forward {
    /// `dockerfile.v0` or `gateway.v0`.
    pub frontend: String,
    /// What it is told.
    pub options: BTreeMap<String, String>,
    /// Inputs by name.
    pub inputs: BTreeMap<String, Arc<Definition>>,
}

/// What a frontend made.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The results.
    pub results: Answered,
    /// What is said about them: image configs, platforms, answers to questions.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// What else is said, by platform.
    pub attestations: BTreeMap<String, Vec<Attested>>,
}

/// The results of a frontend.
#[derive(Debug, Clone)]
pub enum Answered {
    /// One.
    One(Handle),
    /// One for each platform, by its id.
    ByName(BTreeMap<String, Handle>),
}

impl Default for Answered {
    fn default() -> Self {
        Self::One(None)
    }
}

/// A statement about a result.
#[derive(Debug, Clone)]
pub struct Attested {
    /// The statement as it travels.
    pub statement: wire::Attestation,
    /// Where its text is.
    pub files: Handle,
}

/// Says why something a frontend asked for was not done; also what a frontend says itself.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct BridgeError {
    /// gRPC's code.
    pub code: Code,
    /// One line.
    pub message: String,
    /// More for machines.
    pub details: Vec<Detail>,
    /// The step that failed, which the frontend has no names for yet.
    pub failed: Option<Box<FailedStep>>,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedStep {
    /// Its op, as Go's structs are written.
    pub op: serde_json::Value,
    /// What is said about it.
    pub description: BTreeMap<String, String>,
    /// The file systems that it had: for each mount of a process, for each input of anything else.
    pub inputs: Vec<Handle>,
    /// The same after the process wrote to them, for each of its mounts.
    pub mounts: Vec<Handle>,
}

/// A detail of an error, as BuildKit writes it: JSON under the name of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Name of the type.
    pub kind: String,
    /// The JSON.
    pub json: Vec<u8>,
}

impl BridgeError {
    /// Makes an error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            failed: None,
        }
    }

    /// Says that a message makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Says that something else went wrong, as BuildKit does for most errors.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, kind: &str, json: &serde_json::Value) -> Self {
        self.details.push(Detail {
            kind: kind.to_owned(),
            json: json.to_string().into_bytes(),
        });
        self
    }

    /// Returns the JSON of the last detail of a kind: the innermost one.
    pub fn detail(&self, kind: &str) -> Option<serde_json::Value> {
        let found = self.details.iter().rfind(|detail| detail.kind == kind)?;
        serde_json::from_slice(&found.json).ok()
    }
}
