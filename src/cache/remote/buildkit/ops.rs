//! What BuildKit calls the cache map of an op: its digest, and how it depends on its inputs.
//!
//! | op | digest of |
//! |---|---|
//! | exec | `{"Type":"buildkit.exec.v0","Exec":…,"OS":…,"Arch":…}`; without addresses of hosts, proxies, selectors of mounts, names of cache mounts that the user chose, and without mounts where there is only the writable root |
//! | file | `{"Type":"buildkit.file.v0","Actions":[base64 of each],"indexes":[[…]]}`; a copy has the base name of its source, and the indexes are left out where actions follow one another |
//! | merge, diff | `{"Type":"buildkit.merge.v0","Merge":…}`, `{"Type":"buildkit.diff.v0","Diff":…}` |
//!
//! Older versions wrote inputs and outputs that are 0, too, and `byID` for `byId`, and took secrets
//! for parts of the root ([`Dialect::Older`]). An input has
//! a *selector*, the hash of the paths that are used, and where only they matter the paths
//! themselves ([`Used`]), whose checksum ([`super::checksum`]) may stand for the input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::go_json::{Object, array, quoted};
use crate::llb::pattern::{clean, has_wildcards};
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;
use crate::llb::{Vertex, pb};
use crate::oci::{Digest, Platform};

/// Whose JSON is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// That of BuildKit today.
    #[default]
    Current,
    /// That of BuildKit 0.13 and before.
    Older,
}

impl Dialect {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Current, Self::Older];
}

/// Returns what stands for a dialect in a list of all; the last where they do not differ.
pub(super) fn of_dialect<T>(all: &[T], dialect: Dialect) -> Option<&T> {
    let place = match dialect {
        Dialect::Current => 0,
        Dialect::Older => 1,
    };
    all.get(place).or(all.last())
}

/// How an op depends on one of its inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dependency {
    /// Hash of the paths that it uses, in each dialect, where they differ; none for all.
    pub(super) selectors: Vec<Digest>,
    /// The paths whose contents may stand for the input.
    pub(super) contents: Option<Vec<Used>>,
}

/// A path that an op uses of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// The path.
    pub path: String,
    /// Whether it is a pattern.
    pub wildcard: bool,
    /// Whether a link at its end is followed.
    pub follow_links: bool,
    /// Patterns of what is taken.
    pub include: Vec<String>,
    /// Patterns of what is not taken.
    pub exclude: Vec<String>,
}

impl Used {
    /// Says whether single entries are taken, and not just a whole tree.
    pub(super) fn has_patterns(&self) -> bool {
        self.wildcard || !self.include.is_empty() || !self.exclude.is_empty()
    }
}

/// Digests an op; `None` for one that has no key apart from what it is pinned to.
pub(super) fn digest(vertex: &Vertex, dialect: Dialect) -> Option<Digest> {
    let json = match &vertex.op {
        pb::op::Op::Exec(exec) => exec_json(exec, &vertex.platform, dialect),
        pb::op::Op::File(file) => file_json(file, vertex.inputs.len(), dialect),
        pb::op::Op::Merge(merge) => {
            let inputs = merge.inputs.iter();
            let inputs = inputs.map(|input| index(Object::new(), "input", input.input, dialect));
            let merge = Object::new().list("inputs", inputs.map(Object::end));
            let typed = Object::new().always("Type", "buildkit.merge.v0");
            typed.object("Merge", Some(merge)).end()
        }
        pb::op::Op::Diff(diff) => {
            let side = |input: i64| index(Object::new(), "input", input, dialect);
            let diff = Object::new()
                .object("lower", diff.lower.as_ref().map(|lower| side(lower.input)))
                .object("upper", diff.upper.as_ref().map(|upper| side(upper.input)));
            let typed = Object::new().always("Type", "buildkit.diff.v0");
            typed.object("Diff", Some(diff)).end()
        }
        pb::op::Op::Source(_) | pb::op::Op::Build(_) | pb::op::Op::Passthrough(_) => return None,
    };
    Some(Digest::of(json.as_bytes()))
}

/// Digests what a source was pinned to.
pub(super) fn source_digest(key: &str) -> Digest {
    Digest::of(format!("buildkit.source.v0:{key}").as_bytes())
}

