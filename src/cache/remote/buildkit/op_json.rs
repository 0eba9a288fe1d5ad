//! The JSON that BuildKit hashes of an op: members in the order of its structures, what is empty
//! left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::dependencies::is_secret;
use super::go_json::{Object, array, quoted};
use super::ops::Dialect;
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;
use crate::oci::Platform;

pub(super) fn exec_json(exec: &pb::ExecOp, platform: &Platform, dialect: Dialect) -> String {
    let mounts: &[pb::Mount] = match &exec.mounts[..] {
        [root] if is_plain_root(root) => &[],
        mounts => mounts,
    };
    let secrets = exec.secretenv.iter().map(|secret| {
        let object = Object::new()
            .text("ID", &secret.id)
            .text("name", &secret.name);
        object.flag("optional", secret.optional).end()
    });
    let devices = exec.cdi_devices.iter().map(|device| {
        let object = Object::new().text("name", &device.name);
        object.flag("optional", device.optional).end()
    });
    let op = Object::new()
        .object("meta", exec.meta.as_ref().map(meta_json))
        .list(
            "mounts",
            mounts.iter().map(|m| mount_json(m, dialect).end()),
        )
        .number("network", exec.network)
        .number("security", exec.security)
        .list("secretenv", secrets)
        .list("cdiDevices", devices);
    let typed = Object::new().always("Type", "buildkit.exec.v0");
    with_platform(typed.object("Exec", Some(op)), platform).end()
}

/// Says whether a mount is what every process has.
fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == "/"
        && !mount.readonly
        && mount.mount_type == pb::MountType::Bind as i32
        && mount.cache_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.result_id.is_empty()
}

fn meta_json(meta: &pb::Meta) -> Object {
    let hosts = meta.extra_hosts.iter();
    let hosts = hosts.map(|host| Object::new().text("Host", &host.host).end());
    let limits = meta.ulimit.iter().map(|limit| {
        let object = Object::new().text("Name", &limit.name);
        object
            .number("Soft", limit.soft)
            .number("Hard", limit.hard)
            .end()
    });
    let codes = meta.valid_exit_codes.iter().map(ToString::to_string);
    Object::new()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .list("extraHosts", hosts)
        .text("hostname", &meta.hostname)
        .list("ulimit", limits)
        .text("cgroupParent", &meta.cgroup_parent)
        .flag(
            "removeMountStubsRecursive",
            meta.remove_mount_stubs_recursive,
        )
        .list("validExitCodes", codes)
}

fn mount_json(mount: &pb::Mount, dialect: Dialect) -> Object {
    let tmpfs = mount.tmpfs_opt.as_ref();
    let cache = mount.cache_opt.as_ref().map(|cache| {
        // A name that nobody chose: the target, maybe below a namespace.
        let below = cache.id.split_once('/').map(|(_, below)| below);
        let is_default = cache.id == mount.dest || below == Some(mount.dest.as_str());
        match is_default && cache.sharing == 0 {
            true => Object::new().text("ID", &cache.id),
            false => Object::new(),
        }
    });
    let secret = mount.secret_opt.as_ref().map(|secret| {
        let numbers = [secret.uid, secret.gid, secret.mode];
        lent_json(&secret.id, numbers, secret.optional)
    });
    let ssh = mount.ssh_opt.as_ref().map(|ssh| {
        let numbers = [ssh.uid, ssh.gid, ssh.mode];
        lent_json(&ssh.id, numbers, ssh.optional)
    });
    let input = match dialect {
        Dialect::Older if is_secret(mount) => 0,
        _ => mount.input,
    };
    let object = index(Object::new(), "input", input, dialect).text("dest", &mount.dest);
    index(object, "output", mount.output, dialect)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type)
        .object(
            "TmpfsOpt",
            tmpfs.map(|o| Object::new().number("size", o.size)),
        )
        .object("cacheOpt", cache)
        .object("secretOpt", secret)
        .object("SSHOpt", ssh)
        .text("resultID", &mount.result_id)
        .number("contentCache", mount.content_cache)
}

/// Writes what secrets and agents have alike.
fn lent_json(id: &str, [uid, gid, mode]: [u32; 3], optional: bool) -> Object {
    Object::new()
        .text("ID", id)
        .number("uid", uid)
        .number("gid", gid)
        .number("mode", mode)
        .flag("optional", optional)
}

