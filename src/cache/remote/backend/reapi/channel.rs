//! The calls of the Remote Execution API that a cache needs, with retries and limits of time.
//!
//! | attribute | meaning |
//! |---|---|
//! | `url` | `grpc://HOST:PORT`, or `grpcs://…` with TLS |
//! | `instance` | name of the instance; none by default |
//! | `name` | name of the cache, so that several lie in one instance |
//! | `token` | sent as `authorization: Bearer …` |
//! | `ca`, `cert`, `key` | files in PEM: who is trusted, and who we are |

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as re;
use bazel_remote_apis::google::bytestream as bs;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use re::action_cache_client::ActionCacheClient;
use re::capabilities_client::CapabilitiesClient;
use re::content_addressable_storage_client::ContentAddressableStorageClient;
use ring::rand::SecureRandom as _;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::cache::remote::backend::attributes::{Attributes, Secret};
use crate::cache::remote::store::{FaultKind, StoreError};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one call may take, a stream apart.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call is made.
const TRIES_MAX: u32 = 4;
/// Pause before the second try; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Name of a cache that has none.
const DEFAULT_NAME: &str = "cooper";

/// Where the fleet is, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache::remote::backend) struct Settings {
    url: String,
    pub(super) instance: String,
    pub(super) name: String,
    token: Option<Secret>,
    authority: Option<Secret>,
    identity: Option<(Secret, Secret)>,
}

impl Settings {
    /// Takes the attributes above.
    pub(in crate::cache::remote::backend) fn take(
        left: &mut BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let kind = "reapi";
        let mut attributes = Attributes { kind, left };
        let url = attributes.need("url")?;
        let url = match url.split_once("://") {
            Some(("grpc" | "http", rest)) => format!("http://{rest}"),
            Some(("grpcs" | "https", rest)) => format!("https://{rest}"),
            _ => return Err("url of reapi cache: expected grpc://… or grpcs://…".to_owned()),
        };
        let file = |attributes: &mut Attributes<'_>, key: &str| {
            let path = attributes.take(key);
            let read = path.map(|path| {
                let text = std::fs::read_to_string(&path);
                text.map_err(|error| format!("{key}: cannot read {path}: {error}"))
            });
            read.transpose().map(|text| text.map(Secret::new))
        };
        let authority = file(&mut attributes, "ca")?;
        let identity = match (
            file(&mut attributes, "cert")?,
            file(&mut attributes, "key")?,
        ) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("reapi cache requires cert and key together".to_owned()),
        };
        let name = attributes.take("name");
        Ok(Self {
            url,
            instance: attributes.take("instance").unwrap_or_default(),
            name: name.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            token: attributes.secret("token"),
            authority,
            identity,
        })
    }

    /// Returns what people call it.
    pub(in crate::cache::remote::backend) fn place(&self) -> String {
        let host = self.url.split("://").nth(1).unwrap_or_default();
        format!("reapi cache {} at {host}", self.name)
    }

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.url.clone())?
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("cooper/", env!("CARGO_PKG_VERSION")))?;
        if self.url.starts_with("http:") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.authority {
            Some(authority) => tls.ca_certificate(Certificate::from_pem(authority.reveal())),
            None => tls.with_native_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(cert.reveal(), key.reveal()));
        }
        endpoint.tls_config(tls)
    }
}

/// A connection to a fleet.
#[derive(Debug)]
pub(super) struct Service {
    settings: Settings,
    channel: Channel,
}

