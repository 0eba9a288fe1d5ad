//! What a frontend returns becomes what our own frontend would have made.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::engine::build::Build;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::platforms::Targets;
use crate::frontend::Lowered;
use crate::frontend::diagnostic::Source;
use crate::gateway::{Answer, Answered, AttestationChain, Blob, Handle, SourceMeta};
use crate::llb::{Definition, pb};
use crate::oci::{ImageConfig, Platform};
use crate::source;
use crate::worker::DescribedSource;

/// The platforms of the results.
const PLATFORMS: &str = "refs.platforms";
/// The config of an image.
pub(super) const CONFIG: &str = "containerimage.config";
/// The config of the image below it.
pub(super) const BASE_CONFIG: &str = "containerimage.base.config";
/// The time of everything new.
pub(super) const EPOCH: &str = "source.date.epoch";

/// [`PLATFORMS`], as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Platforms {
    platforms: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: WrittenPlatform,
}

#[derive(Deserialize)]
struct WrittenPlatform {
    architecture: String,
    os: String,
    #[serde(rename = "os.version", default)]
    os_version: String,
    #[serde(rename = "os.features", default)]
    os_features: Vec<String>,
    #[serde(default)]
    variant: String,
}

impl From<WrittenPlatform> for Platform {
    fn from(written: WrittenPlatform) -> Self {
        Self {
            architecture: written.architecture,
            os: written.os,
            os_version: written.os_version,
            os_features: written.os_features,
            variant: written.variant,
        }
    }
}

/// An answer that makes sense.
pub(super) struct ReadAnswer {
    /// What it is for.
    pub(super) targets: Targets,
    /// What is to be built.
    pub(super) lowered: Vec<Lowered>,
    /// What the frontend calls the platforms of that.
    pub(super) platforms: Vec<String>,
}

impl Build {
    /// Reads an answer.
    pub(super) fn lowered_of(&self, answer: Answer) -> Result<ReadAnswer, EngineError> {
        let metadata = &answer.metadata;
        let platforms = metadata.get(PLATFORMS);
        let platforms = platforms.map(|bytes| parsed::<Platforms>(PLATFORMS, bytes));
        let platforms = platforms.transpose()?.map(|read| read.platforms);
        let source = Source::new(&self.inputs.filename, &self.inputs.text);
        let (mut lowered, mut ids) = (Vec::new(), Vec::new());
        let (named, multi_platform) = match answer.results {
            Answered::One(handle) => {
                let named = platforms.and_then(|all| all.into_iter().next());
                let part = Part::read(metadata, named.as_ref())?;
                ids.push(match &named {
                    Some(named) => named.id.clone(),
                    None => part.image.platform().normalized().to_string(),
                });
                lowered.push(part.lowered(&handle, source)?);
                (
                    named.map(|named| vec![Platform::from(named.platform)]),
                    false,
                )
            }
            Answered::ByName(mut handles) => {
                let all = platforms.ok_or_else(|| wrong("names no platforms of its results"))?;
                if all.len() != handles.len() {
                    return Err(wrong("names other platforms than it has results for"));
                }
                let mut named = Vec::new();
                for platform in all {
                    let handle = handles.remove(&platform.id);
                    let text = format!("has no result for {}", platform.id);
                    let handle = handle.ok_or_else(|| wrong(&text))?;
                    let part = Part::read(metadata, Some(&platform))?;
                    lowered.push(part.lowered(&handle, source.clone())?);
                    ids.push(platform.id);
                    named.push(Platform::from(platform.platform));
                }
                (Some(named), true)
            }
        };
        let targets = self
            .targets()
            .answered(named, multi_platform, &self.request)?;
        Ok(ReadAnswer {
            targets,
            lowered,
            platforms: ids,
        })
    }
}

/// What is said about one result.
struct Part {
    image: ImageConfig,
    base_image: Option<ImageConfig>,
    epoch: Option<i64>,
}

