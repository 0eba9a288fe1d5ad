//! Paths in Dockerfiles for Windows images: either slash separates names, and the letter of the
//! only drive that an image has may stand before.
//!
//! Everything behind the frontend knows slashes alone; only the image's config shows backslashes.

use super::paths;

/// The drive that images have.
const DRIVE: &str = "c";

/// Turns a path into one with slashes and without a drive; a slash at its end stays.
pub(super) fn to_slashes(path: &str) -> Result<String, String> {
    let slashed = path.replace('\\', "/");
    if slashed.starts_with("//") {
        return Err(format!(
            "{path:?} lies on another machine: a path in the image is expected"
        ));
    }
    let on_drive = match slashed.split_once(':') {
        None => slashed.as_str(),
        Some((drive, "")) if drive.len() == 1 => {
            return Err(format!("{path:?} is a drive without a path on it"));
        }
        Some((drive, rest)) if drive.eq_ignore_ascii_case(DRIVE) => rest,
        Some(_) => {
            return Err(format!(
                "{path:?} is not on drive C:, the only one of an image"
            ));
        }
    };
    if on_drive.is_empty() {
        return Ok(String::new());
    }
    let mut cleaned = paths::clean(on_drive);
    if cleaned.len() > 1 && on_drive.ends_with('/') {
        cleaned.push('/');
    }
    Ok(cleaned)
}

/// Writes a path as the config of a Windows image has it.
pub(super) fn to_backslashes(path: &str) -> String {
    path.replace('/', "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_and_backslashes_are_taken_away() {
        for (path, expected) in [
            ("", ""),
            (".", "."),
            ("a", "a"),
            ("\\a\\b\\..\\c\\", "/a/c/"),
            ("C:\\a", "/a"),
            ("c:a\\b", "a/b"),
            ("C:\\", "/"),
            ("C:/a/./b", "/a/b"),
        ] {
            assert_eq!(to_slashes(path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["C:", "d:", "d:\\a", "\\\\server\\a", "//server/a"] {
            assert!(to_slashes(path).is_err(), "{path}");
        }
        assert_eq!(to_backslashes("/a/b"), "\\a\\b");
    }
}