pub(super) fn file_json(file: &pb::FileOp, inputs: usize, dialect: Dialect) -> String {
    let actions = file.actions.iter();
    let actions = actions.map(|action| match action_json(action, inputs, dialect) {
        Some(json) => quoted(&STANDARD.encode(json.end())),
        None => "null".to_owned(),
    });
    let actions: Vec<String> = actions.collect();
    let indexes: Vec<[i64; 3]> = file
        .actions
        .iter()
        .map(|action| [action.input, action.secondary_input, action.output])
        .collect();
    let typed = Object::new().always("Type", "buildkit.file.v0");
    let object = typed.raw("Actions", &array(&actions));
    let indexes = match is_usual(&indexes) {
        true => Vec::new(),
        false => indexes,
    };
    let written = indexes
        .iter()
        .map(|[input, secondary, output]| format!("[{input},{secondary},{output}]"));
    object.list("indexes", written).end()
}

/// Says whether actions follow one another, from the first input to the only output.
fn is_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len();
    let mut numbered = indexes.iter().enumerate();
    count > 0
        && numbered.all(|(number, [input, secondary, output])| {
            let before = match number {
                0 => Some(0),
                _ => i64::try_from(count + number - 1).ok(),
            };
            let result = if number + 1 == count { 0 } else { -1 };
            Some(*input) == before && matches!(secondary, -1 | 1) && *output == result
        })
}

fn action_json(action: &pb::FileAction, inputs: usize, dialect: Dialect) -> Option<Object> {
    let object = Object::new();
    Some(match action.action.as_ref()? {
        Action::Copy(copy) => {
            let is_input = usize::try_from(action.secondary_input).is_ok_and(|i| i < inputs);
            let source = match is_input {
                true => base_name(&copy.src),
                false => copy.src.clone(),
            };
            copy_json(copy, &source, dialect)
        }
        Action::Mkfile(file) => object
            .text("path", &file.path)
            .number("mode", file.mode)
            .bytes("data", &file.data)
            .object("owner", owner_json(file.owner.as_ref(), dialect))
            .number("timestamp", file.timestamp),
        Action::Mkdir(dir) => object
            .text("path", &dir.path)
            .number("mode", dir.mode)
            .flag("makeParents", dir.make_parents)
            .object("owner", owner_json(dir.owner.as_ref(), dialect))
            .number("timestamp", dir.timestamp),
        Action::Symlink(link) => object
            .text("oldpath", &link.oldpath)
            .text("newpath", &link.newpath)
            .object("owner", owner_json(link.owner.as_ref(), dialect))
            .number("timestamp", link.timestamp),
        Action::Rm(rm) => object
            .text("path", &rm.path)
            .flag("allowNotFound", rm.allow_not_found)
            .flag("allowWildcard", rm.allow_wildcard),
    })
}