impl Part {
    fn read(
        metadata: &BTreeMap<String, Vec<u8>>,
        named: Option<&Named>,
    ) -> Result<Self, EngineError> {
        let find = |key: &str| {
            let own = named.and_then(|named| metadata.get(&format!("{key}/{}", named.id)));
            own.or_else(|| metadata.get(key))
        };
        let config = |key: &str| {
            let bytes = find(key).filter(|bytes| !bytes.is_empty());
            bytes
                .map(|bytes| parsed::<ImageConfig>(key, bytes))
                .transpose()
        };
        let mut image = config(CONFIG)?.unwrap_or_default();
        if image.os.is_empty() || image.architecture.is_empty() {
            let platform = named.map(|named| Platform {
                architecture: named.platform.architecture.clone(),
                os: named.platform.os.clone(),
                variant: named.platform.variant.clone(),
                ..Platform::host()
            });
            image.set_platform(&platform.unwrap_or_else(Platform::host));
        }
        let epoch = find(EPOCH).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Ok(Self {
            image,
            base_image: config(BASE_CONFIG)?,
            epoch: epoch.and_then(|text| text.trim().parse().ok()),
        })
    }

    fn lowered(self, handle: &Handle, source: Source) -> Result<Lowered, EngineError> {
        let definition = match handle {
            Some(definition) => with_layer(definition)?,
            None => Definition::default(),
        };
        Ok(Lowered {
            definition,
            image: self.image,
            base_image: self.base_image,
            scans: Vec::new(),
            base_name: None,
            bases: Vec::new(),
            arguments: BTreeSet::new(),
            epoch: self.epoch,
            warnings: Vec::new(),
            remarks: Vec::new(),
            source,
        })
    }
}

/// Makes a layer of a result that is a folder of the user: an image has nothing else.
fn with_layer(definition: &Definition) -> Result<Definition, EngineError> {
    let loaded = definition.load().map_err(|error| {
        let text = format!("the frontend returned something that cannot be built: {error}");
        EngineError::new(ErrorKind::User, text).with_source(error)
    })?;
    let result = loaded.results.first().and_then(Option::as_ref);
    let vertex =
        result.and_then(|result| loaded.vertices.iter().find(|v| v.digest == result.vertex));
    let is_folder = vertex.is_some_and(|vertex| {
        matches!(&vertex.op, pb::op::Op::Source(op) if op.identifier.starts_with("local://"))
    });
    match is_folder {
        true => Ok(definition.copied()),
        false => Ok(definition.clone()),
    }
}

fn parsed<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(bytes).map_err(|error| wrong(&format!("{key} is wrong: {error}")))
}

fn wrong(what: &str) -> EngineError {
    let text = format!("the answer of the frontend {what}");
    EngineError::new(ErrorKind::User, text)
}

/// Says what a source is, in the words of the gateway.
pub(super) fn source_meta(described: DescribedSource) -> SourceMeta {
    match described {
        DescribedSource::Commit { pinned, objects } => {
            let is_kept = pinned.source.keep_git_dir;
            let commit = match &objects {
                Some(objects) => objects.commit_id.clone(),
                None if is_kept => String::new(),
                None => pinned.commit,
            };
            let reference = pinned.found_as.unwrap_or_else(|| pinned.object.clone());
            let (commit_object, tag_object) = match objects {
                Some(objects) => (objects.commit, objects.tag.unwrap_or_default()),
                None => Default::default(),
            };
            SourceMeta::Commit {
                // A commit that no tag points at is told once.
                commit: if commit == pinned.object {
                    String::new()
                } else {
                    commit
                },
                object: pinned.object,
                reference,
                commit_object,
                tag_object,
            }
        }
        DescribedSource::File {
            digest,
            name,
            mtime_s,
            checksum,
        } => SourceMeta::File {
            digest,
            name,
            mtime_s,
            checksum,
        },
    }
}

/// Writes what is said about an image in the words of the gateway.
pub(super) fn chain_of(chain: source::AttestationChain) -> AttestationChain {
    let blobs = chain.blobs.into_values();
    AttestationChain {
        root: chain.root.to_string(),
        image_manifest: chain.image.to_string(),
        attestation_manifest: chain.statements.map(|digest| digest.to_string()),
        signature_manifests: chain.signature.iter().map(ToString::to_string).collect(),
        blobs: blobs
            .map(|(descriptor, bytes)| Blob {
                descriptor,
                data: bytes.to_vec(),
            })
            .collect(),
    }
}
