//! Questions about sources.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use bollard_buildkit_proto::pb;

use crate::graph::digest;
use crate::{Gateway, Outcome, told};

fn request(identifier: &str, attrs: &[(&str, &str)]) -> wire::ResolveSourceMetaRequest {
    let attrs = attrs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    wire::ResolveSourceMetaRequest {
        source: Some(pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.collect(),
        }),
        ..wire::ResolveSourceMetaRequest::default()
    }
}

/// Asks about an image, a tag of a repository and a file.
pub(crate) async fn sources(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let mut lines = image(gateway, &options["build-arg:ATTESTED"]).await?;
    lines.extend(commit(gateway, &options["build-arg:GIT"]).await?);
    lines.extend(file(gateway, &options["build-arg:FILE"]).await?);
    let policy = wire::ResolveSourceMetaRequest {
        source_policies: vec![Default::default()],
        ..request("git://x/y", &[])
    };
    let refused = gateway.resolve_source_meta(policy).await.unwrap_err();
    lines.push(refused.message().to_owned());
    told(gateway, &lines.join("\n")).await
}

async fn image(gateway: &mut Gateway, name: &str) -> Result<Vec<String>, tonic::Status> {
    let mut lines = Vec::new();
    let asked = |no_config, attestation_chain, types: &[&str]| wire::ResolveSourceMetaRequest {
        image: Some(wire::ResolveSourceImageRequest {
            no_config,
            attestation_chain,
            resolve_attestations: types.iter().map(|text| (*text).to_owned()).collect(),
        }),
        ..request(&format!("docker-image://{name}"), &[])
    };
    for (request, what) in [
        (asked(false, false, &[]), "config"),
        (asked(true, false, &[]), "nothing"),
        (asked(true, true, &[]), "chain"),
        (
            asked(false, false, &["https://slsa.dev/provenance/v1"]),
            "provenance",
        ),
    ] {
        let found = gateway.resolve_source_meta(request).await?.into_inner();
        let image = found.image.unwrap();
        let (has_digest, has_config) = (!image.digest.is_empty(), !image.config.is_empty());
        lines.push(format!("{what}: {has_digest} {has_config}"));
        let Some(chain) = image.attestation_chain else {
            continue;
        };
        assert_eq!(chain.root, image.digest);
        for (name, blob) in &chain.blobs {
            assert_eq!(digest(&blob.data), *name);
            let size = blob.descriptor.as_ref().unwrap().size;
            assert_eq!(size, blob.data.len() as i64);
        }
        for name in [&chain.root, &chain.attestation_manifest] {
            assert!(chain.blobs.contains_key(name), "{name}");
        }
        assert!(!chain.blobs.contains_key(&chain.image_manifest));
        let (blobs, signed) = (chain.blobs.len(), chain.signature_manifests.len());
        lines.push(format!("blobs: {blobs}, signatures: {signed}"));
    }
    Ok(lines)
}

async fn commit(gateway: &mut Gateway, url: &str) -> Result<Vec<String>, tonic::Status> {
    let mut lines = Vec::new();
    let place = url.split_once("://").unwrap().1;
    for (return_object, reference) in [(false, "v1"), (true, "v1"), (true, "main")] {
        let request = wire::ResolveSourceMetaRequest {
            git: Some(wire::ResolveSourceGitRequest { return_object }),
            ..request(
                &format!("git://{place}#{reference}"),
                &[("git.fullurl", url)],
            )
        };
        let found = gateway.resolve_source_meta(request).await?.into_inner();
        let git = found.git.unwrap();
        let first = |object: &[u8]| {
            let text = String::from_utf8_lossy(object);
            text.split_whitespace().next().unwrap_or("none").to_owned()
        };
        let (commit, tag) = (first(&git.commit_object), first(&git.tag_object));
        let is_tag = !git.commit_checksum.is_empty();
        if is_tag {
            assert_ne!(git.checksum, git.commit_checksum);
        }
        if return_object && is_tag {
            let tag = String::from_utf8_lossy(&git.tag_object).into_owned();
            assert!(tag.contains(&git.commit_checksum), "{tag}");
        }
        lines.push(format!("{} {is_tag} {commit} {tag}", git.r#ref));
    }
    Ok(lines)
}

async fn file(gateway: &mut Gateway, url: &str) -> Result<Vec<String>, tonic::Status> {
    let mut lines = Vec::new();
    for (algo, suffix) in [(0, "!"), (1, "!"), (2, ""), (0, &"x".repeat(5000) as &str)] {
        let request = wire::ResolveSourceMetaRequest {
            http: Some(wire::ResolveSourceHttpRequest {
                checksum_request: Some(wire::ChecksumRequest {
                    algo,
                    suffix: suffix.as_bytes().to_vec(),
                }),
            }),
            ..request(url, &[])
        };
        match gateway.resolve_source_meta(request).await {
            Ok(found) => {
                let http = found.into_inner().http.unwrap();
                let hash = http.checksum_response.unwrap();
                assert_eq!(hash.suffix, suffix.as_bytes());
                lines.push(format!("{} {}", http.filename, hash.digest));
            }
            Err(refused) => lines.push(refused.message().to_owned()),
        }
    }
    let pinned = digest(b"not what is there");
    let request = request(url, &[("http.checksum", &pinned)]);
    let http = gateway
        .resolve_source_meta(request)
        .await?
        .into_inner()
        .http
        .unwrap();
    assert_eq!(http.checksum, pinned);
    Ok(lines)
}