fn copy_json(copy: &pb::FileActionCopy, source: &str, dialect: Dialect) -> Object {
    let unpacks = copy.attempt_unpack_docker_compatibility;
    let replaces = copy.always_replace_existing_dest_paths;
    Object::new()
        .text("src", source)
        .text("dest", &copy.dest)
        .object("owner", owner_json(copy.owner.as_ref(), dialect))
        .number("mode", copy.mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", unpacks)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .number("timestamp", copy.timestamp)
        .texts("include_patterns", &copy.include_patterns)
        .texts("exclude_patterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", replaces)
        .text("modeStr", &copy.mode_str)
        .texts("required_paths", &copy.required_paths)
}

fn owner_json(owner: Option<&pb::ChownOpt>, dialect: Dialect) -> Option<Object> {
    let one = |option: &Option<pb::UserOpt>| {
        let user = match option.as_ref()?.user.as_ref() {
            Some(User::ByName(name)) => {
                let object = Object::new().text("name", &name.name);
                let object = index(object, "input", name.input, dialect);
                Object::new().object("byName", Some(object))
            }
            Some(User::ById(id)) => match dialect {
                Dialect::Current => Object::new().number("byId", *id),
                Dialect::Older => Object::new().number("byID", *id),
            },
            None => Object::new(),
        };
        Some(Object::new().object("User", Some(user)))
    };
    let owner = owner?;
    let object = Object::new().object("user", one(&owner.user));
    Some(object.object("group", one(&owner.group)))
}

/// Adds the number of an input or output.
pub(super) fn index(object: Object, name: &str, value: i64, dialect: Dialect) -> Object {
    match dialect {
        Dialect::Current => object.number(name, value),
        Dialect::Older => object.raw(name, &value.to_string()),
    }
}

pub(super) fn with_platform(object: Object, platform: &Platform) -> Object {
    object
        .always("OS", &platform.os)
        .always("Arch", &platform.architecture)
        .text("Variant", &platform.variant)
        .text("OSVersion", &platform.os_version)
        .texts("OSFeatures", &platform.os_features)
}

/// Returns the last component of a path as Go has it.
fn base_name(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.rsplit('/').next()) {
        (true, _) => ".".to_owned(),
        (false, None | Some("")) => "/".to_owned(),
        (false, Some(name)) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remote::buildkit::sample_ops::{action, bind, cache, copy, exec};

    const META: &str =
        r#""meta":{"args":["a\u003cb"],"env":["PATH=/bin"],"cwd":"/","extraHosts":[{"Host":"h"}]}"#;

    #[test]
    fn processes_are_written_without_what_does_not_count() {
        let platform = Platform::linux("arm", "v7");
        let json = |mounts, dialect| exec_json(&exec(mounts), &platform, dialect);
        let with = |mounts: &str| {
            format!(
                r#"{{"Type":"buildkit.exec.v0","Exec":{{{META}{mounts}}},"OS":"linux","Arch":"arm","Variant":"v7"}}"#
            )
        };
        let root = || bind(0, "/");
        assert_eq!(json(vec![root()], Dialect::Current), with(""));
        assert_eq!(json(vec![root()], Dialect::Older), with(""));
        let selected = pb::Mount {
            selector: "/x".to_owned(),
            output: -1,
            readonly: true,
            ..bind(1, "/s")
        };
        let mounts = vec![root(), selected];
        assert_eq!(
            json(mounts.clone(), Dialect::Current),
            with(r#","mounts":[{"dest":"/"},{"input":1,"dest":"/s","output":-1,"readonly":true}]"#)
        );
        assert_eq!(
            json(mounts, Dialect::Older),
            with(
                r#","mounts":[{"input":0,"dest":"/","output":0},{"input":1,"dest":"/s","output":-1,"readonly":true}]"#
            )
        );
        use pb::CacheSharingOpt::{Locked, Shared};
        for (mount, options) in [
            (cache("/c", Shared), r#"{"ID":"/c"}"#),
            (cache("name//c", Shared), r#"{"ID":"name//c"}"#),
            (cache("/c", Locked), "{}"),
            (cache("chosen", Shared), "{}"),
        ] {
            let expected = format!(
                r#","mounts":[{{"dest":"/"}},{{"input":-1,"dest":"/c","output":-1,"mountType":3,"cacheOpt":{options}}}]"#
            );
            assert_eq!(json(vec![root(), mount], Dialect::Current), with(&expected));
        }
    }

    #[test]
    fn copies_are_written_with_base_names_and_unusual_indexes() {
        let owner = |user| pb::ChownOpt {
            user: Some(pb::UserOpt { user: Some(user) }),
            group: None,
        };
        let by_id = pb::FileActionCopy {
            owner: Some(owner(User::ById(7))),
            ..copy("/x/y")
        };
        let json =
            |action: &pb::FileAction, dialect| action_json(action, 2, dialect).unwrap().end();
        let usual = action([0, 1, 0], by_id);
        let expected = |name: &str| {
            format!(
                r#"{{"src":"y","dest":"/d","owner":{{"user":{{"User":{{"{name}":7}}}}}},"mode":-1,"allowWildcard":true}}"#
            )
        };
        assert_eq!(json(&usual, Dialect::Current), expected("byId"));
        assert_eq!(json(&usual, Dialect::Older), expected("byID"));
        let file = |actions: Vec<pb::FileAction>| {
            let actions = pb::FileOp { actions };
            file_json(&actions, 2, Dialect::Current)
        };
        assert!(!file(vec![usual.clone()]).contains("indexes"));
        let second = action([2, 1, 0], copy("/z"));
        let first = action([0, 1, -1], copy("/x"));
        assert!(!file(vec![first.clone(), second]).contains("indexes"));
        let other = action([3, 1, 0], copy("/z"));
        assert!(file(vec![first, other]).ends_with(r#"],"indexes":[[0,1,-1],[3,1,0]]}"#));
    }
}
