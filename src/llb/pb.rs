//! BuildKit's messages, with those fields that the generated types do not know yet.
//!
//! An op that passes its inputs on (`PassthroughOp`) and the limits of single steps
//! (`LinuxResources`) are younger than the crate the other messages come from. Messages that
//! hold them are written out here; once the crate has them, this file is one line again.

use std::collections::BTreeMap;

pub use bollard_buildkit_proto::pb::*;

/// A vertex of the graph.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Op {
    /// What it consumes.
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<Input>,
    /// The platform it runs on.
    #[prost(message, optional, tag = "10")]
    pub platform: Option<Platform>,
    /// What the worker must be.
    #[prost(message, optional, tag = "11")]
    pub constraints: Option<WorkerConstraints>,
    /// What it does.
    #[prost(oneof = "op::Op", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub op: Option<op::Op>,
}

/// What an [`Op`] may do.
pub mod op {
    /// What an op does.
    #[allow(
        clippy::large_enum_variant,
        reason = "the others have this shape, and ops lie in one list"
    )]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Op {
        /// Runs a process.
        #[prost(message, tag = "2")]
        Exec(super::ExecOp),
        /// Brings files from elsewhere.
        #[prost(message, tag = "3")]
        Source(super::SourceOp),
        /// Changes files.
        #[prost(message, tag = "4")]
        File(super::FileOp),
        /// Builds a definition that an input holds.
        #[prost(message, tag = "5")]
        Build(super::BuildOp),
        /// Lays file systems over each other.
        #[prost(message, tag = "6")]
        Merge(super::MergeOp),
        /// Takes what turns one file system into another.
        #[prost(message, tag = "7")]
        Diff(super::DiffOp),
        /// Passes inputs on.
        #[prost(message, tag = "8")]
        Passthrough(super::PassthroughOp),
    }
}

/// Inputs passed on under a name of their own.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct PassthroughOp {
    /// Tells ops with the same inputs apart.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Which input each output is.
    #[prost(int64, repeated, tag = "2")]
    pub outputs: Vec<i64>,
}

/// What is said about an op without being part of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpMetadata {
    /// Whether it runs although a result is known.
    #[prost(bool, tag = "1")]
    pub ignore_cache: bool,
    /// Texts.
    #[prost(btree_map = "string, string", tag = "2")]
    pub description: BTreeMap<String, String>,
    /// Whether the result may be exported to a cache.
    #[prost(message, optional, tag = "4")]
    pub export_cache: Option<ExportCache>,
    /// What the worker must be capable of.
    #[prost(btree_map = "string, bool", tag = "5")]
    pub caps: BTreeMap<String, bool>,
    /// Group of ops that are shown as one.
    #[prost(message, optional, tag = "6")]
    pub progress_group: Option<ProgressGroup>,
    /// Limits of the process, which are no part of its cache key.
    #[prost(message, optional, tag = "7")]
    pub linux_resources: Option<LinuxResources>,
}

/// Limits of a process.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct LinuxResources {
    /// Memory in bytes.
    #[prost(int64, tag = "1")]
    pub memory: i64,
    /// Memory and swap together in bytes.
    #[prost(int64, tag = "2")]
    pub memory_swap: i64,
    /// Relative weight of processor time.
    #[prost(uint64, tag = "3")]
    pub cpu_shares: u64,
    /// Length of a scheduler period in microseconds.
    #[prost(uint64, tag = "4")]
    pub cpu_period: u64,
    /// Processor time in a period.
    #[prost(int64, tag = "5")]
    pub cpu_quota: i64,
    /// Processors that may be used.
    #[prost(string, tag = "6")]
    pub cpuset_cpus: String,
    /// Memory nodes that may be used.
    #[prost(string, tag = "7")]
    pub cpuset_mems: String,
}

/// A graph of marshalled ops with what is said about them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    /// The marshalled ops.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub def: Vec<Vec<u8>>,
    /// What is said about each op, by its digest.
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, OpMetadata>,
    /// Where ops stand in the user's files.
    #[prost(message, optional, tag = "3")]
    pub source: Option<Source>,
}

/// What the generated messages that hold a definition call one.
type Generated = bollard_buildkit_proto::pb::Definition;

impl From<Generated> for Definition {
    fn from(message: Generated) -> Self {
        let metadata = message.metadata.into_iter();
        let metadata = metadata.map(|(digest, about)| {
            let about = OpMetadata {
                ignore_cache: about.ignore_cache,
                description: about.description,
                export_cache: about.export_cache,
                caps: about.caps,
                progress_group: about.progress_group,
                // The generated message does not know them; the gateway puts them back.
                linux_resources: None,
            };
            (digest, about)
        });
        Self {
            def: message.def,
            metadata: metadata.collect(),
            source: message.source,
        }
    }
}

impl From<Definition> for Generated {
    fn from(message: Definition) -> Self {
        let metadata = message.metadata.into_iter();
        let metadata = metadata.map(|(digest, about)| {
            let about = bollard_buildkit_proto::pb::OpMetadata {
                ignore_cache: about.ignore_cache,
                description: about.description,
                export_cache: about.export_cache,
                caps: about.caps,
                progress_group: about.progress_group,
            };
            (digest, about)
        });
        Self {
            def: message.def,
            metadata: metadata.collect(),
            source: message.source,
        }
    }
}
