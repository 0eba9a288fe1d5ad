//! Questions about sources: what an image, a commit or a file of a web server is now.

use bollard_buildkit_proto::google::protobuf::Timestamp;

use super::bridge::{
    AttestationChain, Blob, BridgeError, ImageQuery, Outcome, SourceMeta, SourceQuery,
};
use super::service::{Service, no_policies};
use super::wire::{self, checksum_request::ChecksumAlgo};
use crate::llb::{pb, platform};

/// Sources that are images.
const IMAGE_SCHEME: &str = "docker-image://";
/// Sources that are images in OCI layouts of the client.
const LAYOUT_SCHEME: &str = "oci-layout://";
/// Name of the OCI layout in the options of such a source.
const LAYOUT_STORE: &str = "oci.store";

impl Service {
    /// Says what a source is.
    pub(super) async fn source(
        &self,
        request: wire::ResolveSourceMetaRequest,
    ) -> Outcome<wire::ResolveSourceMetaResponse> {
        no_policies(&request.source_policies)?;
        let source = request.source.clone();
        let source = source.ok_or_else(|| BridgeError::invalid("source is required"))?;
        let mut response = wire::ResolveSourceMetaResponse {
            source: Some(source.clone()),
            ..Default::default()
        };
        if let Some(query) = image_query(&source, &request) {
            let found = self.bridge.resolve_image(query).await?;
            // A policy may have put another image in its place.
            if let Some(told) = &mut response.source
                && told.identifier.starts_with(IMAGE_SCHEME)
            {
                told.identifier = format!("{IMAGE_SCHEME}{}", found.name);
            }
            response.image = Some(wire::ResolveSourceImageResponse {
                digest: found.digest,
                config: found.config,
                attestation_chain: found.attestations.map(chain),
            });
            return Ok(response);
        }
        let query = source_query(source, &request)?;
        match self.bridge.resolve_source(query).await? {
            SourceMeta::Commit {
                object,
                commit,
                reference,
                commit_object,
                tag_object,
            } => {
                response.git = Some(wire::ResolveSourceGitResponse {
                    commit_checksum: commit,
                    checksum: object,
                    r#ref: reference,
                    commit_object,
                    tag_object,
                });
            }
            SourceMeta::File {
                digest,
                name,
                mtime_s,
                checksum,
            } => {
                let suffix = request.http.and_then(|http| http.checksum_request);
                let suffix = suffix.map(|request| request.suffix).unwrap_or_default();
                response.http = Some(wire::ResolveSourceHttpResponse {
                    checksum: digest,
                    filename: name,
                    last_modified: (mtime_s != 0).then_some(Timestamp {
                        seconds: mtime_s,
                        nanos: 0,
                    }),
                    checksum_response: checksum
                        .map(|digest| wire::ChecksumResponse { digest, suffix }),
                });
            }
            SourceMeta::Unknown => {}
        }
        Ok(response)
    }
}

/// Reads a question about an image, if the source is one.
fn image_query(
    source: &pb::SourceOp,
    request: &wire::ResolveSourceMetaRequest,
) -> Option<ImageQuery> {
    let (name, oci_layout) = match source.identifier.strip_prefix(IMAGE_SCHEME) {
        Some(name) => (name, None),
        None => {
            let name = source.identifier.strip_prefix(LAYOUT_SCHEME)?;
            let store = source.attrs.get(LAYOUT_STORE).cloned();
            (name, Some(store.unwrap_or_default()))
        }
    };
    // Nothing is said about images in layouts, and their configs are always told.
    let asked = request.image.as_ref().filter(|_| oci_layout.is_none());
    let attestations = asked.and_then(|asked| {
        let types = asked.resolve_attestations.clone();
        (asked.attestation_chain || !types.is_empty()).then_some(types)
    });
    Some(ImageQuery {
        name: name.to_owned(),
        platform: request.platform.as_ref().map(platform::from_pb),
        mode: request.resolve_mode.clone(),
        log_name: request.log_name.clone(),
        oci_layout,
        config: !asked.is_some_and(|asked| asked.no_config),
        attestations,
    })
}

