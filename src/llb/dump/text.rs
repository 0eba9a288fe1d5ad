//! A definition as text: ops are numbered, inputs name numbers, every set field has a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::decode;
use crate::llb::source_map::Range;
use crate::llb::{Definition, InvalidDefinition, VertexDigest, pb, platform};

/// Describes a definition for reading; digests do not appear.
pub fn text(definition: &Definition) -> Result<String, InvalidDefinition> {
    if definition.ops.is_empty() {
        return Ok("result scratch\n".to_owned());
    }
    let ops = decode(definition)?;
    let numbers: BTreeMap<String, usize> = ops
        .iter()
        .enumerate()
        .map(|(number, (digest, _))| (digest.to_string(), number))
        .collect();
    let mut out = String::new();
    for (number, (digest, op)) in ops.iter().enumerate() {
        let inputs: Vec<String> = op.inputs.iter().map(|i| input_name(i, &numbers)).collect();
        let Some(kind) = &op.op else {
            let _ = writeln!(out, "result {}", inputs.join(" "));
            continue;
        };
        let mut lines = Lines(Vec::new());
        let title = describe(kind, &inputs, &mut lines);
        lines.add_about(digest, op, definition);
        lines.add_after(digest, definition, &numbers);
        let _ = writeln!(out, "%{number} {title}");
        for line in lines.0 {
            let _ = writeln!(out, "    {line}");
        }
    }
    Ok(out)
}

struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0.push(format!("{name} {value}"));
    }

    fn add_text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.add(name, value);
        }
    }

    fn add_about(&mut self, digest: &VertexDigest, op: &pb::Op, definition: &Definition) {
        if let Some(platform) = &op.platform {
            self.add("platform", platform::from_pb(platform));
        }
        if let Some(metadata) = definition.metadata.get(digest) {
            if !metadata.name.is_empty() {
                self.add("name", metadata.name.escape_debug());
            }
            if metadata.ignore_cache {
                self.0.push("ignore-cache".to_owned());
            }
            if let Some(group) = &metadata.progress_group {
                let weak = if group.weak { " weak" } else { "" };
                self.add("group", format_args!("{}{weak} {}", group.id, group.name));
            }
        }
        let Some(source) = &definition.source else {
            return;
        };
        for location in source.of(digest) {
            let file = source.files().get(location.file);
            let file = file.map_or("?", |file| &file.filename);
            for Range {
                start_line,
                end_line,
                ..
            } in &location.ranges
            {
                self.add("at", format_args!("{file}:{start_line}-{end_line}"));
            }
        }
    }
}

impl Lines {
    fn add_after(
        &mut self,
        digest: &VertexDigest,
        definition: &Definition,
        numbers: &BTreeMap<String, usize>,
    ) {
        let metadata = definition.metadata.get(digest);
        let after = metadata.iter().flat_map(|metadata| &metadata.after);
        let mut after: Vec<usize> = after
            .filter_map(|awaited| numbers.get(&awaited.to_string()).copied())
            .collect();
        after.sort_unstable();
        for number in after {
            self.add("after", format_args!("%{number}"));
        }
    }
}

fn input_name(input: &pb::Input, numbers: &BTreeMap<String, usize>) -> String {
    let number = match numbers.get(&input.digest) {
        Some(number) => number.to_string(),
        None => "?".to_owned(),
    };
    match input.index {
        0 => format!("%{number}"),
        index => format!("%{number}.{index}"),
    }
}

fn name_of(inputs: &[String], index: i64) -> String {
    let input = usize::try_from(index).ok().and_then(|i| inputs.get(i));
    input.cloned().unwrap_or_else(|| "scratch".to_owned())
}

