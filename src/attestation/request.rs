//! What a user asks to be said about the result.
//!
//! | option | attributes |
//! |---|---|
//! | `type=provenance` | `mode=min\|max`, `version=v1\|v0.2`, `builder-id=`, `filename=`, `reproducible=BOOL`, `inline-only=BOOL`, `complete-materials=BOOL` |
//! | `type=sbom` | `generator=` and what generators take: without effect, the scanner is built in |
//! | `type=custom` | `predicate-type=URI` or a short name, `file=PATH`, `filename=` |
//!
//! A build argument `BUILDKIT_ATTEST_PROVENANCE` or `BUILDKIT_ATTEST_SBOM` asks for the same, with
//! the attributes as its value. Nothing is said unless it is asked for.

use std::collections::BTreeMap;

use super::provenance::{Mode, SlsaVersion};

/// Begins the names of build arguments that ask for attestations.
pub const BUILD_ARG_PREFIX: &str = "BUILDKIT_ATTEST_";
/// Predicates that only the builder itself may speak.
const RESERVED: &str = "https://slsa.dev/provenance/";
/// File of the provenance beside a tree.
const PROVENANCE_FILE: &str = "provenance.json";
/// Short names of predicate types.
const PREDICATE_TYPES: [(&str, &str); 6] = [
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("openvex", "https://openvex.dev/ns/v0.2.0"),
    ("scai", "https://in-toto.io/attestation/scai/v0.3"),
    ("spdx", super::SPDX),
    (
        "test-result",
        "https://in-toto.io/attestation/test-result/v0.1",
    ),
    ("vuln", "https://in-toto.io/attestation/vulns/v0.2"),
];

/// Attributes as they were typed.
pub type Attributes = BTreeMap<String, String>;

/// Everything that is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationRequest {
    /// How the build was made.
    pub provenance: Option<ProvenanceOptions>,
    /// What the image consists of.
    pub sbom: Option<SbomOptions>,
    /// What the user says.
    pub custom: Vec<Custom>,
    /// Whether the answer of the build tells the provenance, whatever images carry.
    pub reported: Option<Reported>,
    /// What is told of what git knows about the folder.
    pub git: GitFacts,
    /// What the machine says about itself: further members of provenance.
    pub environment: BTreeMap<String, serde_json::Value>,
}

impl AttestationRequest {
    /// Says whether results carry anything.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.sbom.is_none() && self.custom.is_empty()
    }
}

/// What is told of what git knows about the folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GitFacts {
    /// Whether provenance tells it.
    pub info: bool,
    /// Whether labels of the image tell it.
    pub labels: bool,
    /// Whether a tree that holds anything else than its commit is marked.
    pub checks_dirty: bool,
}

/// How much of the provenance the answer of a build tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Materials and invocation.
    Min,
    /// The steps as well.
    Max,
}

/// How provenance is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// How much it tells.
    pub mode: Mode,
    /// The version of SLSA.
    pub version: SlsaVersion,
    /// Who the builder says it is.
    pub builder_id: String,
    /// Name of its file beside a tree.
    pub filename: String,
    /// Whether the user claims that the build is reproducible.
    pub reproducible: bool,
    /// Whether only images carry it.
    pub inline_only: bool,
    /// Whether a build with inputs that cannot be named fails.
    pub complete_materials: bool,
}

impl Default for ProvenanceOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Max,
            version: SlsaVersion::V1,
            builder_id: String::new(),
            filename: PROVENANCE_FILE.to_owned(),
            reproducible: false,
            inline_only: false,
            complete_materials: false,
        }
    }
}

/// How an SBOM is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SbomOptions {
    /// What was asked of a generator image, which is not run.
    pub ignored: Vec<String>,
}

/// A statement of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    /// URI of the kind of predicate.
    pub predicate_type: String,
    /// Name of its file beside a tree.
    pub filename: String,
    /// The predicate: JSON.
    pub predicate: String,
}

/// What was asked for in one option, and whether the user said more than yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// `type=provenance`.
    Provenance(ProvenanceOptions),
    /// `type=sbom`.
    Sbom(SbomOptions),
    /// `type=custom`; the file is still to be read.
    Custom {
        /// URI of the kind of predicate.
        predicate_type: String,
        /// Name of its file beside a tree.
        filename: String,
        /// Where the predicate stands.
        file: String,
    },
}

