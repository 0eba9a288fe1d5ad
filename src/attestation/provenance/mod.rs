//! How a build was made: SLSA provenance, as BuildKit writes it.
//!
//! Read in order: [`capture`] (the facts, most of them read from the graph), [`steps`] (the graph
//! itself, for `mode=max`), `predicate` (facts to JSON in either version). What each mode tells:
//!
//! | | min | max |
//! |---|---|---|
//! | materials with digests, invocation, times, builder, version control | yes | yes |
//! | frontend, target and other options | yes | yes |
//! | build arguments and labels | no | yes |
//! | ids of secrets and agents | no | yes |
//! | the graph, the Dockerfile, the layers of its steps | no | yes |
//!
//! Values of secrets are never known here; passwords in URLs are hidden everywhere.

mod capture;
mod predicate;
mod steps;

use std::collections::BTreeMap;

use super::request::{InvalidAttestation, ProvenanceOptions, Reported};
use super::{Attestation, Predicate};
use crate::oci::Descriptor;
use std::sync::Arc;

pub use capture::{Capture, ConfigSource, Material};
pub use steps::{StepLayers, Steps};

/// How much provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What cannot leak anything.
    Min,
    /// All there is.
    Max,
}

impl Mode {
    /// Reads `mode=`.
    pub(super) fn read(text: &str) -> Result<Self, InvalidAttestation> {
        match text {
            "min" => Ok(Self::Min),
            "max" | "full" => Ok(Self::Max),
            _ => Err(InvalidAttestation::InvalidValue {
                key: "mode",
                value: text.to_owned(),
                expected: "min or max",
            }),
        }
    }
}

/// A version of SLSA's provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlsaVersion {
    /// Version 1.
    V1,
    /// Version 0.2.
    V02,
}

impl SlsaVersion {
    /// Reads `version=`.
    pub(super) fn read(text: &str) -> Result<Self, InvalidAttestation> {
        match text {
            "v1" => Ok(Self::V1),
            "v0.2" => Ok(Self::V02),
            _ => Err(InvalidAttestation::InvalidValue {
                key: "version",
                value: text.to_owned(),
                expected: "v1 or v0.2",
            }),
        }
    }

    /// Returns the type of the predicate.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// The run of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Tells it from every other run; shared by its platforms.
    pub id: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When everything was built, RFC 3339.
    pub finished: String,
    /// The same in seconds since 1970.
    pub finished_s: i64,
    /// The platform of the machine.
    pub platform: String,
    /// What the machine says about itself: further members of the parameters.
    pub environment: BTreeMap<String, serde_json::Value>,
}

/// The provenance of one result.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// How it is written.
    pub options: ProvenanceOptions,
    /// The facts.
    pub capture: Capture,
    /// The run.
    pub invocation: Invocation,
    /// The graph.
    pub steps: Steps,
    /// Which layers its steps made.
    pub layers: StepLayers,
}

impl Predicate for Provenance {
    fn write(&self, layers: &[Descriptor]) -> Result<String, serde_json::Error> {
        let value = match self.options.version {
            SlsaVersion::V1 => predicate::v1(self, layers),
            SlsaVersion::V02 => predicate::v02(self, layers),
        };
        serde_json::to_string(&value)
    }
}

impl Provenance {
    /// Makes an attestation of it.
    pub fn attestation(self) -> Attestation {
        Attestation {
            filename: self.options.filename.clone(),
            predicate_type: self.options.version.predicate_type().to_owned(),
            inline_only: self.options.inline_only,
            time_s: self.invocation.finished_s,
            about: Vec::new(),
            predicate: Arc::new(self),
        }
    }

    /// Writes it for the answer of a build, which knows version 0.2 only.
    pub fn report(&self, reported: Reported, layers: &[Descriptor]) -> serde_json::Value {
        let mut value = predicate::v02(self, layers);
        if let (Reported::Min, Some(members)) = (reported, value.as_object_mut()) {
            members.shift_remove("buildConfig");
            members.shift_remove("metadata");
        }
        value
    }
}

#[cfg(test)]
mod tests;