fn describe(kind: &pb::op::Op, inputs: &[String], lines: &mut Lines) -> String {
    match kind {
        pb::op::Op::Source(source) => {
            for (key, value) in &source.attrs {
                lines.add(key, value.escape_debug());
            }
            format!("source {}", source.identifier)
        }
        pb::op::Op::Exec(exec) => {
            describe_exec(exec, inputs, lines);
            "exec".to_owned()
        }
        pb::op::Op::File(file) => {
            for (index, action) in file.actions.iter().enumerate() {
                describe_action(index, action, inputs, lines);
            }
            "file".to_owned()
        }
        pb::op::Op::Merge(_) => format!("merge {}", inputs.join(" ")),
        pb::op::Op::Diff(diff) => {
            let lower = name_of(inputs, diff.lower.map_or(-1, |l| l.input));
            let upper = name_of(inputs, diff.upper.map_or(-1, |u| u.input));
            format!("diff {lower} {upper}")
        }
        pb::op::Op::Build(_) => format!("build {}", inputs.join(" ")),
        pb::op::Op::Passthrough(op) => {
            lines.add_text("id", &op.id);
            let outputs = op.outputs.iter().map(|output| name_of(inputs, *output));
            format!("passthrough {}", outputs.collect::<Vec<_>>().join(" "))
        }
    }
}

fn describe_exec(exec: &pb::ExecOp, inputs: &[String], lines: &mut Lines) {
    let meta = exec.meta.clone().unwrap_or_default();
    lines.add("args", format_args!("{:?}", meta.args));
    for variable in &meta.env {
        lines.add("env", variable.escape_debug());
    }
    lines.add_text("cwd", &meta.cwd);
    lines.add_text("user", &meta.user);
    lines.add_text("hostname", &meta.hostname);
    lines.add_text("cgroup-parent", &meta.cgroup_parent);
    if let Some(proxy) = &meta.proxy_env {
        lines.add_text("http_proxy", &proxy.http_proxy);
        lines.add_text("https_proxy", &proxy.https_proxy);
        lines.add_text("ftp_proxy", &proxy.ftp_proxy);
        lines.add_text("no_proxy", &proxy.no_proxy);
        lines.add_text("all_proxy", &proxy.all_proxy);
    }
    for host in &meta.extra_hosts {
        lines.add("host", format_args!("{}={}", host.host, host.ip));
    }
    for limit in &meta.ulimit {
        lines.add(
            "ulimit",
            format_args!("{}={}:{}", limit.name, limit.soft, limit.hard),
        );
    }
    if exec.network() != pb::NetMode::Unset {
        lines.add("network", exec.network().as_str_name());
    }
    if exec.security() != pb::SecurityMode::Sandbox {
        lines.add("security", exec.security().as_str_name());
    }
    for mount in &exec.mounts {
        lines.add("mount", describe_mount(mount, inputs));
    }
    for secret in &exec.secretenv {
        let optional = if secret.optional { " optional" } else { "" };
        lines.add(
            "secret-env",
            format_args!("{}={}{optional}", secret.name, secret.id),
        );
    }
    for device in &exec.cdi_devices {
        let optional = if device.optional { " optional" } else { "" };
        lines.add("device", format_args!("{}{optional}", device.name));
    }
}

fn describe_mount(mount: &pb::Mount, inputs: &[String]) -> String {
    let mut out = format!("{} {}", mount.dest, mount.mount_type().as_str_name());
    match mount.mount_type() {
        pb::MountType::Bind | pb::MountType::Cache => {
            let _ = write!(out, " {}", name_of(inputs, mount.input));
        }
        pb::MountType::Secret | pb::MountType::Ssh | pb::MountType::Tmpfs => {}
    }
    if !mount.selector.is_empty() {
        let _ = write!(out, " selector={}", mount.selector);
    }
    if let Some(cache) = &mount.cache_opt {
        let _ = write!(out, " id={} {}", cache.id, cache.sharing().as_str_name());
    }
    if let Some(tmpfs) = &mount.tmpfs_opt {
        let _ = write!(out, " size={}", tmpfs.size);
    }
    if let Some(s) = &mount.secret_opt {
        let _ = write!(out, " id={} {}:{} {:04o}", s.id, s.uid, s.gid, s.mode);
        out.push_str(if s.optional { " optional" } else { "" });
    }
    if let Some(s) = &mount.ssh_opt {
        let _ = write!(out, " id={:?} {}:{} {:04o}", s.id, s.uid, s.gid, s.mode);
        out.push_str(if s.optional { " optional" } else { "" });
    }
    if mount.readonly {
        out.push_str(" readonly");
    }
    if mount.mount_type() == pb::MountType::Bind {
        match mount.output {
            -1 => out.push_str(" no-output"),
            output => {
                let _ = write!(out, " output={output}");
            }
        }
    }
    out
}

