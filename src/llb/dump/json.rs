//! A definition as JSON lines, with the member names that BuildKit's Go structs have.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json as value};

use super::decode;
use crate::llb::{Definition, InvalidDefinition, pb};

/// Writes one JSON object per op, each on its own line.
pub fn json(definition: &Definition) -> Result<String, InvalidDefinition> {
    let mut out = String::new();
    for (digest, op) in decode(definition)? {
        let metadata = definition.metadata.get(&digest);
        let metadata = metadata.map(|metadata| metadata_to_json(&metadata.to_pb()));
        let line = value!({
            "Op": op_to_json(&op),
            "Digest": digest.to_string(),
            "OpMetadata": metadata.unwrap_or(Value::Null),
        });
        out.push_str(&line.to_string());
        out.push('\n');
    }
    Ok(out)
}

/// Converts an op; zero values are left out.
pub fn op_to_json(op: &pb::Op) -> Value {
    let kind = match &op.op {
        Some(pb::op::Op::Exec(exec)) => value!({ "exec": exec_to_json(exec) }),
        Some(pb::op::Op::Source(source)) => {
            value!({ "source": members([
                ("identifier", text(&source.identifier)),
                ("attrs", map(&source.attrs)),
            ]) })
        }
        Some(pb::op::Op::File(file)) => {
            let actions: Vec<Value> = file.actions.iter().map(action_to_json).collect();
            value!({ "file": members([("actions", list(actions))]) })
        }
        Some(pb::op::Op::Build(build)) => value!({ "build": build_to_json(build) }),
        Some(pb::op::Op::Merge(merge)) => {
            let inputs = merge
                .inputs
                .iter()
                .map(|i| members([("input", int(i.input))]));
            value!({ "merge": members([("inputs", list(inputs.collect()))]) })
        }
        Some(pb::op::Op::Diff(diff)) => {
            let side =
                |input: Option<i64>| input.map_or(Value::Null, |i| members([("input", int(i))]));
            value!({ "diff": members([
                ("lower", side(diff.lower.map(|l| l.input))),
                ("upper", side(diff.upper.map(|u| u.input))),
            ]) })
        }
        Some(pb::op::Op::Passthrough(op)) => {
            let outputs = op.outputs.iter().map(|output| Value::from(*output));
            value!({ "passthrough": members([
                ("id", text(&op.id)),
                ("outputs", list(outputs.collect())),
            ]) })
        }
        None => value!({}),
    };
    let inputs = op
        .inputs
        .iter()
        .map(|input| members([("digest", text(&input.digest)), ("index", int(input.index))]));
    let mut object = Map::new();
    let constraints = op
        .constraints
        .as_ref()
        .map(|c| members([("filter", texts(&c.filter))]));
    let parts = [
        ("inputs", list(inputs.collect())),
        ("Op", kind),
        (
            "platform",
            op.platform.as_ref().map_or(Value::Null, platform_to_json),
        ),
        ("constraints", constraints.unwrap_or(Value::Null)),
    ];
    for (name, part) in parts {
        if !part.is_null() {
            object.insert(name.to_owned(), part);
        }
    }
    Value::Object(object)
}

/// Makes an object of the members that are not null.
fn members<const N: usize>(parts: [(&str, Value); N]) -> Value {
    let present = parts.into_iter().filter(|(_, part)| !part.is_null());
    Value::Object(
        present
            .map(|(name, part)| (name.to_owned(), part))
            .collect(),
    )
}

fn text(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        text.into()
    }
}

fn texts(texts: &[String]) -> Value {
    if texts.is_empty() {
        Value::Null
    } else {
        texts.to_vec().into()
    }
}

fn int(number: impl Into<i64>) -> Value {
    match number.into() {
        0 => Value::Null,
        number => number.into(),
    }
}

fn flag(flag: bool) -> Value {
    if flag { true.into() } else { Value::Null }
}

fn list(values: Vec<Value>) -> Value {
    if values.is_empty() {
        Value::Null
    } else {
        values.into()
    }
}

fn map(map: &BTreeMap<String, String>) -> Value {
    if map.is_empty() {
        Value::Null
    } else {
        value!(map)
    }
}

fn bytes(data: &[u8]) -> Value {
    text(&base64::engine::general_purpose::STANDARD.encode(data))
}

fn platform_to_json(platform: &pb::Platform) -> Value {
    members([
        ("Architecture", text(&platform.architecture)),
        ("OS", text(&platform.os)),
        ("Variant", text(&platform.variant)),
        ("OSVersion", text(&platform.os_version)),
        ("OSFeatures", texts(&platform.os_features)),
    ])
}

