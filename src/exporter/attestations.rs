//! Statements about a result: manifests in the index of an image, files beside a tree.
//!
//! In an image, as BuildKit stores them and `docker buildx imagetools` reads them: one manifest
//! for each platform, behind all images of the index, that no runtime takes for an image.
//!
//! ```text
//! index      … {mediaType, digest, size, platform: unknown/unknown, annotations:
//!              vnd.docker.reference.type=attestation-manifest, vnd.docker.reference.digest=IMAGE}
//! manifest   artifactType application/vnd.docker.attestation.manifest.v1+json, subject IMAGE,
//!            config: the empty object; layers: one statement each, application/vnd.in-toto+json,
//!            annotation in-toto.io/predicate-type
//! ```
//!
//! With `oci-artifact=false` the manifest has no artifact type and no subject, and its config is
//! that of an image for an unknown platform, for registries that take nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Error;
use super::export::{ExportRequest, PlatformResult};
use super::image::Image;
use super::output::OutputSpec;
use crate::attestation::{Attestation, IN_TOTO, PackageUrl, Subject};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Platform, Reference, media_type};
use crate::sys::metadata::FileKind;
use crate::sys::root::Root;

/// Type of a manifest of statements.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Media type of the config that says nothing.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation of a descriptor that names what kind of reference it is.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Annotation of a descriptor that names the image it is about.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// Annotation of a layer that names its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Operating system and processor of what is no image.
const UNKNOWN: &str = "unknown";
/// Bytes hashed at a time.
const READ_BYTES: usize = 128 * 1024;

/// Says whether the image of an output carries what is said about it.
///
/// Statements that only images carry do not turn an archive of one manifest into one of an index;
/// Docker's archives have no index.
pub(super) fn are_carried(output: &OutputSpec, request: &ExportRequest) -> bool {
    let (OutputSpec::Image { options, .. } | OutputSpec::Oci { options, .. }) = output else {
        return false;
    };
    let is_image = matches!(output, OutputSpec::Image { .. });
    let forced = options.attestation_inline.unwrap_or(is_image) || request.multi_platform;
    let mut all = request.results.iter().flat_map(|r| &r.attestations);
    all.any(|attestation| forced || !attestation.inline_only)
}

/// The manifest of what is said about an image.
#[derive(Debug)]
pub(super) struct AttestationManifest {
    /// What the index says about it.
    pub(super) descriptor: Descriptor,
    /// Everything to store: statements, config, the manifest.
    pub(super) blobs: Vec<Vec<u8>>,
}

/// Writes the manifest of what is said about an image.
pub(super) fn assemble(
    image: &Image,
    result: &PlatformResult,
    names: &[Reference],
    oci_artifact: bool,
) -> Result<AttestationManifest, serde_json::Error> {
    let target = &image.manifest_document.descriptor;
    let subjects = subjects_of(&target.digest, names, &result.platform);
    // Where layers were joined, nobody knows which of them brought what.
    let is_as_built = image.manifest.layers.len() == result.layers.len();
    let known: &[Descriptor] = if is_as_built {
        &image.manifest.layers
    } else {
        &[]
    };
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for attestation in &result.attestations {
        let bytes = attestation.statement(&subjects, known)?.to_bytes()?;
        let annotations = [(
            PREDICATE_TYPE.to_owned(),
            attestation.predicate_type.clone(),
        )];
        layers.push(Descriptor {
            annotations: annotations.into(),
            ..Descriptor::of(IN_TOTO, &bytes)
        });
        blobs.push(bytes);
    }
    let (config, config_descriptor) = match oci_artifact {
        true => (b"{}".to_vec(), json!({"data": "e30="})),
        false => (legacy_config(&layers)?, json!({})),
    };
    let config_type = if oci_artifact {
        EMPTY
    } else {
        media_type::OCI_CONFIG
    };
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
    });
    if oci_artifact {
        manifest["artifactType"] = ARTIFACT.into();
    }
    manifest["config"] = described(config_type, &config, config_descriptor)?;
    manifest["layers"] = serde_json::to_value(&layers)?;
    if oci_artifact {
        let (digest, size) = (target.digest.clone(), target.size);
        let subject = Descriptor::new(&target.media_type, digest, size);
        manifest["subject"] = serde_json::to_value(subject)?;
    }
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    let annotations = [
        (REFERENCE_DIGEST.to_owned(), target.digest.to_string()),
        (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
    ];
    let descriptor = Descriptor {
        annotations: annotations.into(),
        platform: Some(Platform {
            architecture: UNKNOWN.to_owned(),
            os: UNKNOWN.to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
            variant: String::new(),
        }),
        ..Descriptor::of(media_type::OCI_MANIFEST, &bytes)
    };
    blobs.extend([config, bytes]);
    Ok(AttestationManifest { descriptor, blobs })
}