fn describe_action(index: usize, action: &pb::FileAction, inputs: &[String], lines: &mut Lines) {
    use pb::file_action::Action;
    let name = |input: i64| match usize::try_from(input) {
        Ok(input) if input >= inputs.len() => format!("action {}", input - inputs.len()),
        _ => name_of(inputs, input),
    };
    let base = name(action.input);
    let mut line = match &action.action {
        Some(Action::Copy(copy)) => {
            let from = name(action.secondary_input);
            format!(
                "copy {from}:{} {}{}",
                copy.src,
                copy.dest,
                copy_options(copy)
            )
        }
        Some(Action::Mkfile(file)) => {
            let data = String::from_utf8_lossy(&file.data);
            let owner = owner(file.owner.as_ref());
            let time = time(file.timestamp);
            format!(
                "mkfile {} {:04o}{owner}{time} {data:?}",
                file.path, file.mode
            )
        }
        Some(Action::Mkdir(dir)) => {
            let parents = if dir.make_parents { " parents" } else { "" };
            let owner = owner(dir.owner.as_ref());
            let time = time(dir.timestamp);
            format!("mkdir {} {:04o}{parents}{owner}{time}", dir.path, dir.mode)
        }
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(link)) => {
            let owner = owner(link.owner.as_ref());
            format!("symlink {} {}{owner}", link.oldpath, link.newpath)
        }
        None => "nothing".to_owned(),
    };
    if action.output >= 0 {
        let _ = write!(line, " output={}", action.output);
    }
    lines.add(&format!("{index}:"), format_args!("on {base} {line}"));
}

fn copy_options(copy: &pb::FileActionCopy) -> String {
    let flags = [
        (copy.follow_symlink, " follow"),
        (copy.dir_copy_contents, " contents"),
        (copy.attempt_unpack_docker_compatibility, " unpack"),
        (copy.create_dest_path, " create-dest"),
        (copy.allow_wildcard, " wildcard"),
        (copy.allow_empty_wildcard, " empty-wildcard"),
        (copy.always_replace_existing_dest_paths, " replace"),
    ];
    let mut out = String::new();
    out.extend(flags.iter().filter(|flag| flag.0).map(|flag| flag.1));
    if copy.mode != -1 && copy.mode_str.is_empty() {
        let _ = write!(out, " mode={:04o}", copy.mode);
    }
    if !copy.mode_str.is_empty() {
        let _ = write!(out, " mode={}", copy.mode_str);
    }
    let lists = [
        ("include", &copy.include_patterns),
        ("exclude", &copy.exclude_patterns),
        ("require", &copy.required_paths),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            let _ = write!(out, " {name}={list:?}");
        }
    }
    out + &owner(copy.owner.as_ref()) + &time(copy.timestamp)
}

fn time(timestamp: i64) -> String {
    match timestamp {
        -1 => String::new(),
        nanoseconds => format!(" time={nanoseconds}"),
    }
}

fn owner(owner: Option<&pb::ChownOpt>) -> String {
    let Some(owner) = owner else {
        return String::new();
    };
    let id = |user: Option<&pb::UserOpt>| match user.and_then(|user| user.user.as_ref()) {
        Some(pb::user_opt::User::ByName(named)) => format!("{}@{}", named.name, named.input),
        Some(pb::user_opt::User::ById(id)) => id.to_string(),
        None => "-".to_owned(),
    };
    format!(
        " owner={}:{}",
        id(owner.user.as_ref()),
        id(owner.group.as_ref())
    )
}
