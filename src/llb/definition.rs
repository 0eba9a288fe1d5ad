//! A definition: the marshalled ops of a build, what is said about them, where they come from.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use prost::Message;

use super::pb;
use super::{Metadata, SourceMap, VertexDigest};
use crate::oci::{Digest, Platform};

/// Most ops a definition may hold.
pub const OPS_MAX: usize = 100_000;

/// A content-addressed graph of operations, in BuildKit's wire form (pb.Definition).
///
/// The ops stand in topological order; the last one is terminal: it has one input, which is
/// the result, and no operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// The marshalled ops, kept verbatim: their hashes are their names.
    pub ops: Vec<Bytes>,
    /// What is said about each op without being part of it.
    pub metadata: BTreeMap<VertexDigest, Metadata>,
    /// Where each op stands in the user's files.
    pub source: Option<SourceMap>,
}

/// One output of one vertex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutputRef {
    /// The vertex.
    pub vertex: VertexDigest,
    /// Which of its outputs.
    pub index: u32,
}

/// A decoded op with its name and inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// Digest of the marshalled op.
    pub digest: VertexDigest,
    /// The decoded op.
    pub op: pb::op::Op,
    /// Its inputs, in order.
    pub inputs: Vec<OutputRef>,
    /// The platform it runs on; the host's where the op names none.
    pub platform: Platform,
    /// What is said about it.
    pub metadata: Metadata,
}

impl Vertex {
    /// Returns what people read about the step, without a number: its custom name or its kind.
    pub fn name(&self) -> String {
        match self.metadata.name.as_str() {
            "" => super::op::default_name(&self.op),
            name => name.to_owned(),
        }
    }
}

/// A definition, decoded and checked: every input exists and stands before its user.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The vertices, inputs before users, without the terminal op.
    pub vertices: Vec<Vertex>,
    /// The wanted outputs, one for each definition; `None` for the empty (scratch) result.
    pub results: Vec<Option<OutputRef>>,
}

impl Loaded {
    /// Joins several definitions to one graph, in which equal vertices are one.
    ///
    /// What the first definition says about a vertex stands; it runs anew, and waits for others,
    /// if any of them says so.
    pub fn joined(all: Vec<Self>) -> Self {
        let mut joined = Self {
            vertices: Vec::new(),
            results: Vec::new(),
        };
        let mut known: HashMap<VertexDigest, usize> = HashMap::new();
        for loaded in all {
            for vertex in loaded.vertices {
                match known.get(&vertex.digest) {
                    Some(&index) => {
                        let metadata = &mut joined.vertices[index].metadata;
                        metadata.ignore_cache |= vertex.metadata.ignore_cache;
                        metadata.after.extend(vertex.metadata.after);
                    }
                    None => {
                        known.insert(vertex.digest.clone(), joined.vertices.len());
                        joined.vertices.push(vertex);
                    }
                }
            }
            joined.results.extend(loaded.results);
        }
        joined
    }
}

/// Says why bytes are not a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDefinition {
    /// An op could not be decoded.
    #[error("op {index} of the definition cannot be decoded: {reason}")]
    Undecodable {
        /// Position of the op.
        index: usize,
        /// What the decoder said.
        reason: String,
    },
    /// An op has no operation although it is not the last.
    #[error("op {0} of the definition has no operation")]
    NoOperation(usize),
    /// An input names an op that does not stand before its user.
    #[error("op {index} of the definition has an unknown input {input:?}")]
    UnknownInput {
        /// Position of the op.
        index: usize,
        /// The digest that it names.
        input: String,
    },
    /// The last op is not a terminal op with one input.
    #[error("the last op of the definition is not terminal")]
    NoResult,
    /// Ops consume each other in a circle.
    #[error("the ops of the definition consume each other in a circle")]
    Circle,
    /// Bytes are no definition at all.
    #[error("this is no LLB definition: {0}")]
    NotADefinition(String),
    /// Too many ops.
    #[error("the definition has more than {OPS_MAX} ops")]
    TooLarge,
}

impl Definition {
    /// Converts to the protobuf message.
    pub fn to_pb(&self) -> pb::Definition {
        pb::Definition {
            def: self.ops.iter().map(|op| op.to_vec()).collect(),
            metadata: self
                .metadata
                .iter()
                .map(|(digest, metadata)| (digest.to_string(), metadata.to_pb()))
                .collect(),
            source: self.source.as_ref().map(SourceMap::to_pb),
        }
    }