/// Describes bytes, with members that descriptors seldom have.
fn described(media_type: &str, bytes: &[u8], more: Value) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(Descriptor::of(media_type, bytes))?;
    if let (Some(members), Value::Object(more)) = (value.as_object_mut(), more) {
        members.extend(more);
    }
    Ok(value)
}

fn legacy_config(layers: &[Descriptor]) -> Result<Vec<u8>, serde_json::Error> {
    let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    serde_json::to_vec(&json!({
        "architecture": UNKNOWN,
        "os": UNKNOWN,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
}

/// Names an image by all its names.
fn subjects_of(digest: &Digest, names: &[Reference], platform: &Platform) -> Vec<Subject> {
    if names.is_empty() {
        return vec![Subject::new(Subject::NAMELESS, digest)];
    }
    let subject = |name: &Reference| {
        let name = PackageUrl::of_image("docker", name, Some(platform));
        Subject::new(&name.to_string(), digest)
    };
    names.iter().map(subject).collect()
}

/// A file that says something about the tree it lies in.
#[derive(Debug, Clone)]
pub(super) struct StatementFile {
    /// Its name.
    pub(super) name: String,
    /// What it says.
    pub(super) text: String,
    /// Its time, in seconds since 1970.
    pub(super) time_s: i64,
}

/// Writes the files of what is said about a tree: about each of its regular files. `suffix` tells
/// those of several platforms in one folder apart.
pub(super) fn files(
    tree: &Path,
    result: &PlatformResult,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<StatementFile>, Error> {
    let spoken = result.attestations.iter().filter(|one| !one.inline_only);
    let spoken: Vec<&Attestation> = spoken.collect();
    if spoken.is_empty() {
        return Ok(Vec::new());
    }
    let subjects = subjects_in(tree).map_err(Error::io("hash the files of", tree))?;
    let file = |attestation: &&Attestation| {
        let statement = attestation.statement(&subjects, &[])?;
        let name = with_suffix(&attestation.filename, suffix);
        Ok(StatementFile {
            name: format!("{prefix}{name}"),
            text: statement.to_text()?,
            time_s: attestation.time_s,
        })
    };
    let files: Vec<StatementFile> = spoken.iter().map(file).collect::<Result<_, Error>>()?;
    let mut names = BTreeSet::new();
    match files.iter().find(|file| !names.insert(&file.name)) {
        Some(file) => Err(Error::SameStatement(file.name.clone())),
        None => Ok(files),
    }
}

/// Puts a suffix before the extension: `provenance.linux_amd64.json`.
fn with_suffix(name: &str, suffix: &str) -> String {
    match (suffix, name.rsplit_once('.')) {
        ("", _) => name.to_owned(),
        (suffix, Some((stem, extension))) => format!("{stem}.{suffix}.{extension}"),
        (suffix, None) => format!("{name}.{suffix}"),
    }
}

/// Hashes the regular files of a tree, in the order of their paths.
fn subjects_in(tree: &Path) -> io::Result<Vec<Subject>> {
    let root = Root::open(tree)?;
    let mut found: BTreeMap<PathBuf, Digest> = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for entry in root.read_dir(&directory)? {
            let path = directory.join(entry.os_name());
            match root.lstat(&path)?.kind {
                FileKind::Directory => open.push(path),
                FileKind::Regular => {
                    let digest = hashed(&root, &path)?;
                    found.insert(path, digest);
                }
                _ => {}
            }
        }
    }
    let subject =
        |(path, digest): (&PathBuf, &Digest)| Subject::new(&path.to_string_lossy(), digest);
    Ok(found.iter().map(subject).collect())
}

fn hashed(root: &Root, path: &Path) -> io::Result<Digest> {
    let mut file = root.open_read(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_platforms_have_their_names() {
        for (name, suffix, expected) in [
            ("provenance.json", "", "provenance.json"),
            (
                "provenance.json",
                "linux_amd64",
                "provenance.linux_amd64.json",
            ),
            (
                "sbom.spdx.json",
                "linux_arm_v7",
                "sbom.spdx.linux_arm_v7.json",
            ),
            ("vex", "linux_amd64", "vex.linux_amd64"),
        ] {
            assert_eq!(with_suffix(name, suffix), expected);
        }
    }
}