/// Makes the key of an image that is pinned to the digest of its manifest or index.
pub(super) fn image_key(digest: &Digest, platform: &Platform) -> String {
    let image = Object::new().always("Digest", &digest.to_string());
    Digest::of(with_platform(image, platform).end().as_bytes()).to_string()
}

/// A file from a web server, as it was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Name of the file.
    pub filename: String,
    /// Mode, owner and group that it gets; 0 where nobody says.
    pub attributes: [u32; 3],
    /// When the server says that it was changed last, in seconds since 1970; 0 where it does not.
    pub changed_s: i64,
}

impl Download {
    /// Makes the key of the file.
    pub fn key(&self) -> String {
        let [mode, uid, gid] = self.attributes.map(|number| number.to_string());
        let changed = match self.changed_s {
            0 => None,
            seconds => jiff::Timestamp::from_second(seconds).ok(),
        };
        let changed = changed.map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let json = Object::new()
            .always("Filename", &self.filename)
            .raw("Perm", &mode)
            .raw("UID", &uid)
            .raw("GID", &gid)
            .always("Checksum", &self.digest.to_string())
            .text("LastModTime", &changed.unwrap_or_default());
        Digest::of(json.end().as_bytes()).to_string()
    }
}

/// Makes the digest of a record from that of its op and the number of the output.
pub(super) fn record(op: &Digest, output: i64) -> Digest {
    Digest::of(format!("{op}@{output}").as_bytes())
}

/// Makes the digest of a record that stands for contents.
pub(super) fn content_record(contents: &Digest) -> Digest {
    record(contents, -1)
}

/// Returns how many outputs an op has.
pub(super) fn outputs(op: &pb::op::Op) -> u32 {
    let numbers: Vec<i64> = match op {
        pb::op::Op::Exec(exec) => exec.mounts.iter().map(|mount| mount.output).collect(),
        pb::op::Op::File(file) => file.actions.iter().map(|action| action.output).collect(),
        _ => vec![0],
    };
    let most = numbers.into_iter().max().unwrap_or(-1);
    u32::try_from(most + 1).unwrap_or(0)
}

/// Says how an op depends on each of its inputs.
pub(super) fn dependencies(vertex: &Vertex) -> Vec<Dependency> {
    let mut found = vec![Dependency::default(); vertex.inputs.len()];
    for (input, dependency) in found.iter_mut().enumerate() {
        match &vertex.op {
            pb::op::Op::Exec(exec) => *dependency = of_mounts(exec, input),
            pb::op::Op::File(file) => *dependency = of_actions(file, input),
            _ => {}
        }
    }
    found
}

fn of_mounts(exec: &pb::ExecOp, input: usize) -> Dependency {
    let (mut paths, mut by_content) = (Vec::new(), false);
    for mount in exec.mounts.iter().filter(|mount| is(mount.input, input)) {
        let kind = pb::MountType::try_from(mount.mount_type);
        if !matches!(kind, Ok(pb::MountType::Bind | pb::MountType::Cache)) {
            continue;
        }
        let path = clean(&format!("/{}", mount.selector));
        // The last mount decides, as there.
        by_content = (mount.output == -1 || mount.readonly || path == "/")
            && match pb::MountContentCache::try_from(mount.content_cache) {
                Ok(pb::MountContentCache::On) => true,
                Ok(pb::MountContentCache::Off) => false,
                _ => mount.dest != "/",
            };
        paths.push(path);
    }
    let contents = by_content.then(|| {
        let whole = paths.iter().any(|path| path == "/");
        let used = |path: String| Used {
            path,
            follow_links: true,
            ..Used::default()
        };
        match whole {
            true => vec![Used::default()],
            false => outermost(&paths).into_iter().map(used).collect(),
        }
    });
    let mut selectors = Vec::new();
    if !paths.is_empty() {
        selectors.push(Digest::of(paths.join("\0").as_bytes()));
        let secrets = exec.mounts.iter().filter(|mount| is_secret(mount)).count();
        if secrets > 0 && input == 0 {
            let older = format!("{}{}", paths.join("\0"), "\0/".repeat(secrets));
            selectors.push(Digest::of(older.as_bytes()));
        }
    }
    Dependency {
        selectors,
        contents,
    }
}

fn is_secret(mount: &pb::Mount) -> bool {
    mount.mount_type == pb::MountType::Secret as i32
}