    /// Writes the bytes that other LLB clients read.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_pb().encode_to_vec()
    }

    /// Reads bytes that an LLB client wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidDefinition> {
        let message = pb::Definition::decode(bytes)
            .map_err(|error| InvalidDefinition::NotADefinition(error.to_string()))?;
        Ok(Self::from_pb(message))
    }

    /// Converts from the protobuf message.
    pub fn from_pb(message: pb::Definition) -> Self {
        let metadata = message
            .metadata
            .into_iter()
            .filter_map(|(digest, metadata)| {
                let digest = VertexDigest(digest.parse::<Digest>().ok()?);
                Some((digest, Metadata::from_pb(metadata)))
            });
        Self {
            metadata: metadata.collect(),
            ops: message.def.into_iter().map(Bytes::from).collect(),
            source: message.source.map(SourceMap::from_pb),
        }
    }

    /// Decodes and checks every op.
    pub fn load(&self) -> Result<Loaded, InvalidDefinition> {
        let Some((last, ops)) = self.ops.split_last() else {
            return Ok(Loaded {
                vertices: Vec::new(),
                results: vec![None],
            });
        };
        if ops.len() > OPS_MAX {
            return Err(InvalidDefinition::TooLarge);
        }
        let all: HashSet<VertexDigest> = ops.iter().map(|op| VertexDigest::of(op)).collect();
        let mut known = HashSet::new();
        let mut vertices = Vec::with_capacity(ops.len());
        for (index, bytes) in ops.iter().enumerate() {
            let message = decode(index, bytes)?;
            let inputs = inputs_of(index, &message, &all)?;
            let digest = VertexDigest::of(bytes);
            let metadata = self.metadata.get(&digest).cloned().unwrap_or_default();
            let platform = message
                .platform
                .as_ref()
                .map_or_else(Platform::host, super::platform::from_pb);
            let op = message.op.ok_or(InvalidDefinition::NoOperation(index))?;
            if known.insert(digest.clone()) {
                vertices.push(Vertex {
                    digest,
                    op,
                    inputs,
                    platform,
                    metadata,
                });
            }
        }
        let terminal = decode(ops.len(), last)?;
        let mut inputs = inputs_of(ops.len(), &terminal, &known)?;
        match (terminal.op, inputs.pop(), inputs.is_empty()) {
            (None, Some(result), true) => Ok(Loaded {
                vertices: in_order(vertices)?,
                results: vec![Some(result)],
            }),
            _ => Err(InvalidDefinition::NoResult),
        }
    }
}

/// Puts inputs before their users, which most definitions do themselves.
fn in_order(vertices: Vec<Vertex>) -> Result<Vec<Vertex>, InvalidDefinition> {
    let mut seen: HashSet<&VertexDigest> = HashSet::new();
    let is_ordered = vertices.iter().all(|vertex| {
        let ready = vertex.inputs.iter().all(|i| seen.contains(&i.vertex));
        seen.insert(&vertex.digest);
        ready
    });
    if is_ordered {
        return Ok(vertices);
    }
    let mut users: HashMap<VertexDigest, Vec<usize>> = HashMap::new();
    let mut missing = Vec::with_capacity(vertices.len());
    for (user, vertex) in vertices.iter().enumerate() {
        let inputs: BTreeSet<&VertexDigest> = vertex.inputs.iter().map(|i| &i.vertex).collect();
        missing.push(inputs.len());
        for input in inputs {
            users.entry(input.clone()).or_default().push(user);
        }
    }
    let count = vertices.len();
    let mut waiting: Vec<Option<Vertex>> = vertices.into_iter().map(Some).collect();
    let mut ready: VecDeque<usize> = (0..count).filter(|index| missing[*index] == 0).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(vertex) = ready.pop_front().and_then(|index| waiting[index].take()) {
        for user in users.remove(&vertex.digest).unwrap_or_default() {
            missing[user] -= 1;
            if missing[user] == 0 {
                ready.push_back(user);
            }
        }
        ordered.push(vertex);
    }
    match ordered.len() == count {
        true => Ok(ordered),
        false => Err(InvalidDefinition::Circle),
    }
}

fn decode(index: usize, bytes: &Bytes) -> Result<pb::Op, InvalidDefinition> {
    pb::Op::decode(bytes.clone()).map_err(|error| InvalidDefinition::Undecodable {
        index,
        reason: error.to_string(),
    })
}

fn inputs_of(
    index: usize,
    message: &pb::Op,
    known: &HashSet<VertexDigest>,
) -> Result<Vec<OutputRef>, InvalidDefinition> {
    let resolve = |input: &pb::Input| {
        let unknown = || InvalidDefinition::UnknownInput {
            index,
            input: input.digest.clone(),
        };
        let vertex = VertexDigest(input.digest.parse().map_err(|_| unknown())?);
        let output = u32::try_from(input.index).map_err(|_| unknown())?;
        if known.contains(&vertex) {
            Ok(OutputRef {
                vertex,
                index: output,
            })
        } else {
            Err(unknown())
        }
    };
    message.inputs.iter().map(resolve).collect()
}