fn exec_to_json(exec: &pb::ExecOp) -> Value {
    let secretenv = exec.secretenv.iter().map(|secret| {
        members([
            ("ID", text(&secret.id)),
            ("name", text(&secret.name)),
            ("optional", flag(secret.optional)),
        ])
    });
    let devices = exec.cdi_devices.iter().map(|device| {
        members([
            ("name", text(&device.name)),
            ("optional", flag(device.optional)),
        ])
    });
    members([
        ("meta", exec.meta.as_ref().map_or(Value::Null, meta_to_json)),
        (
            "mounts",
            list(exec.mounts.iter().map(mount_to_json).collect()),
        ),
        ("network", int(exec.network)),
        ("security", int(exec.security)),
        ("secretenv", list(secretenv.collect())),
        ("cdiDevices", list(devices.collect())),
    ])
}

fn meta_to_json(meta: &pb::Meta) -> Value {
    let hosts = meta
        .extra_hosts
        .iter()
        .map(|host| members([("Host", text(&host.host)), ("IP", text(&host.ip))]));
    let ulimits = meta.ulimit.iter().map(|limit| {
        members([
            ("Name", text(&limit.name)),
            ("Soft", int(limit.soft)),
            ("Hard", int(limit.hard)),
        ])
    });
    let proxy = meta.proxy_env.as_ref().map(|proxy| {
        members([
            ("http_proxy", text(&proxy.http_proxy)),
            ("https_proxy", text(&proxy.https_proxy)),
            ("ftp_proxy", text(&proxy.ftp_proxy)),
            ("no_proxy", text(&proxy.no_proxy)),
            ("all_proxy", text(&proxy.all_proxy)),
        ])
    });
    let codes = meta.valid_exit_codes.iter().map(|code| Value::from(*code));
    members([
        ("args", texts(&meta.args)),
        ("env", texts(&meta.env)),
        ("cwd", text(&meta.cwd)),
        ("user", text(&meta.user)),
        ("proxy_env", proxy.unwrap_or(Value::Null)),
        ("extraHosts", list(hosts.collect())),
        ("hostname", text(&meta.hostname)),
        ("ulimit", list(ulimits.collect())),
        ("cgroupParent", text(&meta.cgroup_parent)),
        (
            "removeMountStubsRecursive",
            flag(meta.remove_mount_stubs_recursive),
        ),
        ("validExitCodes", list(codes.collect())),
    ])
}

fn mount_to_json(mount: &pb::Mount) -> Value {
    let tmpfs = mount
        .tmpfs_opt
        .map(|tmpfs| members([("size", int(tmpfs.size))]));
    let cache = mount
        .cache_opt
        .as_ref()
        .map(|cache| members([("ID", text(&cache.id)), ("sharing", int(cache.sharing))]));
    let secret = mount
        .secret_opt
        .as_ref()
        .map(|s| file_of_client(&s.id, s.uid, s.gid, s.mode, s.optional));
    let ssh = mount
        .ssh_opt
        .as_ref()
        .map(|s| file_of_client(&s.id, s.uid, s.gid, s.mode, s.optional));
    members([
        ("input", int(mount.input)),
        ("selector", text(&mount.selector)),
        ("dest", text(&mount.dest)),
        ("output", int(mount.output)),
        ("readonly", flag(mount.readonly)),
        ("mountType", int(mount.mount_type)),
        ("TmpfsOpt", tmpfs.unwrap_or(Value::Null)),
        ("cacheOpt", cache.unwrap_or(Value::Null)),
        ("secretOpt", secret.unwrap_or(Value::Null)),
        ("SSHOpt", ssh.unwrap_or(Value::Null)),
        ("resultID", text(&mount.result_id)),
        ("contentCache", int(mount.content_cache)),
    ])
}

