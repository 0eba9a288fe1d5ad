//! What the cache key of an op is made of, part by part.
//!
//! | op | enters the key | does not |
//! |---|---|---|
//! | exec | arguments, environment, directory, user, host name, names of extra hosts, ulimits, network, security, devices, mounts, valid exit codes, platform | proxy variables, addresses of extra hosts, resource limits, where a mount's source comes from |
//! | file | actions with owners, modes and flags | paths of sources and patterns: the digest of what they select stands for them |
//! | merge, diff | which inputs | |
//!
//! The parts are kept with the record, so that a miss can name the one that changed. Change
//! [`KEY_VERSION`] whenever the table changes.

use std::collections::BTreeSet;

use prost::Message;

use crate::cache::{ContentHash, KeyPart};
use crate::llb::{OutputRef, Vertex, pb};
use crate::solver::{CacheMap, InputKey};

use super::ops::file::key as file_key;
use super::parts::{self, fingerprint, part};

/// Version of the table above; enters every key.
pub const KEY_VERSION: u32 = 2;

/// Makes the cache map of an op whose key needs nothing but the op itself.
///
/// `arguments` are the names of build arguments: variables of these names are called so when
/// they explain a miss. They do not change the key.
pub fn cache_map(vertex: &Vertex, arguments: &BTreeSet<String>) -> CacheMap {
    let mut parts = match &vertex.op {
        pb::op::Op::Exec(exec) => parts::of_exec(exec, arguments),
        pb::op::Op::File(file) => parts::of_file(file),
        pb::op::Op::Merge(merge) => vec![part("inputs", &merge.inputs.len().to_string())],
        pb::op::Op::Diff(diff) => vec![fingerprint("diff", &diff.encode_to_vec())],
        pb::op::Op::Build(build) => vec![fingerprint("build", &build.encode_to_vec())],
        pb::op::Op::Source(source) => vec![part("source", &source.identifier)],
    };
    if matches!(vertex.op, pb::op::Op::Exec(_)) {
        parts.push(part("platform", &vertex.platform.to_string()));
    }
    with_parts(vertex, parts)
}

/// Makes the cache map of a source that was pinned to `identity`.
pub fn source_map(vertex: &Vertex, identity: &str) -> CacheMap {
    with_parts(vertex, vec![part("source", identity)])
}

/// Makes the cache map of a local folder, which counts only by what its users select.
pub fn local_map(vertex: &Vertex) -> CacheMap {
    CacheMap {
        own_key: false,
        ..with_parts(vertex, Vec::new())
    }
}

fn with_parts(vertex: &Vertex, parts: Vec<KeyPart>) -> CacheMap {
    let mut text = format!("cooper op key {KEY_VERSION}\0");
    for KeyPart { name, value } in &parts {
        // Whether a variable is called an argument depends on more than the op.
        let name = match name.strip_prefix("arg:") {
            Some(variable) => format!("env:{variable}"),
            None => name.clone(),
        };
        text.push_str(&format!("{}:{name}={}:{value}\0", name.len(), value.len()));
    }
    let inputs = (0..vertex.inputs.len())
        .map(|index| input_key(vertex, index))
        .collect();
    CacheMap {
        digest: ContentHash::of(text.as_bytes()),
        inputs,
        parts,
        own_key: true,
    }
}

/// Says how an input of an op enters the key: by its contents where only they matter.
fn input_key(vertex: &Vertex, index: usize) -> InputKey {
    let by_content = match &vertex.op {
        pb::op::Op::Exec(exec) => {
            let mut uses = exec
                .mounts
                .iter()
                .filter(|mount| mount.input == index as i64)
                .peekable();
            uses.peek().is_some() && uses.all(parts::is_read_only_bind)
        }
        pb::op::Op::File(file) => {
            u32::try_from(index).is_ok_and(|index| file_key::is_used_by_content(file, index))
        }
        _ => false,
    };
    if by_content {
        InputKey::ByContent
    } else {
        InputKey::ByKey
    }
}

/// Returns the vertices whose layers become layers of the result: the chain of bases.
///
/// Layers of other stages are not part of the image and need not be compressed.
pub fn base_chain<'a>(vertices: &'a [Vertex], result: &'a OutputRef) -> Vec<&'a Vertex> {
    let find = |output: &OutputRef| {
        vertices
            .iter()
            .find(|vertex| vertex.digest == output.vertex)
    };
    let mut pending = vec![result];
    let mut chain = Vec::new();
    while let Some(vertex) = pending.pop().and_then(find) {
        let base = |index: i64| {
            usize::try_from(index)
                .ok()
                .and_then(|i| vertex.inputs.get(i))
        };
        match &vertex.op {
            pb::op::Op::Exec(exec) => {
                let root = exec.mounts.iter().find(|mount| mount.dest == "/");
                pending.extend(root.and_then(|mount| base(mount.input)));
            }
            pb::op::Op::File(file) => {
                pending.extend(file.actions.first().and_then(|action| base(action.input)));
            }
            pb::op::Op::Merge(_) | pb::op::Op::Diff(_) => pending.extend(&vertex.inputs),
            pb::op::Op::Source(_) | pb::op::Op::Build(_) => {}
        }
        chain.push(vertex);
    }
    chain
}
