//! Definitions made of definitions: one in the place of a source of another, one with other
//! sources, or one with a copy of its result on top.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::definition::{Definition, InvalidDefinition, OutputRef};
use super::{SourceMap, VertexDigest, pb};

/// No input: an empty file system.
const NONE: i64 = -1;
/// Permissions of a folder that holds nothing.
const FOLDER_MODE: i32 = 0o755;
/// Keeps times, or permissions, as they are.
const KEEP: i32 = -1;

impl Definition {
    /// Puts the result of `scion` in the place of the sources with an identifier.
    pub fn grafted(&self, identifier: &str, scion: &Self) -> Result<Self, InvalidDefinition> {
        let loaded = self.load()?;
        let is_replaced = |op: &pb::op::Op| matches!(op, pb::op::Op::Source(source) if source.identifier == identifier);
        let sources = loaded.vertices.iter().filter(|v| is_replaced(&v.op));
        let sources: Vec<VertexDigest> = sources.map(|vertex| vertex.digest.clone()).collect();
        if sources.is_empty() {
            return Ok(self.clone());
        }
        let filled = match scion.ops.is_empty() {
            true => empty_folder(),
            false => scion.clone(),
        };
        let result = filled.result()?;
        let mut work = Work {
            made: filled,
            renamed: sources
                .iter()
                .map(|d| (d.clone(), result.clone()))
                .collect(),
            sources: &BTreeMap::new(),
            source: self.empty_map(),
        };
        // Its terminal op; that of the whole follows.
        work.made.ops.pop();
        for bytes in &self.ops {
            if !sources.contains(&VertexDigest::of(bytes)) {
                work.add(bytes, self)?;
            }
        }
        Ok(work.finish())
    }

    /// Puts other sources in the place of some.
    pub fn with_sources(
        &self,
        sources: &BTreeMap<VertexDigest, pb::SourceOp>,
    ) -> Result<Self, InvalidDefinition> {
        let loaded = self.load()?;
        if sources.is_empty() {
            return Ok(self.clone());
        }
        let mut work = Work {
            made: Self::default(),
            renamed: BTreeMap::new(),
            sources,
            source: self.empty_map(),
        };
        let bytes_of = self
            .ops
            .iter()
            .map(|bytes| (VertexDigest::of(bytes), bytes));
        let bytes_of: BTreeMap<VertexDigest, &Bytes> = bytes_of.collect();
        // Inputs have to be renamed before their users are.
        let ordered = loaded
            .vertices
            .iter()
            .filter_map(|v| bytes_of.get(&v.digest));
        for bytes in ordered.copied().chain(self.ops.last()) {
            work.add(bytes, self)?;
        }
        Ok(work.finish())
    }

    /// Returns the files of the source map, without places in them.
    fn empty_map(&self) -> Option<SourceMap> {
        let map = self.source.as_ref()?;
        Some(SourceMap::new(map.files().to_vec()))
    }

    /// Copies the result into an empty file system: what was a folder becomes a layer.
    pub fn copied(&self) -> Self {
        let Some((terminal, ops)) = self.ops.split_last() else {
            return self.clone();
        };
        let inputs = pb::Op::decode(terminal.clone()).unwrap_or_default().inputs;
        let copy = pb::FileActionCopy {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            mode: KEEP,
            dir_copy_contents: true,
            create_dest_path: true,
            timestamp: KEEP.into(),
            ..pb::FileActionCopy::default()
        };
        let mut made = Self {
            ops: ops.to_vec(),
            ..self.clone()
        };
        let action = pb::FileAction {
            input: NONE,
            secondary_input: 0,
            output: 0,
            action: Some(pb::file_action::Action::Copy(copy)),
        };
        made.finish(inputs, action);
        made
    }

    /// Returns the result of a definition that has one.
    fn result(&self) -> Result<OutputRef, InvalidDefinition> {
        let result = self.load()?.results.into_iter().next().flatten();
        result.ok_or(InvalidDefinition::NoResult)
    }

    /// Adds a file op, whose output becomes the result.
    fn finish(&mut self, inputs: Vec<pb::Input>, action: pb::FileAction) {
        let op = pb::Op {
            inputs,
            op: Some(pb::op::Op::File(pb::FileOp {
                actions: vec![action],
            })),
            ..pb::Op::default()
        };
        let bytes = Bytes::from(op.encode_to_vec());
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: VertexDigest::of(&bytes).to_string(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        self.ops.push(bytes);
        self.ops.push(terminal.encode_to_vec().into());
    }
}

/// Makes a file system with nothing but its top.
fn empty_folder() -> Definition {
    let mut made = Definition::default();
    let mkdir = pb::FileActionMkDir {
        path: "/".to_owned(),
        mode: FOLDER_MODE,
        make_parents: true,
        timestamp: KEEP.into(),
        ..pb::FileActionMkDir::default()
    };
    let action = pb::FileAction {
        input: NONE,
        secondary_input: NONE,
        output: 0,
        action: Some(pb::file_action::Action::Mkdir(mkdir)),
    };
    made.finish(Vec::new(), action);
    made
}

/// A graft under way.
struct Work<'a> {
    made: Definition,
    /// What stands for the first output of an op of the old definition.
    renamed: BTreeMap<VertexDigest, OutputRef>,
    /// What ops of the old definition become.
    sources: &'a BTreeMap<VertexDigest, pb::SourceOp>,
    source: Option<SourceMap>,
}

