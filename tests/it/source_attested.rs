//! What is said about images in registries: chains that can be verified.

use cooper::oci::{Descriptor, Digest, Platform, media_type};
use cooper::progress::VertexProgress;
use cooper::source::{AttestationChain, Images, PinnedImage, ResolveMode};
use serde_json::{Value, json};

use crate::source::Env;

/// What the only statement says.
const STATEMENT: &[u8] = b"{\"said\":1}";

fn put(env: &Env, tag: &str, kind: &str, document: &Value) -> Descriptor {
    let bytes = serde_json::to_vec(document).unwrap();
    let digest = env.registry.put_manifest("app", tag, kind, &bytes);
    Descriptor::new(kind, digest, bytes.len() as u64)
}

/// A manifest of one statement.
fn manifest(env: &Env, tag: &str, predicate_type: &str) -> Descriptor {
    let (statement, empty) = (
        env.registry.put_blob("app", STATEMENT),
        env.registry.put_blob("app", b"{}"),
    );
    let document = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json",
                   "digest": empty.to_string(), "size": 2},
        "layers": [{
            "mediaType": "application/vnd.in-toto+json", "digest": statement.to_string(),
            "size": STATEMENT.len(),
            "annotations": {"in-toto.io/predicate-type": predicate_type},
        }],
    });
    put(env, tag, media_type::OCI_MANIFEST, &document)
}

fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests})
}

/// An image in an index, with a statement about it.
fn attested(env: &Env) -> Descriptor {
    let image = env.registry.put_image("app", "image", b"layer");
    let size = env.registry.manifest("app", "image").unwrap().len();
    let about = manifest(env, "about", "https://x/y");
    let entries = [
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": image.to_string(), "size": size,
               "platform": {"os": "linux", "architecture": "amd64"}}),
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": about.digest.to_string(),
               "size": about.size, "platform": {"os": "unknown", "architecture": "unknown"},
               "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                               "vnd.docker.reference.digest": image.to_string()}}),
    ];
    put(env, "1", media_type::OCI_INDEX, &index(&entries));
    about
}

async fn chain(images: &Images, image: &PinnedImage, types: &[&str]) -> Option<AttestationChain> {
    let types: Vec<String> = types.iter().map(|text| (*text).to_owned()).collect();
    let silent = VertexProgress::silent();
    let chain = images.attestation_chain(image, &types, &silent).await;
    chain.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_about_an_image_is_a_chain() {
    let env = Env::new();
    let about = attested(&env);
    let (images, name, platform) = (
        env.images(),
        env.name("app:1"),
        Platform::linux("amd64", ""),
    );
    let image = images.resolve(&name, &platform, ResolveMode::Default).await;
    let image = image.unwrap();
    let plain = chain(&images, &image, &[]).await.unwrap();
    assert_eq!((plain.blobs.len(), &plain.signature), (2, &None));
    assert_eq!(plain.statements, Some(about.digest.clone()));
    let others = chain(&images, &image, &["https://x/z"]).await.unwrap();
    assert_eq!(others.blobs.len(), 2);
    let more = chain(&images, &image, &["https://x/y"]).await.unwrap();
    let mut blobs = more.blobs.values();
    assert!(blobs.any(|(_, bytes)| &bytes[..] == STATEMENT));

    // A registry without an account of referrers has them under a tag.
    let signature = manifest(&env, "signature", "s");
    let entry = |kind: &str, digest: &Digest| {
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(),
               "size": signature.size, "artifactType": kind})
    };
    let referrers = [
        entry("text/plain", &about.digest),
        entry(
            "application/vnd.dev.cosign.artifact.sig.v1+json",
            &about.digest,
        ),
        entry(
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            &signature.digest,
        ),
    ];
    let tag = format!("sha256-{}", about.digest.hex());
    put(&env, &tag, media_type::OCI_INDEX, &index(&referrers));
    let signed = chain(&images, &image, &[]).await.unwrap();
    assert_eq!(signed.signature.as_ref(), Some(&signature.digest));
    // The index, the statements' manifest, the signature's and what that holds.
    assert_eq!(signed.blobs.len(), 4);

    env.registry.put_image("app", "alone", b"layer");
    let name = env.name("app:alone");
    let alone = images.resolve(&name, &platform, ResolveMode::Default).await;
    assert_eq!(chain(&images, &alone.unwrap(), &[]).await, None);
}