fn file_of_client(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> Value {
    members([
        ("ID", text(id)),
        ("uid", int(uid)),
        ("gid", int(gid)),
        ("mode", int(mode)),
        ("optional", flag(optional)),
    ])
}

fn action_to_json(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let kind = match &action.action {
        Some(Action::Copy(copy)) => value!({ "copy": copy_to_json(copy) }),
        Some(Action::Mkfile(file)) => value!({ "mkfile": members([
            ("path", text(&file.path)),
            ("mode", int(file.mode)),
            ("data", bytes(&file.data)),
            ("owner", owner_to_json(file.owner.as_ref())),
            ("timestamp", int(file.timestamp)),
        ]) }),
        Some(Action::Mkdir(dir)) => value!({ "mkdir": members([
            ("path", text(&dir.path)),
            ("mode", int(dir.mode)),
            ("makeParents", flag(dir.make_parents)),
            ("owner", owner_to_json(dir.owner.as_ref())),
            ("timestamp", int(dir.timestamp)),
        ]) }),
        Some(Action::Rm(rm)) => value!({ "rm": members([
            ("path", text(&rm.path)),
            ("allowNotFound", flag(rm.allow_not_found)),
            ("allowWildcard", flag(rm.allow_wildcard)),
        ]) }),
        Some(Action::Symlink(link)) => value!({ "symlink": members([
            ("oldpath", text(&link.oldpath)),
            ("newpath", text(&link.newpath)),
            ("owner", owner_to_json(link.owner.as_ref())),
            ("timestamp", int(link.timestamp)),
        ]) }),
        None => value!({}),
    };
    value!({
        "input": action.input,
        "secondaryInput": action.secondary_input,
        "output": action.output,
        "Action": kind,
    })
}

fn copy_to_json(copy: &pb::FileActionCopy) -> Value {
    members([
        ("src", text(&copy.src)),
        ("dest", text(&copy.dest)),
        ("owner", owner_to_json(copy.owner.as_ref())),
        ("mode", int(copy.mode)),
        ("followSymlink", flag(copy.follow_symlink)),
        ("dirCopyContents", flag(copy.dir_copy_contents)),
        (
            "attemptUnpackDockerCompatibility",
            flag(copy.attempt_unpack_docker_compatibility),
        ),
        ("createDestPath", flag(copy.create_dest_path)),
        ("allowWildcard", flag(copy.allow_wildcard)),
        ("allowEmptyWildcard", flag(copy.allow_empty_wildcard)),
        ("timestamp", int(copy.timestamp)),
        ("include_patterns", texts(&copy.include_patterns)),
        ("exclude_patterns", texts(&copy.exclude_patterns)),
        (
            "alwaysReplaceExistingDestPaths",
            flag(copy.always_replace_existing_dest_paths),
        ),
        ("modeStr", text(&copy.mode_str)),
        ("required_paths", texts(&copy.required_paths)),
    ])
}

fn owner_to_json(owner: Option<&pb::ChownOpt>) -> Value {
    let Some(owner) = owner else {
        return Value::Null;
    };
    let user = |user: Option<&pb::UserOpt>| match user.and_then(|user| user.user.as_ref()) {
        Some(pb::user_opt::User::ByName(named)) => value!({ "User": { "byName": members([
            ("name", text(&named.name)),
            ("input", int(named.input)),
        ]) } }),
        Some(pb::user_opt::User::ById(id)) => value!({ "User": members([("byId", int(*id))]) }),
        None => Value::Null,
    };
    members([
        ("user", user(owner.user.as_ref())),
        ("group", user(owner.group.as_ref())),
    ])
}

fn build_to_json(build: &pb::BuildOp) -> Value {
    let inputs: BTreeMap<&String, Value> = build
        .inputs
        .iter()
        .map(|(name, input)| (name, members([("input", int(input.input))])))
        .collect();
    members([
        ("builder", int(build.builder)),
        (
            "inputs",
            if inputs.is_empty() {
                Value::Null
            } else {
                value!(inputs)
            },
        ),
        ("attrs", map(&build.attrs)),
    ])
}

fn resources_to_json(resources: &pb::LinuxResources) -> Value {
    let natural = |number: u64| match number {
        0 => Value::Null,
        number => number.into(),
    };
    members([
        ("memory", int(resources.memory)),
        ("memorySwap", int(resources.memory_swap)),
        ("cpuShares", natural(resources.cpu_shares)),
        ("cpuPeriod", natural(resources.cpu_period)),
        ("cpuQuota", int(resources.cpu_quota)),
        ("cpusetCpus", text(&resources.cpuset_cpus)),
        ("cpusetMems", text(&resources.cpuset_mems)),
    ])
}

fn metadata_to_json(metadata: &pb::OpMetadata) -> Value {
    let group = metadata.progress_group.as_ref().map(|group| {
        members([
            ("id", text(&group.id)),
            ("name", text(&group.name)),
            ("weak", flag(group.weak)),
        ])
    });
    let caps = &metadata.caps;
    members([
        ("ignore_cache", flag(metadata.ignore_cache)),
        ("description", map(&metadata.description)),
        (
            "export_cache",
            metadata
                .export_cache
                .map_or(Value::Null, |e| members([("Value", flag(e.value))])),
        ),
        (
            "caps",
            if caps.is_empty() {
                Value::Null
            } else {
                value!(caps)
            },
        ),
        ("progress_group", group.unwrap_or(Value::Null)),
        (
            "linux_resources",
            metadata
                .linux_resources
                .as_ref()
                .map_or(Value::Null, resources_to_json),
        ),
    ])
}