impl Service {
    pub(super) async fn connect(settings: Settings) -> Result<Self, StoreError> {
        // Somebody else in the process may have installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = settings.place();
        let unusable = |error: tonic::transport::Error, kind| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let text = cause.unwrap_or_else(|| error.to_string());
            StoreError::new(kind, format!("{place}: {text}"))
        };
        let endpoint = settings.endpoint();
        let endpoint = endpoint.map_err(|error| unusable(error, FaultKind::Permanent))?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| unusable(error, FaultKind::Transient))?;
        Ok(Self { settings, channel })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn capabilities(&self) -> Result<re::CacheCapabilities, StoreError> {
        let response = self.call(|| {
            let message = re::GetCapabilitiesRequest {
                instance_name: self.settings.instance.clone(),
            };
            let (mut client, request) =
                (CapabilitiesClient::new(self.channel()), self.ask(message));
            async move { client.get_capabilities(request).await }
        });
        let capabilities = response.await?.cache_capabilities;
        capabilities.ok_or_else(|| {
            let text = format!("{}: the server has no cache", self.settings.place());
            StoreError::new(FaultKind::Permanent, text)
        })
    }

    pub(super) async fn action_result(
        &self,
        message: re::GetActionResultRequest,
    ) -> Result<Option<re::ActionResult>, StoreError> {
        let response = self.call(|| {
            let request = self.ask(message.clone());
            let mut client = ActionCacheClient::new(self.channel());
            async move { client.get_action_result(request).await }
        });
        match response.await {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind == FaultKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn update(
        &self,
        message: re::UpdateActionResultRequest,
    ) -> Result<(), StoreError> {
        let response = self.call(|| {
            let request = self.ask(message.clone());
            let mut client = ActionCacheClient::new(self.channel());
            async move { client.update_action_result(request).await }
        });
        response.await.map(drop)
    }

    pub(super) async fn is_missing(&self, digest: &re::Digest) -> Result<bool, StoreError> {
        let response = self.call(|| {
            let request = self.ask(re::FindMissingBlobsRequest {
                instance_name: self.settings.instance.clone(),
                blob_digests: vec![digest.clone()],
                ..re::FindMissingBlobsRequest::default()
            });
            let mut client = ContentAddressableStorageClient::new(self.channel());
            async move { client.find_missing_blobs(request).await }
        });
        Ok(!response.await?.missing_blob_digests.is_empty())
    }

    pub(super) async fn put_batch(
        &self,
        message: re::BatchUpdateBlobsRequest,
    ) -> Result<re::BatchUpdateBlobsResponse, StoreError> {
        self.call(|| {
            let request = self.ask(message.clone());
            let mut client = ContentAddressableStorageClient::new(self.channel());
            async move { client.batch_update_blobs(request).await }
        })
        .await
    }

    /// Starts to read a blob.
    pub(super) async fn read(
        &self,
        digest: &re::Digest,
    ) -> Result<tonic::Streaming<bs::ReadResponse>, StoreError> {
        let name = format!("blobs/{}/{}", digest.hash, digest.size_bytes);
        self.call(|| {
            let request = self.ask(bs::ReadRequest {
                resource_name: self.in_instance(&name),
                read_offset: 0,
                read_limit: 0,
            });
            let mut client = ByteStreamClient::new(self.channel());
            async move { client.read(request).await }
        })
        .await
    }

    /// Returns the name under which a blob is uploaded; each upload has its own.
    pub(super) fn upload_name(&self, digest: &re::Digest) -> String {
        let mut random = [0_u8; 16];
        // Without chance, two uploads of one blob share a name, which is allowed.
        let _ = ring::rand::SystemRandom::new().fill(&mut random);
        let hex = crate::oci::hex_of(&random);
        let id = format!(
            "{}-{}-4{}-a{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..]
        );
        let name = format!("uploads/{id}/blobs/{}/{}", digest.hash, digest.size_bytes);
        self.in_instance(&name)
    }

    /// Writes a stream, once; returns how many bytes the server took.
    pub(super) async fn write(
        &self,
        stream: impl futures::Stream<Item = bs::WriteRequest> + Send + 'static,
    ) -> Result<i64, StoreError> {
        let mut client = ByteStreamClient::new(self.channel());
        let written = client.write(self.ask(stream)).await;
        let written = written.map_err(|status| fault(&self.settings.place(), &status))?;
        Ok(written.into_inner().committed_size)
    }

    fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn in_instance(&self, name: &str) -> String {
        match self.settings.instance.as_str() {
            "" => name.to_owned(),
            instance => format!("{instance}/{name}"),
        }
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = self.settings.token.as_ref();
        let value = token.and_then(|token| {
            let text = format!("Bearer {}", token.reveal());
            text.parse::<MetadataValue<_>>().ok()
        });
        if let Some(value) = value {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Makes a call until it works or will not; with pauses.
    async fn call<T, F>(&self, mut start: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let place = self.settings.place();
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let error = match tokio::time::timeout(CALL_TIMEOUT, start()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => fault(&place, &status),
                Err(_) => broken(&place, "no answer in time"),
            };
            if error.kind != FaultKind::Transient || tries == TRIES_MAX {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

/// Classifies a status of gRPC.
pub(super) fn classify(code: Code) -> FaultKind {
    match code {
        Code::NotFound => FaultKind::Missing,
        Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::ResourceExhausted
        | Code::Unavailable
        | Code::Unknown => FaultKind::Transient,
        _ => FaultKind::Permanent,
    }
}

pub(super) fn fault(place: &str, status: &Status) -> StoreError {
    let text = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    StoreError::new(classify(status.code()), format!("{place}: {text}"))
}

/// Makes the error of a connection that stood still or broke.
pub(super) fn broken(place: &str, problem: &str) -> StoreError {
    StoreError::new(FaultKind::Transient, format!("{place}: {problem}"))
}
