//! The parts that the key of an op is made of, each with a name and a value that people read.
//!
//! Parts come in pairs where words cannot say everything: the values that people know, and the
//! fingerprint of all the rest, which is shown only when nothing else changed. Two ops have the
//! same parts exactly when they do the same to the same inputs.

use std::collections::BTreeSet;

use prost::Message;

use crate::cache::{ContentHash, KeyPart};
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;

/// Lists the parts of a process.
pub(super) fn of_exec(exec: &pb::ExecOp, arguments: &BTreeSet<String>) -> Vec<KeyPart> {
    let meta = exec.meta.clone().unwrap_or_default();
    let mut parts = vec![
        part("command", &serde_json::json!(meta.args).to_string()),
        part("working directory", &meta.cwd),
        part("user", &meta.user),
        part("host name", &meta.hostname),
        part("network", &network(exec.network)),
        part("security", &security(exec.security)),
    ];
    for variable in &meta.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let kind = match arguments.contains(name) {
            true => "arg",
            false => "env",
        };
        parts.push(part(&format!("{kind}:{name}"), value));
    }
    for host in &meta.extra_hosts {
        parts.push(part(&format!("extra host {}", host.host), "any address"));
    }
    for ulimit in &meta.ulimit {
        let value = format!("{}:{}", ulimit.soft, ulimit.hard);
        parts.push(part(&format!("ulimit {}", ulimit.name), &value));
    }
    if !meta.valid_exit_codes.is_empty() {
        let codes = format!("{:?}", meta.valid_exit_codes);
        parts.push(part("valid exit codes", &codes));
    }
    for secret in &exec.secretenv {
        let name = format!("secret variable {}", secret.name);
        parts.push(part(&name, &secret.id));
    }
    for device in &exec.cdi_devices {
        let need = if device.optional {
            "optional"
        } else {
            "needed"
        };
        parts.push(part(&format!("device {}", device.name), need));
    }
    for mount in &exec.mounts {
        let mount = without_source(mount);
        parts.push(part(&format!("mount {}", mount.dest), &mount_words(&mount)));
        let rest = format!("details of mount {}", mount.dest);
        parts.push(fingerprint(&rest, &mount.encode_to_vec()));
    }
    parts
}

/// Lists the parts of changes of files. What copies take is no part of it: contents are.
pub(super) fn of_file(file: &pb::FileOp) -> Vec<KeyPart> {
    let mut parts = Vec::new();
    for (index, action) in file.actions.iter().enumerate() {
        let action = without_selection(action);
        // A copy has an action for each source.
        let named = |name: &str| match (index, name) {
            (0, name) => name.to_owned(),
            (_, "source") => format!("source {}", index + 1),
            (_, name) => format!("{name} of source {}", index + 1),
        };
        for (name, value) in action_words(&action) {
            parts.push(part(&named(name), &value));
        }
        parts.push(fingerprint(&named("details"), &action.encode_to_vec()));
    }
    parts
}

/// Makes a part of which only that it changed can be said.
pub(super) fn fingerprint(name: &str, bytes: &[u8]) -> KeyPart {
    KeyPart::fingerprint(name, &ContentHash::of(bytes))
}

pub(super) fn part(name: &str, value: &str) -> KeyPart {
    KeyPart::new(name, value)
}

/// Says whether a mount only shows contents to the step: nothing that it makes of them is a
/// result, be it that it cannot change them or that the changes are thrown away or stay in a
/// cache mount.
pub(super) fn only_shows(mount: &pb::Mount) -> bool {
    let kind = pb::MountType::try_from(mount.mount_type);
    matches!(kind, Ok(pb::MountType::Bind | pb::MountType::Cache))
        && (mount.readonly || mount.output < 0)
        && mount.dest != "/"
        && mount.content_cache != pb::MountContentCache::Off as i32
}

/// Returns a mount without what it shows of its source: contents say that.
fn without_source(mount: &pb::Mount) -> pb::Mount {
    let mut mount = mount.clone();
    if mount.input >= 0 && only_shows(&mount) {
        mount.selector.clear();
    }
    mount
}

/// Describes a mount as it is written in a Dockerfile.
fn mount_words(mount: &pb::Mount) -> String {
    let mut words = Vec::new();
    let mut say = |name: &str, value: String| {
        if !value.is_empty() {
            words.push(format!("{name}={value}"));
        }
    };
    match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Bind) => say("type", "bind".to_owned()),
        Ok(pb::MountType::Cache) => {
            let options = mount.cache_opt.clone().unwrap_or_default();
            say("type", "cache".to_owned());
            say("id", options.id);
            say("sharing", sharing(options.sharing).to_owned());
        }
        Ok(pb::MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.as_ref().map_or(0, |options| options.size);
            say("type", "tmpfs".to_owned());
            say(
                "size",
                if size == 0 {
                    String::new()
                } else {
                    size.to_string()
                },
            );
        }
        Ok(pb::MountType::Secret) => {
            let options = mount.secret_opt.clone().unwrap_or_default();
            say("type", "secret".to_owned());
            say("id", options.id);
            say("mode", format!("{:04o}", options.mode));
            say("owner", format!("{}:{}", options.uid, options.gid));
            say("required", (!options.optional).to_string());
        }
        Ok(pb::MountType::Ssh) => {
            let options = mount.ssh_opt.clone().unwrap_or_default();
            say("type", "ssh".to_owned());
            say("id", options.id);
            say("mode", format!("{:04o}", options.mode));
            say("owner", format!("{}:{}", options.uid, options.gid));
            say("required", (!options.optional).to_string());
        }
        Err(_) => say("type", mount.mount_type.to_string()),
    }
    say("source", mount.selector.clone());
    if mount.readonly {
        say("access", "ro".to_owned());
    }
    words.join(",")
}

