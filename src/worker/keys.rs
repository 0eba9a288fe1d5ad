//! What the cache key of an op is made of, part by part.
//!
//! | op | enters the key | does not |
//! |---|---|---|
//! | exec | arguments, environment, directory, user, host name, names of extra hosts, ulimits, network, security, mounts, valid exit codes, platform | proxy variables, addresses of extra hosts, resource limits, where a mount's source comes from |
//! | file | actions with owners, modes and flags | paths of sources and patterns: the digest of what they select stands for them |
//! | merge, diff | which inputs | |
//!
//! The parts are kept with the record, so that a miss can name the one that changed. Change
//! [`KEY_VERSION`] whenever the table changes.

use prost::Message;

use crate::cache::{ContentHash, KeyPart};
use crate::llb::pb::file_action::Action;
use crate::llb::{OutputRef, Vertex, pb};
use crate::solver::{CacheMap, InputKey};

use super::ops::file::key as file_key;

/// Version of the table above; enters every key.
pub const KEY_VERSION: u32 = 1;

/// Makes the cache map of an op whose key needs nothing but the op itself.
pub fn cache_map(vertex: &Vertex) -> CacheMap {
    let mut parts = match &vertex.op {
        pb::op::Op::Exec(exec) => exec_parts(exec),
        pb::op::Op::File(file) => file_parts(file),
        pb::op::Op::Merge(merge) => vec![part("merge", &format!("{} inputs", merge.inputs.len()))],
        pb::op::Op::Diff(diff) => vec![part("diff", &hash(&diff.encode_to_vec()))],
        pb::op::Op::Build(build) => vec![part("build", &hash(&build.encode_to_vec()))],
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
            uses.peek().is_some() && uses.all(is_read_only_bind)
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

/// Says whether a mount shows contents that the step can read and not change.
pub fn is_read_only_bind(mount: &pb::Mount) -> bool {
    mount.mount_type == pb::MountType::Bind as i32 && mount.readonly && mount.dest != "/"
}

fn exec_parts(exec: &pb::ExecOp) -> Vec<KeyPart> {
    let meta = exec.meta.clone().unwrap_or_default();
    let mut parts = vec![
        part("command", &serde_json::json!(meta.args).to_string()),
        part("cwd", &meta.cwd),
        part("user", &meta.user),
        part("host name", &meta.hostname),
        part("network", &exec.network.to_string()),
        part("security", &exec.security.to_string()),
    ];
    for variable in &meta.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        parts.push(part(&format!("env:{name}"), value));
    }
    for host in &meta.extra_hosts {
        parts.push(part("extra host", &host.host));
    }
    for ulimit in &meta.ulimit {
        let value = format!("{}:{}", ulimit.soft, ulimit.hard);
        parts.push(part(&format!("ulimit {}", ulimit.name), &value));
    }
    if !meta.valid_exit_codes.is_empty() {
        parts.push(part(
            "valid exit codes",
            &format!("{:?}", meta.valid_exit_codes),
        ));
    }
    for secret in &exec.secretenv {
        parts.push(part(
            &format!("secret variable {}", secret.name),
            &secret.id,
        ));
    }
    for mount in &exec.mounts {
        parts.push(part(&format!("mount {}", mount.dest), &mount_value(mount)));
    }
    parts
}

/// Describes a mount without where its source comes from: the input's own key or contents do that.
fn mount_value(mount: &pb::Mount) -> String {
    let mut mount = mount.clone();
    mount.input = mount.input.min(0);
    if is_read_only_bind(&mount) {
        mount.selector.clear();
    }
    hash(&mount.encode_to_vec())
}

fn file_parts(file: &pb::FileOp) -> Vec<KeyPart> {
    let mut parts = Vec::new();
    for action in &file.actions {
        let mut action = action.clone();
        let name = match &mut action.action {
            Some(Action::Copy(copy)) => {
                let from_input = action.secondary_input >= 0;
                if from_input {
                    copy.src = base_name(&copy.src).to_owned();
                    copy.include_patterns.clear();
                    copy.exclude_patterns.clear();
                    copy.required_paths.clear();
                }
                format!("copy to {}", copy.dest)
            }
            Some(Action::Mkfile(make)) => format!("file {}", make.path),
            Some(Action::Mkdir(make)) => format!("directory {}", make.path),
            Some(Action::Rm(remove)) => format!("removal of {}", remove.path),
            Some(Action::Symlink(link)) => format!("link {}", link.newpath),
            None => "nothing".to_owned(),
        };
        parts.push(part(&name, &hash(&action.encode_to_vec())));
    }
    parts
}

/// Returns the last component, with a trailing slash kept: `a/b/` and `a/b` differ in meaning.
fn base_name(path: &str) -> &str {
    let end = path.trim_end_matches('/').len();
    let start = path[..end].rfind('/').map_or(0, |slash| slash + 1);
    &path[start..]
}

fn part(name: &str, value: &str) -> KeyPart {
    KeyPart::new(name, value)
}

fn hash(bytes: &[u8]) -> String {
    ContentHash::of(bytes).hex()
}

/// Returns the vertices whose layers become layers of the result: the chain of bases.
///
/// Layers of other stages are not part of the image and need not be compressed.
pub fn base_chain<'a>(vertices: &'a [Vertex], result: &'a OutputRef) -> Vec<&'a Vertex> {
    let outputs = base_outputs(vertices, result).into_iter();
    outputs.map(|(_, vertex)| vertex).collect()
}

/// Returns the same with the outputs that lead to them, the result first.
pub fn base_outputs<'a>(
    vertices: &'a [Vertex],
    result: &'a OutputRef,
) -> Vec<(&'a OutputRef, &'a Vertex)> {
    let find = |output: &OutputRef| {
        vertices
            .iter()
            .find(|vertex| vertex.digest == output.vertex)
    };
    let mut pending = vec![result];
    let mut chain = Vec::new();
    while let Some((output, vertex)) = pending.pop().and_then(|o| Some((o, find(o)?))) {
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
        chain.push((output, vertex));
    }
    chain
}