fn source_query(
    source: pb::SourceOp,
    request: &wire::ResolveSourceMetaRequest,
) -> Outcome<SourceQuery> {
    let checksum = request.http.as_ref();
    let checksum = checksum.and_then(|http| http.checksum_request.as_ref());
    let checksum = checksum.map(|asked| {
        let algorithm = match ChecksumAlgo::try_from(asked.algo) {
            Ok(ChecksumAlgo::Sha256) => "sha256",
            Ok(ChecksumAlgo::Sha384) => "sha384",
            Ok(ChecksumAlgo::Sha512) => "sha512",
            Err(_) => {
                let text = format!("unsupported checksum algorithm {}", asked.algo);
                return Err(BridgeError::unknown(text));
            }
        };
        Ok((algorithm.to_owned(), asked.suffix.clone()))
    });
    Ok(SourceQuery {
        source,
        objects: request.git.as_ref().is_some_and(|git| git.return_object),
        checksum: checksum.transpose()?,
    })
}

fn chain(chain: AttestationChain) -> wire::AttestationChain {
    let blobs = chain.blobs.into_iter().map(|Blob { descriptor, data }| {
        let digest = descriptor.digest.to_string();
        let described = wire::Descriptor {
            media_type: descriptor.media_type,
            digest: digest.clone(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            annotations: descriptor.annotations.into_iter().collect(),
        };
        let blob = wire::Blob {
            descriptor: Some(described),
            data,
        };
        (digest, blob)
    });
    wire::AttestationChain {
        root: chain.root,
        image_manifest: chain.image_manifest,
        attestation_manifest: chain.attestation_manifest.unwrap_or_default(),
        signature_manifests: chain.signature_manifests,
        blobs: blobs.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(image: wire::ResolveSourceImageRequest) -> wire::ResolveSourceMetaRequest {
        wire::ResolveSourceMetaRequest {
            image: Some(image),
            ..wire::ResolveSourceMetaRequest::default()
        }
    }

    fn source(identifier: &str) -> pb::SourceOp {
        pb::SourceOp {
            identifier: identifier.to_owned(),
            ..pb::SourceOp::default()
        }
    }

    #[test]
    fn types_of_statements_ask_for_the_chain() {
        let plain = wire::ResolveSourceImageRequest::default();
        let no_config = wire::ResolveSourceImageRequest {
            no_config: true,
            ..plain.clone()
        };
        let types = wire::ResolveSourceImageRequest {
            resolve_attestations: vec!["https://x/y".to_owned()],
            ..plain.clone()
        };
        let wanted = |identifier: &str, image| {
            let query = image_query(&source(identifier), &request(image)).unwrap();
            (query.config, query.attestations)
        };
        assert_eq!(wanted("docker-image://a", plain), (true, None));
        assert_eq!(wanted("docker-image://a", no_config.clone()), (false, None));
        assert_eq!(wanted("oci-layout://a@b", no_config), (true, None));
        let types_only = Some(vec!["https://x/y".to_owned()]);
        assert_eq!(wanted("docker-image://a", types), (true, types_only));
        assert_eq!(
            image_query(&source("git://a"), &request(Default::default())),
            None
        );
    }

    #[test]
    fn hashes_have_names() {
        let asked = |algo: i32| {
            let mut request = wire::ResolveSourceMetaRequest::default();
            let suffix = b"s".to_vec();
            request.http = Some(wire::ResolveSourceHttpRequest {
                checksum_request: Some(wire::ChecksumRequest { algo, suffix }),
            });
            let query = source_query(source("https://a"), &request);
            query.map(|query| query.checksum.unwrap().0)
        };
        assert_eq!(asked(0).unwrap(), "sha256");
        assert_eq!(asked(1).unwrap(), "sha384");
        assert_eq!(asked(2).unwrap(), "sha512");
        assert_eq!(
            asked(3).unwrap_err().message,
            "unsupported checksum algorithm 3"
        );
    }
}
