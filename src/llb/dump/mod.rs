//! Definitions for people and tools: JSON lines, a Graphviz graph, a readable text.
//!
//! [`json`] writes one object per op with the members `Op`, `Digest` and `OpMetadata`, as
//! BuildKit's `debug dump-llb` does; [`dot`] a graph; [`text`] numbers the ops and shows every
//! field that is set, for tests and for reading.

mod dot;
mod json;
mod text;

pub use dot::dot;
pub use json::{json, op_to_json};
pub use text::text;

use prost::Message;

use super::{Definition, InvalidDefinition, VertexDigest, pb};

/// Decodes the ops of a definition, the terminal one among them, without checking the graph.
fn decode(definition: &Definition) -> Result<Vec<(VertexDigest, pb::Op)>, InvalidDefinition> {
    let ops = definition.ops.iter().enumerate().map(|(index, bytes)| {
        let op = pb::Op::decode(bytes.clone()).map_err(|error| InvalidDefinition::Undecodable {
            index,
            reason: error.to_string(),
        })?;
        Ok((VertexDigest::of(bytes), op))
    });
    ops.collect()
}
