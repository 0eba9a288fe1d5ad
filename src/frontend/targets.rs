//! What a Dockerfile can build: its stages, for someone who chooses one.

use serde::Serialize;

use super::dockerfile::{self, Dockerfile};
use super::error::FrontendError;
use super::subrequest::{self, Location};

/// The stages of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetList {
    /// The stages, in order.
    pub targets: Vec<Target>,
    /// The Dockerfile.
    #[serde(rename = "sources", serialize_with = "subrequest::as_base64_list")]
    pub source: String,
}

/// Describes a stage to someone who chooses a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Name of the stage in lower case; empty for one that is chosen by number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is built when no target is named.
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it starts from, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `--platform`, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Lines of its `FROM`.
    pub location: Location,
}

impl TargetList {
    /// Reads a Dockerfile and lists its stages; nothing is expanded or looked up.
    ///
    /// # Errors
    ///
    /// Fails when the Dockerfile cannot be read.
    pub fn read(text: &str) -> Result<Self, FrontendError> {
        let (file, _) = dockerfile::parse(text)?;
        Ok(Self {
            targets: targets(&file),
            source: text.to_owned(),
        })
    }

    /// Returns a table for people.
    pub fn text(&self) -> String {
        let name = |target: &Target| match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        let names: Vec<String> = self.targets.iter().map(name).collect();
        let cells = names.iter().zip(&self.targets);
        let mut rows = vec![["TARGET", "DESCRIPTION"]];
        rows.extend(cells.map(|(name, target)| [name.as_str(), target.description.as_str()]));
        subrequest::columns(&rows, 1)
    }
}

/// Lists the stages of a parsed Dockerfile.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let stages = file.stages.iter().enumerate().map(|(index, stage)| {
        let name = stage.name().unwrap_or_default();
        let description = match name.as_str() {
            "" => None,
            name => stage.header.description(name),
        };
        Target {
            description: description.unwrap_or_default().to_owned(),
            name,
            is_default: index + 1 == file.stages.len(),
            base: stage.from.image.raw.clone(),
            platform: match &stage.from.platform {
                Some(word) => word.raw.clone(),
                None => String::new(),
            },
            location: Location::of(stage.header.span),
        }
    });
    stages.collect()
}