impl Work<'_> {
    fn finish(mut self) -> Definition {
        if let Some(source) = self.source {
            self.made.source = Some(source);
        }
        self.made
    }

    /// Adds an op of the old definition, with its inputs renamed.
    fn add(&mut self, bytes: &Bytes, old: &Definition) -> Result<(), InvalidDefinition> {
        let name = VertexDigest::of(bytes);
        let index = self.made.ops.len();
        let decoded = pb::Op::decode(bytes.clone());
        let mut op = decoded.map_err(|error| InvalidDefinition::Undecodable {
            index,
            reason: error.to_string(),
        })?;
        let mut is_changed = false;
        if let Some(source) = self.sources.get(&name) {
            op.op = Some(pb::op::Op::Source(source.clone()));
            is_changed = true;
        }
        for input in &mut op.inputs {
            let digest = input.digest.parse().ok().map(VertexDigest);
            let Some(found) = digest.and_then(|digest| self.renamed.get(&digest)) else {
                continue;
            };
            input.digest = found.vertex.to_string();
            // Sources have one output; of other ops only the digest changes.
            input.index += i64::from(found.index);
            is_changed = true;
        }
        let bytes = match is_changed {
            true => Bytes::from(op.encode_to_vec()),
            false => bytes.clone(),
        };
        let new_name = VertexDigest::of(&bytes);
        self.made.ops.push(bytes);
        if let Some(metadata) = old.metadata.get(&name) {
            let mut metadata = metadata.clone();
            let after = metadata.after.iter();
            let renamed = after.map(|awaited| match self.renamed.get(awaited) {
                Some(found) => found.vertex.clone(),
                None => awaited.clone(),
            });
            metadata.after = renamed.collect();
            self.made.metadata.insert(new_name.clone(), metadata);
        }
        if let (Some(source), Some(locations)) = (&mut self.source, &old.source) {
            source.add(&new_name, locations.of(&name).to_vec());
        }
        if new_name != name {
            let vertex = new_name;
            self.renamed.insert(name, OutputRef { vertex, index: 0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::state::{About, Builder, Source};
    use crate::llb::{Metadata, caps};
    use crate::oci::Platform;

    fn source(name: &str) -> Definition {
        let mut builder = Builder::new(Platform::linux("amd64", ""), Vec::new());
        let source = Source::new(format!("local://{name}"), caps::SOURCE_LOCAL);
        let output = builder.source(source, About::named(name));
        builder.finish(Some(output))
    }

    fn identifiers(definition: &Definition) -> Vec<String> {
        let loaded = definition.load().unwrap();
        let vertices = loaded.vertices.into_iter();
        vertices
            .map(|vertex| match vertex.op {
                pb::op::Op::Source(source) => source.identifier,
                pb::op::Op::File(_) => "file".to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_copy_makes_a_layer() {
        let copied = source("a").copied();
        assert_eq!(identifiers(&copied), ["local://a", "file"]);
        let result = copied.result().unwrap();
        assert_eq!(result.vertex, copied.load().unwrap().vertices[1].digest);
        assert_eq!(Definition::default().copied(), Definition::default());
    }

    #[test]
    fn a_result_takes_the_place_of_a_source() {
        let whole = source("a").copied();
        let grafted = whole.grafted("local://a", &source("b")).unwrap();
        assert_eq!(identifiers(&grafted), ["local://b", "file"]);
        assert_eq!(grafted, source("b").copied());
        // Of a result with a layer, and of nothing at all.
        let deep = whole.grafted("local://a", &source("c").copied()).unwrap();
        assert_eq!(identifiers(&deep), ["local://c", "file", "file"]);
        let empty = whole.grafted("local://a", &Definition::default()).unwrap();
        assert_eq!(identifiers(&empty), ["file", "file"]);
        assert_eq!(whole.grafted("local://x", &source("b")).unwrap(), whole);
    }

    #[test]
    fn sources_become_others() {
        let whole = source("a").copied();
        let name = VertexDigest::of(&whole.ops[0]);
        let other = pb::SourceOp {
            identifier: "local://b".to_owned(),
            ..pb::SourceOp::default()
        };
        let changed = whole.with_sources(&[(name.clone(), other)].into()).unwrap();
        assert_eq!(changed.ops, source("b").copied().ops);
        // What is said about it stays.
        let renamed = VertexDigest::of(&changed.ops[0]);
        assert_eq!(changed.metadata[&renamed].name, "a");
        assert_eq!(whole.with_sources(&BTreeMap::new()).unwrap(), whole);
        // Ops that stand before their inputs find them all the same.
        let mut unordered = whole.clone();
        unordered.ops.swap(0, 1);
        let other = pb::SourceOp {
            identifier: "local://c".to_owned(),
            ..pb::SourceOp::default()
        };
        let changed = unordered.with_sources(&[(name, other)].into()).unwrap();
        assert_eq!(identifiers(&changed), ["local://c", "file"]);
    }

    #[test]
    fn what_is_said_about_ops_stays_with_them() {
        let mut whole = source("a").copied();
        let copy = whole.result().unwrap().vertex;
        let said = Metadata {
            name: "copy".to_owned(),
            after: [VertexDigest::of(&whole.ops[0])].into(),
            ..Metadata::default()
        };
        whole.metadata.insert(copy.clone(), said);
        let grafted = whole.grafted("local://a", &source("b")).unwrap();
        let new = grafted.result().unwrap().vertex;
        assert_ne!(new, copy);
        let said = &grafted.metadata[&new];
        assert_eq!(said.name, "copy");
        let source = VertexDigest::of(&grafted.ops[0]);
        assert_eq!(said.after, [source].into());
    }
}
