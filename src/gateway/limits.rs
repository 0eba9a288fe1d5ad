//! Limits of single steps (`linux_resources`), which are younger than the generated messages that
//! hold definitions: they are read out of the bytes of a request, and put back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Incoming;
use prost::Message;
use tonic::body::Body;

use super::serve::MESSAGE_BYTES_MAX;
use crate::llb::{Definition, pb};

/// Bytes of gRPC before a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;
/// Most steps whose limits are kept.
const STEPS_MAX: usize = 100_000;

/// The call whose requests hold definitions.
pub(super) const SOLVE: &str = "/moby.buildkit.v1.frontend.LLBBridge/Solve";

/// What a request says about ops.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, optional, tag = "1")]
    definition: Option<About>,
    #[prost(btree_map = "string, message", tag = "13")]
    frontend_inputs: BTreeMap<String, About>,
}

/// What a definition says about its ops.
#[derive(Clone, PartialEq, Message)]
struct About {
    #[prost(btree_map = "string, message", tag = "2")]
    metadata: BTreeMap<String, pb::OpMetadata>,
}

/// Limits of steps by their digests, of one frontend.
#[derive(Debug, Default)]
pub(super) struct Limits {
    known: Mutex<BTreeMap<String, pb::LinuxResources>>,
}

impl Limits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, pb::LinuxResources>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, digest: String, limits: pb::LinuxResources) {
        let mut known = self.lock();
        if known.len() < STEPS_MAX {
            known.insert(digest, limits);
        }
    }

    /// Keeps those of a definition that goes out, and may come back without them.
    pub(super) fn note(&self, definition: &Definition) {
        for (digest, metadata) in &definition.metadata {
            if let Some(limits) = &metadata.resources {
                self.keep(digest.to_string(), limits.clone());
            }
        }
    }

    /// Puts those of a definition back that has come in.
    pub(super) fn restored(&self, mut definition: Definition) -> Definition {
        let known = self.lock();
        if known.is_empty() {
            return definition;
        }
        for (digest, metadata) in &mut definition.metadata {
            if metadata.resources.is_none() {
                metadata.resources = known.get(&digest.to_string()).cloned();
            }
        }
        definition
    }

    /// Keeps those in a message; one that is no request is refused by whoever serves it.
    fn read(&self, message: &[u8]) {
        let Ok(asked) = Asked::decode(message) else {
            return;
        };
        let definitions = asked.frontend_inputs.into_values().chain(asked.definition);
        for (digest, metadata) in definitions.flat_map(|about| about.metadata) {
            if let Some(limits) = metadata.linux_resources {
                self.keep(digest, limits);
            }
        }
    }

    /// Reads a request on its way.
    pub(super) async fn passed_on(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Request<Body>, Infallible> {
        if request.uri().path() != SOLVE {
            return Ok(request.map(Body::new));
        }
        let (parts, body) = request.into_parts();
        let whole = Limited::new(body, MESSAGE_BYTES_MAX + FRAME_BYTES);
        // What is too large or breaks off is a request without a message.
        let bytes = whole
            .collect()
            .await
            .map_or(Bytes::new(), |whole| whole.to_bytes());
        self.read_frame(bytes.clone());
        Ok(Request::from_parts(parts, Body::new(Full::new(bytes))))
    }

    fn read_frame(&self, mut bytes: Bytes) {
        if bytes.len() < FRAME_BYTES || bytes.get_u8() != 0 {
            return;
        }
        let length = bytes.get_u32() as usize;
        if let Some(message) = bytes.get(..length) {
            self.read(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::{Metadata, VertexDigest};

    #[test]
    fn limits_survive_messages_that_do_not_know_them() {
        let limits = pb::LinuxResources {
            memory: 1 << 20,
            ..pb::LinuxResources::default()
        };
        let digest = VertexDigest::of(b"op");
        let about = pb::OpMetadata {
            linux_resources: Some(limits.clone()),
            ..pb::OpMetadata::default()
        };
        let asked = Asked {
            definition: Some(About {
                metadata: BTreeMap::from([(digest.to_string(), about)]),
            }),
            frontend_inputs: BTreeMap::new(),
        };
        let message = asked.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        let without = Definition {
            metadata: [(digest.clone(), Metadata::default())].into(),
            ..Definition::default()
        };
        let read = Limits::default();
        assert_eq!(read.restored(without.clone()), without);
        read.read_frame(frame.into());
        let with = read.restored(without.clone());
        assert_eq!(with.metadata[&digest].resources, Some(limits));
        // A definition that goes out comes back whole.
        let noted = Limits::default();
        noted.note(&with);
        assert_eq!(noted.restored(without), with);
        noted.read_frame(Bytes::from_static(b"\0\0\0\0\xff"));
    }
}