/// Says why attributes do not describe an attestation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttestation {
    /// No type.
    #[error("attestation type not specified: expected type=provenance, sbom or custom")]
    NoType,
    /// No such type.
    #[error("unknown attestation type {0:?}: expected provenance, sbom or custom")]
    UnknownType(String),
    /// No such attribute.
    #[error("unknown attribute {key:?} of a {kind} attestation: expected {expected}")]
    UnknownAttribute {
        /// The attribute.
        key: String,
        /// The type.
        kind: &'static str,
        /// What there is.
        expected: &'static str,
    },
    /// The value is not one of those that there are.
    #[error("invalid {key} {value:?}: expected {expected}")]
    InvalidValue {
        /// The attribute.
        key: &'static str,
        /// Its value.
        value: String,
        /// What there is.
        expected: &'static str,
    },
    /// An attribute is missing.
    #[error("a custom attestation needs {0}")]
    Missing(&'static str),
    /// The builder alone says how it built.
    #[error("{0} is written by the builder: use --provenance")]
    Reserved(String),
    /// The predicate is not JSON.
    #[error("{file} is not JSON: {reason}")]
    NotJson {
        /// The file.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// Two statements would have the same file.
    #[error("two attestations have the file name {0:?}: give one of them another filename=")]
    SameFilename(String),
}

impl Asked {
    /// Reads the attributes of `--attest`, without `disabled`.
    pub fn from_attributes(mut attributes: Attributes) -> Result<Self, InvalidAttestation> {
        let kind = attributes.remove("type").unwrap_or_default();
        match kind.as_str() {
            "" => Err(InvalidAttestation::NoType),
            "provenance" => Ok(Self::Provenance(ProvenanceOptions::read(attributes)?)),
            "sbom" => Ok(Self::Sbom(SbomOptions {
                ignored: attributes.into_keys().collect(),
            })),
            "custom" => custom(attributes),
            _ => Err(InvalidAttestation::UnknownType(kind)),
        }
    }
}

fn custom(mut attributes: Attributes) -> Result<Asked, InvalidAttestation> {
    let mut take = |key: &'static str| {
        let value = attributes.remove(key).filter(|value| !value.is_empty());
        value.ok_or(InvalidAttestation::Missing(key))
    };
    let written = take("predicate-type")?;
    let file = take("file")?;
    let filename = take("filename");
    let known = PREDICATE_TYPES.iter().find(|(name, _)| *name == written);
    let predicate_type = known.map_or(written, |(_, uri)| (*uri).to_owned());
    if let Some(key) = attributes.into_keys().next() {
        return Err(InvalidAttestation::UnknownAttribute {
            key,
            kind: "custom",
            expected: "predicate-type, file and filename",
        });
    }
    if predicate_type.starts_with(RESERVED) {
        return Err(InvalidAttestation::Reserved(predicate_type));
    }
    if !predicate_type.contains(':') {
        return Err(InvalidAttestation::InvalidValue {
            key: "predicate-type",
            value: predicate_type,
            expected: "a URI, or cyclonedx, openvex, scai, spdx, test-result or vuln",
        });
    }
    let own_name = file.rsplit('/').next().unwrap_or(&file).to_owned();
    let filename = filename.unwrap_or(own_name);
    check_filename(&filename)?;
    Ok(Asked::Custom {
        predicate_type,
        filename,
        file,
    })
}

impl ProvenanceOptions {
    /// Reads attributes.
    pub fn read(attributes: Attributes) -> Result<Self, InvalidAttestation> {
        let mut options = Self::default();
        for (key, value) in attributes {
            match key.as_str() {
                "mode" => options.mode = Mode::read(&value)?,
                "version" => options.version = SlsaVersion::read(&value)?,
                "builder-id" => options.builder_id = value,
                "filename" => {
                    check_filename(&value)?;
                    options.filename = value;
                }
                "reproducible" => options.reproducible = flag("reproducible", value)?,
                "inline-only" => options.inline_only = flag("inline-only", value)?,
                "complete-materials" => {
                    options.complete_materials = flag("complete-materials", value)?;
                }
                _ => {
                    return Err(InvalidAttestation::UnknownAttribute {
                        key,
                        kind: "provenance",
                        expected: "mode, version, builder-id, filename, reproducible, inline-only \
                                   or complete-materials",
                    });
                }
            }
        }
        Ok(options)
    }
}

impl Custom {
    /// Takes a predicate that was read from `file`.
    pub fn new(
        predicate_type: String,
        filename: String,
        file: &str,
        text: &str,
    ) -> Result<Self, InvalidAttestation> {
        let not_json = |error: serde_json::Error| InvalidAttestation::NotJson {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        let predicate: &serde_json::value::RawValue =
            serde_json::from_str(text).map_err(not_json)?;
        Ok(Self {
            predicate_type,
            filename,
            predicate: predicate.get().to_owned(),
        })
    }
}

impl AttestationRequest {
    /// Makes sure that no two statements want the same file beside a tree.
    pub fn check_filenames(&self) -> Result<(), InvalidAttestation> {
        let own = self.provenance.iter().map(|p| p.filename.as_str());
        let own = own.chain(self.sbom.iter().map(|_| super::SBOM_FILE));
        let mut names: Vec<&str> = own
            .chain(self.custom.iter().map(|c| c.filename.as_str()))
            .collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(InvalidAttestation::SameFilename(pair[0].to_owned())),
            None => Ok(()),
        }
    }
}