fn of_actions(file: &pb::FileOp, input: usize) -> Dependency {
    let mut used = Vec::new();
    for action in &file.actions {
        if is(action.input, input) {
            // It is a target: what is in it all matters.
            return Dependency::default();
        }
        used.extend(accounts(action, input));
        if let Some(Action::Copy(copy)) = &action.action
            && is(action.secondary_input, input)
        {
            used.push(Used {
                path: copy.src.clone(),
                wildcard: copy.allow_wildcard && has_wildcards(&copy.src),
                follow_links: copy.follow_symlink,
                include: copy.include_patterns.clone(),
                exclude: copy.exclude_patterns.clone(),
            });
        }
    }
    if used.is_empty() {
        return Dependency::default();
    }
    let mut paths: Vec<&str> = used.iter().map(|used| used.path.as_str()).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Dependency {
        selectors: vec![Digest::of(paths.join("\0").as_bytes())],
        contents: Some(without_repeats(&used)),
    }
}

/// Returns the account files that an action reads in an input to find owners by name.
fn accounts(action: &pb::FileAction, input: usize) -> Vec<Used> {
    let owner = match &action.action {
        Some(Action::Copy(copy)) => copy.owner.as_ref(),
        Some(Action::Mkfile(file)) => file.owner.as_ref(),
        Some(Action::Mkdir(dir)) => dir.owner.as_ref(),
        _ => None,
    };
    let Some(owner) = owner else {
        return Vec::new();
    };
    let named = |option: &Option<pb::UserOpt>, path: &str| match option.as_ref()?.user.as_ref()? {
        User::ByName(name) if is(name.input, input) => Some(Used {
            path: path.to_owned(),
            follow_links: true,
            ..Used::default()
        }),
        _ => None,
    };
    let user = named(&owner.user, "/etc/passwd");
    user.into_iter()
        .chain(named(&owner.group, "/etc/group"))
        .collect()
}

