//! Paths that a definition follows in a folder: where links in them lead is wanted too.
//!
//! A client of BuildKit sends what such a path names and every link on the way. Wildcards stand
//! for the names in one directory; a path that leads nowhere stays as it is.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::TreeError;
use crate::llb::pattern::{Glob, clean, has_wildcards};
use crate::sys::metadata::FileKind;
use crate::sys::root::{Root, is_missing};

/// Most links and targets that the paths of one folder may lead through.
const STEPS_MAX: usize = 100_000;

/// Finds the patterns for what `paths` lead to; `None` where that is the whole folder.
pub fn followed(dir: &Path, paths: &[String]) -> Result<Option<Vec<String>>, TreeError> {
    let root = Root::open(dir).map_err(|source| TreeError::Open {
        path: dir.to_owned(),
        source,
    })?;
    let mut resolver = Resolver {
        root: &root,
        found: BTreeSet::new(),
        pending: paths.iter().rev().map(|path| relative(path)).collect(),
    };
    let mut steps = 0;
    while let Some(path) = resolver.pending.pop() {
        steps += 1;
        if steps > STEPS_MAX {
            return Err(TreeError::TooLarge {
                path: dir.to_owned(),
            });
        }
        resolver
            .follow(&path)
            .map_err(|source| TreeError::Unreadable { path, source })?;
    }
    Ok(without_covered(resolver.found))
}

/// Joins include patterns with what is followed; `None` where nothing is left out.
pub fn joined(includes: &[String], followed: Option<Vec<String>>) -> Option<Vec<String>> {
    match followed {
        None => Some(includes.to_vec()),
        Some(followed) => without_covered(includes.iter().cloned().chain(followed)),
    }
}

/// Leaves out what lies below the path before it; the folder itself stands for everything.
fn without_covered(paths: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let mut kept: Vec<String> = Vec::new();
    for path in paths {
        if path == "." {
            return None;
        }
        let last = kept.last().map_or("", String::as_str);
        let is_below = path
            .strip_prefix(last)
            .is_some_and(|rest| rest.starts_with('/'));
        if !is_below {
            kept.push(path);
        }
    }
    Some(kept)
}

struct Resolver<'a> {
    root: &'a Root,
    found: BTreeSet<String>,
    /// Paths that are still to be followed.
    pending: Vec<String>,
}

impl Resolver<'_> {
    fn follow(&mut self, path: &str) -> io::Result<()> {
        let mut current = String::new();
        let mut rest = Some(path);
        while let Some(whole) = rest {
            let (part, behind) = match whole.split_once('/') {
                Some((part, behind)) => (part, Some(behind)),
                None => (whole, None),
            };
            current = match current.as_str() {
                "" => part.to_owned(),
                current => format!("{current}/{part}"),
            };
            rest = behind;
            let targets = self.targets(&current)?;
            if targets.is_empty() && rest.is_some() {
                continue;
            }
            if self.found.insert(current.clone()) {
                let below = rest.unwrap_or_default();
                let targets = targets.iter().rev();
                self.pending
                    .extend(targets.map(|target| relative(&format!("{target}/{below}"))));
            }
            return Ok(());
        }
        Ok(())
    }

    /// Returns where the links lead that `path` names; its last part may be a pattern.
    fn targets(&self, path: &str) -> io::Result<Vec<String>> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !has_wildcards(name) {
            return Ok(self.target(path)?.into_iter().collect());
        }
        let entries = match self.root.read_dir(Path::new(dir)) {
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            other => other?,
        };
        let Ok(glob) = Glob::new(name) else {
            return Ok(Vec::new());
        };
        let mut targets = Vec::new();
        for entry in entries {
            let Some(name) = entry.os_name().to_str().filter(|name| glob.matches(name)) else {
                continue;
            };
            let path = match dir {
                "" => name.to_owned(),
                dir => format!("{dir}/{name}"),
            };
            targets.extend(self.target(&path)?);
        }
        Ok(targets)
    }

    /// Returns where a link leads, from the top of the folder.
    fn target(&self, path: &str) -> io::Result<Option<String>> {
        let metadata = match self.root.lstat(Path::new(path)) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        if metadata.kind != FileKind::Symlink {
            return Ok(None);
        }
        let link = self.root.read_link(Path::new(path))?;
        let link = link.to_string_lossy();
        if link.starts_with('/') {
            return Ok(Some(link.into_owned()));
        }
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        Ok(Some(clean(&format!("/{dir}/{link}"))))
    }
}

/// Cleans a path, and has it begin at the top of the folder.
fn relative(path: &str) -> String {
    let cleaned = clean(&format!("/{path}"));
    match cleaned.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_wanted_with_what_they_lead_to() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        std::fs::create_dir_all(dir.join("dir/sub")).unwrap();
        std::fs::create_dir(dir.join("other")).unwrap();
        let link = |target: &str, path: &str| {
            std::os::unix::fs::symlink(target, dir.join(path)).unwrap();
        };
        link("../a.txt", "dir/link");
        link("dir", "dlink");
        link("/other", "absolute");
        link("loop", "loop");
        link("../../..", "dir/out");
        for (paths, expected) in [
            (&["dir/link"][..], Some("a.txt dir/link")),
            (&["/dlink/sub/x"], Some("dir/sub/x dlink")),
            (&["dlink"], Some("dir dlink")),
            (&["absolute/y"], Some("absolute other/y")),
            // The pattern itself is let through, with where its links lead.
            (&["d*/sub"], Some("d* dir/sub")),
            (&["x*/sub"], Some("x*/sub")),
            (&["loop/a"], Some("loop")),
            (&["dir", "dir/sub"], Some("dir")),
            (&["absent/a"], Some("absent/a")),
            (&["dir/out"], None),
            (&["."], None),
            (&[], Some("")),
        ] {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            let found = followed(dir, &paths).unwrap().map(|found| found.join(" "));
            assert_eq!(found.as_deref(), expected, "{paths:?}");
        }
    }

    #[test]
    fn patterns_and_followed_paths_add_up() {
        let texts = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let add = |includes: &str, followed: Option<&str>| {
            joined(&texts(includes), followed.map(texts)).map(|all| all.join(" "))
        };
        assert_eq!(add("a", Some("b")).as_deref(), Some("a b"));
        assert_eq!(add("a", Some("a/b c")).as_deref(), Some("a c"));
        assert_eq!(add("a", None).as_deref(), Some("a"));
        assert_eq!(add(".", Some("b")), None);
    }
}
