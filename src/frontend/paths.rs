//! Slash-separated paths in a container: cleaned lexically, absolute, trailing slashes kept
//! where they mean something.

/// Resolves `.`, `..` and doubled slashes without looking at files; empty gives `.`.
pub(super) fn clean(path: &str) -> String {
    if is_clean(path) {
        return path.to_owned();
    }
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if is_absolute => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Returns whether there is nothing to resolve, as in most paths.
fn is_clean(path: &str) -> bool {
    let parts = path.strip_prefix('/').unwrap_or(path);
    parts
        .split('/')
        .all(|part| !matches!(part, "" | "." | ".."))
}

/// Makes `path` absolute, relative ones counting from `directory`.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("/{directory}/{path}"))
    }
}

/// Makes a `WORKDIR` absolute: relative ones are cleaned, absolute ones stay as they are
/// written, a slash at their end too, since the image's config shows them so. An empty one is
/// the directory before.
pub(super) fn working_directory(directory: &str, path: &str) -> String {
    let path = if path.is_empty() { directory } else { path };
    if path.starts_with('/') {
        path.to_owned()
    } else {
        absolute(directory, path)
    }
}

/// Makes the destination of a copy absolute; a `/` or `/.` at its end stays, since it says that
/// the destination is a directory. The empty path and `.` are the directory itself.
pub(super) fn destination(directory: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." {
        "./"
    } else {
        path
    };
    let mut cleaned = absolute(directory, path);
    if path.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    } else if path.ends_with("/.") {
        if cleaned != "/" {
            cleaned.push('/');
        }
        cleaned.push('.');
    }
    cleaned
}

/// Returns the last part of a path; `/` for the root and `.` for nothing.
pub(super) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some("") | None => "/",
        Some(last) => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_what_makes_them_directories() {
        for (directory, path, expected) in [
            ("/", "", "/"),
            ("/w", "", "/w/"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "a", "/w/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", "a/.", "/w/a/."),
            ("/w", "..", "/"),
            ("/w", "/a//b/../c/", "/a/c/"),
            ("/w", "/.", "/."),
            ("/w", "/a/.", "/a/."),
            ("/w", "../../x", "/x"),
        ] {
            assert_eq!(destination(directory, path), expected, "{directory} {path}");
        }
    }

    #[test]
    fn absolute_working_directories_stay_as_written() {
        for (directory, path, expected) in [
            ("/", "a", "/a"),
            ("/a/", "b/", "/a/b"),
            ("/a", "../b", "/b"),
            ("/a", "", "/a"),
            ("/a/", "", "/a/"),
            ("", "", "/"),
            ("/a", "/b/", "/b/"),
            ("/a", "/b/../c//d", "/b/../c//d"),
        ] {
            let found = working_directory(directory, path);
            assert_eq!(found, expected, "{directory} {path}");
        }
    }

    #[test]
    fn paths_are_cleaned_lexically() {
        for (path, expected) in [
            ("", "."),
            ("/", "/"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("a//./b/", "a/b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        for (path, expected) in [("", "."), ("/", "/"), ("/a/b/", "b"), ("x", "x")] {
            assert_eq!(base(path), expected, "{path}");
        }
    }
}