/// Leaves out paths below others, those with patterns excepted, and sorts.
fn without_repeats(used: &[Used]) -> Vec<Used> {
    let mut kept = Vec::new();
    for follow_links in [false, true] {
        let plain = used
            .iter()
            .filter(|used| !used.has_patterns() && used.follow_links == follow_links);
        let paths: Vec<String> = plain.map(|used| used.path.clone()).collect();
        kept.extend(outermost(&paths).into_iter().map(|path| Used {
            path,
            follow_links,
            ..Used::default()
        }));
    }
    kept.extend(used.iter().filter(|used| used.has_patterns()).cloned());
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

/// Leaves out paths below others and repeated ones, and sorts.
fn outermost(paths: &[String]) -> Vec<String> {
    if paths.len() < 2 {
        return paths.to_vec();
    }
    let is_below = |path: &String, other: &String| {
        let directory = match other.ends_with('/') {
            true => other.clone(),
            false => format!("{other}/"),
        };
        path != other && path.starts_with(&directory)
    };
    let mut kept: Vec<String> = paths
        .iter()
        .filter(|path| !paths.iter().any(|other| is_below(path, other)))
        .cloned()
        .collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

fn is(index: i64, input: usize) -> bool {
    usize::try_from(index) == Ok(input)
}

fn exec_json(exec: &pb::ExecOp, platform: &Platform, dialect: Dialect) -> String {
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

fn file_json(file: &pb::FileOp, inputs: usize, dialect: Dialect) -> String {
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
fn index(object: Object, name: &str, value: i64, dialect: Dialect) -> Object {
    match dialect {
        Dialect::Current => object.number(name, value),
        Dialect::Older => object.raw(name, &value.to_string()),
    }
}

fn with_platform(object: Object, platform: &Platform) -> Object {
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
    use crate::llb::{OutputRef, VertexDigest};

    fn vertex(op: pb::op::Op, inputs: usize) -> Vertex {
        let input = OutputRef {
            vertex: VertexDigest::of(b""),
            index: 0,
        };
        Vertex {
            digest: VertexDigest::of(b""),
            op,
            inputs: vec![input; inputs],
            platform: Platform::linux("amd64", ""),
            metadata: crate::llb::Metadata::default(),
        }
    }

    fn exec(mounts: Vec<pb::Mount>) -> pb::ExecOp {
        let meta = pb::Meta {
            args: vec!["a<b".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            proxy_env: Some(pb::ProxyEnv::default()),
            extra_hosts: vec![pb::HostIp {
                host: "h".to_owned(),
                ip: "1.2.3.4".to_owned(),
            }],
            ..pb::Meta::default()
        };
        pb::ExecOp {
            meta: Some(meta),
            mounts,
            ..pb::ExecOp::default()
        }
    }

    fn bind(input: i64, dest: &str) -> pb::Mount {
        pb::Mount {
            input,
            dest: dest.to_owned(),
            ..pb::Mount::default()
        }
    }

    fn cache(id: &str, sharing: pb::CacheSharingOpt) -> pb::Mount {
        pb::Mount {
            output: -1,
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt {
                id: id.to_owned(),
                sharing: sharing.into(),
            }),
            ..bind(-1, "/c")
        }
    }

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

    fn copy(source: &str) -> pb::FileActionCopy {
        pb::FileActionCopy {
            src: source.to_owned(),
            dest: "/d".to_owned(),
            mode: -1,
            allow_wildcard: true,
            ..pb::FileActionCopy::default()
        }
    }

    fn action(indexes: [i64; 3], copy: pb::FileActionCopy) -> pb::FileAction {
        let [input, secondary_input, output] = indexes;
        pb::FileAction {
            input,
            secondary_input,
            output,
            action: Some(Action::Copy(copy)),
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

    #[test]
    fn inputs_count_by_paths_and_contents() {
        let sources = ["/b", "/a/*", "/b/below"];
        let actions = sources.map(|source| action([0, 1, 0], copy(source)));
        let file = pb::FileOp {
            actions: actions.to_vec(),
        };
        let found = dependencies(&vertex(pb::op::Op::File(file), 2));
        assert_eq!(found[0], Dependency::default());
        assert_eq!(found[1].selectors, [Digest::of(b"/b/below\0/b\0/a/*")]);
        let contents = found[1].contents.as_ref().unwrap();
        let paths: Vec<(&str, bool)> = contents
            .iter()
            .map(|used| (used.path.as_str(), used.wildcard))
            .collect();
        assert_eq!(paths, [("/a/*", true), ("/b", false)]);

        let shown = pb::Mount {
            selector: "x/../y".to_owned(),
            output: -1,
            ..bind(1, "/s")
        };
        let secret = pb::Mount {
            mount_type: pb::MountType::Secret.into(),
            ..bind(-1, "/run/secrets/s")
        };
        let op = pb::op::Op::Exec(exec(vec![bind(0, "/"), shown, secret]));
        let found = dependencies(&vertex(op, 2));
        let root = Dependency {
            selectors: vec![Digest::of(b"/"), Digest::of(b"/\0/")],
            contents: None,
        };
        assert_eq!(found[0], root);
        assert_eq!(found[1].selectors, [Digest::of(b"/y")]);
        assert_eq!(found[1].contents.as_ref().unwrap()[0].path, "/y");
    }

    /// What BuildKit 0.13 exported for an image, and for the first step on it.
    #[test]
    fn records_are_those_of_buildkit() {
        let root = "sha256:4fbdc7647b237fad8c8ac41f25ffb0a359b4897b4e6e70b2fac27e9408afb124";
        let key = image_key(&root.parse().unwrap(), &Platform::linux("amd64", ""));
        let image = record(&source_digest(&key), 0);
        assert_eq!(
            image.to_string(),
            "sha256:1502193cbf01ec521b74301733f980ce963fc733f65781e775fb0b0c408fcd98"
        );
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", "echo base > /base"]
                .map(str::to_owned)
                .to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            remove_mount_stubs_recursive: true,
            ..pb::Meta::default()
        };
        let op = pb::ExecOp {
            meta: Some(meta),
            mounts: vec![bind(0, "/")],
            network: pb::NetMode::Host.into(),
            ..pb::ExecOp::default()
        };
        let step = vertex(pb::op::Op::Exec(op), 1);
        let digest = digest(&step, Dialect::Current).unwrap();
        assert_eq!(
            record(&digest, 0).to_string(),
            "sha256:991fa3de55f4940fe29931a4353d3443fafbc97b9572a6e4323d3bf2a5eb4a8c"
        );
    }
}
