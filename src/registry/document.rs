//! Manifests and indexes from outside, checked before anyone believes them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::oci::{Index, Manifest, media_type};

/// Largest image manifest that is read.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest index that is read.
pub const INDEX_BYTES_MAX: u64 = 8 << 20;
/// Deepest nesting of indexes.
pub const INDEX_DEPTH_MAX: u32 = 10;
/// Most layers of one manifest. Images have far fewer; a cache may name thousands of blobs.
pub const LAYERS_MAX: usize = 10_000;

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Images of several platforms.
    Index(Index),
}

/// Says why a document is neither a manifest nor an index that can be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDocument {
    /// It is not JSON of the right shape.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// It could be read as two different things (CVE-2021-41190).
    #[error("it is an index and a manifest at once")]
    Ambiguous,
    /// Its own media type is not the one it was announced with (CVE-2021-41190).
    #[error("it says that it is {written}, but was announced as {announced}")]
    TypeMismatch {
        /// The type in the document.
        written: String,
        /// The type in the header or descriptor.
        announced: String,
    },
    /// It is of a type that is not supported.
    #[error("its media type {0} is not supported")]
    Unsupported(String),
    /// It breaks a limit.
    #[error("it has {count} {things}, more than the limit of {limit}")]
    TooMany {
        /// What there is too much of.
        things: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Parses a document that was announced as `announced` (a `Content-Type` or the media type of a
/// descriptor; empty when unknown). Returns its media type too.
pub fn parse(announced: &str, bytes: &[u8]) -> Result<(String, Document), InvalidDocument> {
    let malformed = |error: serde_json::Error| InvalidDocument::Malformed(error.to_string());
    let shape: Shape = serde_json::from_slice(bytes).map_err(malformed)?;
    let media_type = media_type_of(announced, &shape)?;
    let (is_index, is_manifest) = (
        shape.manifests.is_some(),
        shape.config.is_some() || shape.layers.is_some() || shape.fs_layers.is_some(),
    );
    if is_index && is_manifest {
        return Err(InvalidDocument::Ambiguous);
    }
    if media_type::is_index(&media_type) != is_index {
        let problem = format!("it does not have the members of {media_type}");
        return Err(InvalidDocument::Malformed(problem));
    }
    if shape.schema_version != Some(2) {
        return Err(InvalidDocument::Malformed(
            "its schema version is not 2".to_owned(),
        ));
    }
    let document = if media_type::is_index(&media_type) {
        Document::Index(serde_json::from_slice(bytes).map_err(malformed)?)
    } else {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
        check_limit("layers", manifest.layers.len(), LAYERS_MAX)?;
        check_limit("bytes", bytes.len(), MANIFEST_BYTES_MAX as usize)?;
        Document::Manifest(Box::new(manifest))
    };
    Ok((media_type, document))
}

fn media_type_of(announced: &str, shape: &Shape) -> Result<String, InvalidDocument> {
    let announced = announced.split(';').next().unwrap_or_default().trim();
    let known = |text: &str| media_type::is_index(text) || media_type::is_manifest(text);
    // Servers that know nothing of images announce everything like this.
    let vague = [
        "",
        "application/json",
        "text/plain",
        "application/octet-stream",
    ];
    let written = shape.media_type.as_deref().filter(|text| !text.is_empty());
    let announced = Some(announced).filter(|text| !vague.contains(text));
    let guessed = match shape {
        Shape {
            manifests: Some(_), ..
        } => media_type::OCI_INDEX,
        Shape {
            fs_layers: Some(_), ..
        } => "application/vnd.docker.distribution.manifest.v1+json",
        _ => media_type::OCI_MANIFEST,
    };
    let chosen = match (written, announced) {
        (Some(written), Some(announced)) if written != announced => {
            return Err(InvalidDocument::TypeMismatch {
                written: written.to_owned(),
                announced: announced.to_owned(),
            });
        }
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => guessed,
    };
    if known(chosen) {
        Ok(chosen.to_owned())
    } else {
        Err(InvalidDocument::Unsupported(chosen.to_owned()))
    }
}

fn check_limit(things: &'static str, count: usize, limit: usize) -> Result<(), InvalidDocument> {
    if count <= limit {
        return Ok(());
    }
    Err(InvalidDocument::TooMany {
        things,
        count,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_what_they_say_or_are_refused() {
        const D: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let oci = media_type::OCI_MANIFEST;
        let docker = media_type::DOCKER_MANIFEST;
        let index = media_type::OCI_INDEX;
        let config = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[]}}"#);
        let typed =
            format!(r#"{{"schemaVersion":2,"mediaType":"{docker}","config":{D},"layers":null}}"#);
        let list = format!(r#"{{"schemaVersion":2,"manifests":[{D}]}}"#);
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{D},"layers":[]}}"#);
        let no_version = format!(r#"{{"config":{D},"layers":[]}}"#);
        for (announced, text, expected) in [
            (oci, &config, Ok(oci)),
            ("", &config, Ok(oci)),
            ("application/json; charset=utf-8", &list, Ok(index)),
            (docker, &typed, Ok(docker)),
            ("", &typed, Ok(docker)),
            (oci, &typed, Err("was announced as")),
            (index, &both, Err("at once")),
            (oci, &both, Err("at once")),
            (oci, &no_version, Err("schema version")),
            (oci, &"{".to_owned(), Err("malformed")),
            (oci, &"[]".to_owned(), Err("malformed")),
            (
                "",
                &r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
                Err("manifest.v1+json is not supported"),
            ),
            (
                "",
                &r#"{"schemaVersion":2,"mediaType":"text/html"}"#.to_owned(),
                Err("text/html is not supported"),
            ),
            (index, &config, Err("malformed")),
        ] {
            match (parse(announced, text.as_bytes()), expected) {
                (Ok((found, _)), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{text}: {error}");
                }
                (found, expected) => panic!("{announced} {text}: {found:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn too_many_layers_are_refused() {
        let layer = crate::oci::Descriptor::of(media_type::OCI_LAYER, b"");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "config": layer, "layers": vec![&layer; LAYERS_MAX + 1],
        });
        let error = parse("", manifest.to_string().as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has 10001 layers, more than the limit of 10000"
        );
    }
}
