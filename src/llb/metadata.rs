//! What is said about an op without being part of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pb;
use super::{AFTER, CUSTOM_NAME, DOCKERFILE_COMMAND, VertexDigest};
use crate::oci::Digest;

/// What the worker must be capable of, by name.
pub type Caps = BTreeMap<String, bool>;

/// What is said about an op (pb.OpMetadata).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Whether the op must run although a result is known.
    pub ignore_cache: bool,
    /// Name that people read; empty for a default one.
    pub name: String,
    /// The command of the Dockerfile that the op comes from.
    pub command: Option<String>,
    /// Vertices that are solved before it runs, although it uses nothing of them. They are no
    /// part of any cache key.
    pub after: BTreeSet<VertexDigest>,
    /// Further texts, which nothing here reads.
    pub description: BTreeMap<String, String>,
    /// Whether the result may be exported to a cache, where that is said.
    pub export_cache: Option<pb::ExportCache>,
    /// What the worker must be capable of; thousands of ops share a few sets.
    pub caps: Arc<Caps>,
    /// Group of ops that are shown as one.
    pub progress_group: Option<pb::ProgressGroup>,
    /// Limits of the process, which are no part of its cache key.
    pub resources: Option<pb::LinuxResources>,
}

impl Metadata {
    /// Converts from the message.
    pub fn from_pb(message: pb::OpMetadata) -> Self {
        let mut description = message.description;
        Self {
            ignore_cache: message.ignore_cache,
            name: description.remove(CUSTOM_NAME).unwrap_or_default(),
            command: description.remove(DOCKERFILE_COMMAND),
            after: digests(&description.remove(AFTER).unwrap_or_default()),
            description,
            export_cache: message.export_cache,
            caps: Arc::new(message.caps),
            progress_group: message.progress_group,
            resources: message.linux_resources,
        }
    }

    /// Converts to the message.
    pub fn to_pb(&self) -> pb::OpMetadata {
        pb::OpMetadata {
            ignore_cache: self.ignore_cache,
            description: self.texts(),
            export_cache: self.export_cache,
            caps: Caps::clone(&self.caps),
            progress_group: self.progress_group.clone(),
            linux_resources: self.resources.clone(),
        }
    }

    /// Returns whether anything is said in words.
    pub fn has_texts(&self) -> bool {
        !self.name.is_empty()
            || self.command.is_some()
            || !self.after.is_empty()
            || !self.description.is_empty()
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let mut texts = self.description.clone();
        if !self.name.is_empty() {
            texts.insert(CUSTOM_NAME.to_owned(), self.name.clone());
        }
        if let Some(command) = &self.command {
            texts.insert(DOCKERFILE_COMMAND.to_owned(), command.clone());
        }
        if !self.after.is_empty() {
            let after: Vec<String> = self.after.iter().map(VertexDigest::to_string).collect();
            texts.insert(AFTER.to_owned(), after.join(","));
        }
        texts
    }
}

/// Reads a list of digests; what is none is left out.
fn digests(text: &str) -> BTreeSet<VertexDigest> {
    let digests = text
        .split(',')
        .filter_map(|text| text.parse::<Digest>().ok());
    digests.map(VertexDigest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_wire() {
        let metadata = Metadata {
            ignore_cache: true,
            name: "RUN x".to_owned(),
            command: Some("run x".to_owned()),
            after: BTreeSet::from([VertexDigest::of(b"a"), VertexDigest::of(b"b")]),
            description: BTreeMap::from([("other".to_owned(), "text".to_owned())]),
            export_cache: Some(pb::ExportCache { value: true }),
            caps: Arc::new(Caps::from([("exec.meta.base".to_owned(), true)])),
            progress_group: Some(pb::ProgressGroup {
                id: "1".to_owned(),
                name: "group".to_owned(),
                weak: true,
            }),
            resources: Some(pb::LinuxResources {
                memory: 1 << 20,
                cpuset_cpus: "0".to_owned(),
                ..pb::LinuxResources::default()
            }),
        };
        let message = metadata.to_pb();
        assert_eq!(message.description[CUSTOM_NAME], "RUN x");
        assert_eq!(message.description.len(), 4);
        assert_eq!(Metadata::from_pb(message), metadata);
    }
}