/// A statement's file lies in the root of a tree, nowhere else.
fn check_filename(name: &str) -> Result<(), InvalidAttestation> {
    match name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        false => Ok(()),
        true => Err(InvalidAttestation::InvalidValue {
            key: "filename",
            value: name.to_owned(),
            expected: "a name without a folder",
        }),
    }
}

fn flag(key: &'static str, value: String) -> Result<bool, InvalidAttestation> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(InvalidAttestation::InvalidValue {
            key,
            value,
            expected: "true or false",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Asked, String> {
        let pair = |field: &str| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            (key.to_owned(), value.to_owned())
        };
        let attributes = text.split(',').map(pair).collect();
        Asked::from_attributes(attributes).map_err(|error| error.to_string())
    }

    #[test]
    fn attributes_are_read() {
        let Ok(Asked::Provenance(options)) = read("type=provenance") else {
            panic!("not provenance")
        };
        assert_eq!(options, ProvenanceOptions::default());
        assert_eq!(options.mode, Mode::Max);
        let text = "type=provenance,mode=min,version=v0.2,builder-id=https://ci/1,filename=p.json,\
                    reproducible=true,inline-only,complete-materials=1";
        let expected = ProvenanceOptions {
            mode: Mode::Min,
            version: SlsaVersion::V02,
            builder_id: "https://ci/1".to_owned(),
            filename: "p.json".to_owned(),
            reproducible: true,
            inline_only: true,
            complete_materials: true,
        };
        assert_eq!(read(text), Ok(Asked::Provenance(expected)));
        let sbom = SbomOptions {
            ignored: vec!["generator".to_owned()],
        };
        assert_eq!(read("type=sbom,generator=x"), Ok(Asked::Sbom(sbom)));
        let vex = Asked::Custom {
            predicate_type: "https://openvex.dev/ns/v0.2.0".to_owned(),
            filename: "vex.json".to_owned(),
            file: "a/vex.json".to_owned(),
        };
        assert_eq!(
            read("type=custom,predicate-type=openvex,file=a/vex.json"),
            Ok(vex)
        );
    }

    #[test]
    fn wrong_attributes_are_refused() {
        for (text, error) in [
            ("mode=max", "attestation type not specified"),
            ("type=vex", "unknown attestation type \"vex\""),
            (
                "type=provenance,mode=big",
                "invalid mode \"big\": expected min or max",
            ),
            (
                "type=provenance,version=v2",
                "invalid version \"v2\": expected v1 or v0.2",
            ),
            (
                "type=provenance,modes=max",
                "unknown attribute \"modes\" of a provenance",
            ),
            (
                "type=provenance,reproducible=no",
                "invalid reproducible \"no\"",
            ),
            ("type=provenance,filename=a/b", "invalid filename \"a/b\""),
            (
                "type=custom,file=x",
                "a custom attestation needs predicate-type",
            ),
            (
                "type=custom,predicate-type=vuln",
                "a custom attestation needs file",
            ),
            (
                "type=custom,file=x,predicate-type=word",
                "invalid predicate-type \"word\": expected a URI",
            ),
            (
                "type=custom,file=x,predicate-type=https://slsa.dev/provenance/v1",
                "is written by the builder",
            ),
        ] {
            let given = read(text).unwrap_err();
            assert!(given.contains(error), "{text}: {given}");
        }
        let custom = |text| Custom::new("a:b".to_owned(), "f".to_owned(), "x", text);
        assert!(
            custom("{")
                .unwrap_err()
                .to_string()
                .contains("x is not JSON")
        );
        assert_eq!(custom(" {\"a\": 1}\n").unwrap().predicate, "{\"a\": 1}");
    }

    #[test]
    fn every_statement_has_a_file_of_its_own() {
        let custom = |filename: &str| Custom {
            predicate_type: "a:b".to_owned(),
            filename: filename.to_owned(),
            predicate: "{}".to_owned(),
        };
        let mut request = AttestationRequest {
            provenance: Some(ProvenanceOptions::default()),
            sbom: Some(SbomOptions::default()),
            custom: vec![custom("a"), custom("b")],
            ..AttestationRequest::default()
        };
        request.check_filenames().unwrap();
        request.custom.push(custom("sbom.spdx.json"));
        assert_eq!(
            request.check_filenames(),
            Err(InvalidAttestation::SameFilename(
                "sbom.spdx.json".to_owned()
            ))
        );
    }
}