fn sharing(number: i32) -> &'static str {
    match pb::CacheSharingOpt::try_from(number) {
        Ok(pb::CacheSharingOpt::Shared) => "shared",
        Ok(pb::CacheSharingOpt::Private) => "private",
        Ok(pb::CacheSharingOpt::Locked) => "locked",
        Err(_) => "unknown",
    }
}

fn network(number: i32) -> String {
    match pb::NetMode::try_from(number) {
        Ok(pb::NetMode::Unset) => "default".to_owned(),
        Ok(pb::NetMode::Host) => "host".to_owned(),
        Ok(pb::NetMode::None) => "none".to_owned(),
        Err(_) => number.to_string(),
    }
}

fn security(number: i32) -> String {
    match pb::SecurityMode::try_from(number) {
        Ok(pb::SecurityMode::Sandbox) => "sandbox".to_owned(),
        Ok(pb::SecurityMode::Insecure) => "insecure".to_owned(),
        Err(_) => number.to_string(),
    }
}

/// Returns an action without which files it takes; the last component of the path stays, because
/// the copy may be called so, with its slash: `a/b/` and `a/b` differ in meaning.
fn without_selection(action: &pb::FileAction) -> pb::FileAction {
    let mut action = action.clone();
    let from_input = action.secondary_input >= 0;
    if let Some(Action::Copy(copy)) = &mut action.action
        && from_input
    {
        copy.src = base_name(&copy.src).to_owned();
        copy.include_patterns.clear();
        copy.exclude_patterns.clear();
        copy.required_paths.clear();
    }
    action
}

/// Describes an action; what is not set is left out.
fn action_words(action: &pb::FileAction) -> Vec<(&'static str, String)> {
    let mut words = match &action.action {
        Some(Action::Copy(copy)) => vec![
            ("source", copy.src.clone()),
            ("destination", copy.dest.clone()),
            ("owner", owner(copy.owner.as_ref())),
            ("mode", copied_mode(copy)),
            ("time", time(copy.timestamp)),
            ("unpacking", yes(copy.attempt_unpack_docker_compatibility)),
        ],
        Some(Action::Mkfile(make)) => vec![
            ("file", make.path.clone()),
            (
                "text",
                KeyPart::fingerprint("", &ContentHash::of(&make.data)).value,
            ),
            ("mode", mode(make.mode)),
            ("owner", owner(make.owner.as_ref())),
            ("time", time(make.timestamp)),
        ],
        Some(Action::Mkdir(make)) => vec![
            ("directory", make.path.clone()),
            ("mode", mode(make.mode)),
            ("owner", owner(make.owner.as_ref())),
            ("time", time(make.timestamp)),
        ],
        Some(Action::Rm(remove)) => vec![("removal", remove.path.clone())],
        Some(Action::Symlink(link)) => vec![
            ("link", link.newpath.clone()),
            ("target", link.oldpath.clone()),
            ("owner", owner(link.owner.as_ref())),
            ("time", time(link.timestamp)),
        ],
        None => Vec::new(),
    };
    words.retain(|(_, value)| !value.is_empty());
    words
}

fn copied_mode(copy: &pb::FileActionCopy) -> String {
    match copy.mode_str.as_str() {
        "" => mode(copy.mode),
        text => text.to_owned(),
    }
}

fn mode(bits: i32) -> String {
    match bits {
        -1 => String::new(),
        bits => format!("{bits:04o}"),
    }
}

fn time(nanoseconds: i64) -> String {
    match nanoseconds {
        -1 => String::new(),
        time => time.to_string(),
    }
}

fn yes(value: bool) -> String {
    if value {
        "yes".to_owned()
    } else {
        String::new()
    }
}

fn owner(owner: Option<&pb::ChownOpt>) -> String {
    let named = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|user| user.user.as_ref())
    {
        Some(User::ByName(name)) => name.name.clone(),
        Some(User::ById(id)) => id.to_string(),
        None => String::new(),
    };
    let Some(owner) = owner else {
        return String::new();
    };
    match (named(&owner.user), named(&owner.group)) {
        (user, group) if group.is_empty() => user,
        (user, group) => format!("{user}:{group}"),
    }
}

/// Returns the last component, with a trailing slash kept.
fn base_name(path: &str) -> &str {
    let end = path.trim_end_matches('/').len();
    let start = path[..end].rfind('/').map_or(0, |slash| slash + 1);
    &path[start..]
}
