//! How an op depends on its inputs in BuildKit's scheme.
//!
//! An input has a *selector*, the hash of the paths that are used, and where only they matter the
//! paths themselves ([`Used`]), whose checksum ([`super::checksum`]) may stand for the input.

use crate::llb::pattern::{clean, has_wildcards};
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;
use crate::llb::{Vertex, pb};
use crate::oci::Digest;

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

/// Says how an op depends on each of its inputs.
pub(super) fn of_vertex(vertex: &Vertex) -> Vec<Dependency> {
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

pub(super) fn is_secret(mount: &pb::Mount) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remote::buildkit::sample_ops::{action, bind, copy, exec, vertex};

    #[test]
    fn inputs_count_by_paths_and_contents() {
        let sources = ["/b", "/a/*", "/b/below"];
        let actions = sources.map(|source| action([0, 1, 0], copy(source)));
        let file = pb::FileOp {
            actions: actions.to_vec(),
        };
        let found = of_vertex(&vertex(pb::op::Op::File(file), 2));
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
        let found = of_vertex(&vertex(op, 2));
        let root = Dependency {
            selectors: vec![Digest::of(b"/"), Digest::of(b"/\0/")],
            contents: None,
        };
        assert_eq!(found[0], root);
        assert_eq!(found[1].selectors, [Digest::of(b"/y")]);
        assert_eq!(found[1].contents.as_ref().unwrap()[0].path, "/y");
    }
}
