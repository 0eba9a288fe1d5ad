//! What the cache key of an op is made of, part by part.
//!
//! | op | enters the key | does not |
//! |---|---|---|
//! | exec | arguments, environment, directory, user, host name, names of extra hosts, ulimits, network, security, devices, mounts, valid exit codes, platform | proxy variables, addresses of extra hosts, resource limits, where a mount's source comes from |
//! | file | actions with owners, modes and flags | paths of sources and patterns: the digest of what they select stands for them |
//! | merge, diff, passthrough | which inputs | |
//! | build | where the definition is | |
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
        pb::op::Op::Diff(diff) => vec![fingerprint("change", &diff.encode_to_vec())],
        pb::op::Op::Build(build) => vec![fingerprint("build", &build.encode_to_vec())],
        pb::op::Op::Passthrough(op) => vec![fingerprint("passthrough", &op.encode_to_vec())],
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

/// Makes the cache map of a download: what its server says of it, the digest first, and mode,
/// user and group of the file that it becomes.
pub fn download_map(vertex: &Vertex, identity: &str, attributes: [u32; 3]) -> CacheMap {
    let (digest, name) = identity.split_once(' ').unwrap_or((identity, ""));
    let [mode, user, group] = attributes;
    let parts = vec![
        part("source", digest),
        part("name and time", name),
        part("mode", &format!("{mode:04o}")),
        part("owner", &format!("{user}:{group}")),
    ];
    with_parts(vertex, parts)
}

/// Makes the cache map of a local folder, which counts only by what its users select.
pub fn local_map(vertex: &Vertex) -> CacheMap {
    CacheMap {
        own_key: false,
        ..with_parts(vertex, Vec::new())
    }
}

fn with_parts(vertex: &Vertex, parts: Vec<KeyPart>) -> CacheMap {
    let inputs = (0..vertex.inputs.len())
        .map(|index| input_key(vertex, index))
        .collect();
    CacheMap {
        digest: ContentHash::of(&op_bytes(&parts)),
        inputs,
        parts,
        own_key: true,
    }
}

/// Returns the bytes whose hash is the digest of an op with these parts.
pub fn op_bytes(parts: &[KeyPart]) -> Vec<u8> {
    let mut text = format!("cooper op key {KEY_VERSION}\0");
    for KeyPart { name, value } in parts {
        // Whether a variable is called an argument depends on more than the op.
        let name = match name.strip_prefix("arg:") {
            Some(variable) => format!("env:{variable}"),
            None => name.clone(),
        };
        text.push_str(&format!("{}:{name}={}:{value}\0", name.len(), value.len()));
    }
    text.into_bytes()
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
    let outputs = base_outputs(vertices, result).into_iter();
    outputs.map(|(_, vertex)| vertex).collect()
}

/// Returns the same with the outputs that lead to them, the result first, each once.
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
    let mut seen = BTreeSet::new();
    while let Some((output, vertex)) = pending.pop().and_then(|o| Some((o, find(o)?))) {
        // Layers that come again count where they lie highest.
        if !seen.insert(output) {
            continue;
        }
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
            pb::op::Op::Passthrough(op) => {
                let passed = op.outputs.get(output.index as usize);
                pending.extend(passed.and_then(|input| base(*input)));
            }
            pb::op::Op::Source(_) | pb::op::Op::Build(_) => {}
        }
        chain.push((output, vertex));
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::VertexDigest;
    use crate::oci::Platform;

    fn exec(change: impl FnOnce(&mut pb::ExecOp, &mut pb::Meta)) -> Vertex {
        let mut meta = pb::Meta {
            args: ["/bin/sh", "-c", "make"].map(str::to_owned).to_vec(),
            env: vec!["VERSION=1".to_owned()],
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        };
        let mut exec = pb::ExecOp {
            mounts: vec![pb::Mount {
                dest: "/cache".to_owned(),
                mount_type: pb::MountType::Cache as i32,
                input: -1,
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        change(&mut exec, &mut meta);
        exec.meta = Some(meta);
        Vertex {
            digest: VertexDigest::of(b""),
            op: pb::op::Op::Exec(exec),
            inputs: Vec::new(),
            platform: Platform::linux("amd64", ""),
            metadata: crate::llb::Metadata::default(),
        }
    }

    #[test]
    fn layers_that_come_again_and_again_are_walked_once() {
        let merge = |below: Option<&Vertex>, number: usize| Vertex {
            digest: VertexDigest::of(&number.to_be_bytes()),
            op: pb::op::Op::Merge(pb::MergeOp::default()),
            inputs: below
                .map(|vertex| OutputRef {
                    vertex: vertex.digest.clone(),
                    index: 0,
                })
                .map_or(Vec::new(), |input| vec![input.clone(), input]),
            ..exec(|_, _| ())
        };
        let mut vertices: Vec<Vertex> = Vec::new();
        for number in 0..100 {
            vertices.push(merge(vertices.last(), number));
        }
        let top = OutputRef {
            vertex: vertices[99].digest.clone(),
            index: 0,
        };
        assert_eq!(base_outputs(&vertices, &top).len(), 100);
    }

    #[test]
    fn what_variables_are_called_is_no_part_of_the_key() {
        let vertex = exec(|_, _| ());
        let arguments = BTreeSet::from(["VERSION".to_owned()]);
        let (named, plain) = (
            cache_map(&vertex, &arguments),
            cache_map(&vertex, &BTreeSet::new()),
        );
        assert_eq!(named.digest, plain.digest);
        let names = |map: &CacheMap| map.parts.iter().any(|part| part.name == "arg:VERSION");
        assert!(names(&named) && !names(&plain));
    }

    #[test]
    fn everything_in_the_table_changes_the_key_and_the_rest_does_not() {
        let key = |vertex: &Vertex| cache_map(vertex, &BTreeSet::new()).digest;
        let same = key(&exec(|_, _| ()));
        type Change = fn(&mut pb::ExecOp, &mut pb::Meta);
        let changes: [(&str, Change); 13] = [
            ("command", |_, meta| meta.args.push("x".to_owned())),
            ("variable", |_, meta| meta.env[0] = "VERSION=2".to_owned()),
            ("directory", |_, meta| meta.cwd = "/x".to_owned()),
            ("user", |_, meta| meta.user = "1".to_owned()),
            ("host name", |_, meta| meta.hostname = "h".to_owned()),
            ("exit codes", |_, meta| meta.valid_exit_codes.push(1)),
            ("host", |_, meta| {
                meta.extra_hosts.push(pb::HostIp::default());
            }),
            ("ulimit", |_, meta| meta.ulimit.push(pb::Ulimit::default())),
            ("network", |exec, _| exec.network = 1),
            ("security", |exec, _| exec.security = 1),
            ("device", |exec, _| {
                exec.cdi_devices.push(pb::CdiDevice::default());
            }),
            ("mount", |exec, _| exec.mounts[0].dest = "/x".to_owned()),
            ("option without words", |exec, _| {
                exec.mounts[0].content_cache = 2;
            }),
        ];
        for (what, change) in changes {
            assert_ne!(key(&exec(change)), same, "{what}");
        }
        let proxies = |_: &mut pb::ExecOp, meta: &mut pb::Meta| {
            meta.proxy_env = Some(pb::ProxyEnv::default());
            meta.cgroup_parent = "x".to_owned();
        };
        assert_eq!(key(&exec(proxies)), same);
    }
}
