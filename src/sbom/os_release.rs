//! `/etc/os-release`: which distribution it is.

use super::package::Distribution;

/// Reads the file.
pub(super) fn read(text: &str) -> Distribution {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let (_, value) = lines.find(|(key, _)| *key == name)?;
        let value = value.trim();
        let bare = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        Some(bare.unwrap_or(value).to_owned())
    };
    Distribution {
        id: value("ID").unwrap_or_default(),
        version: value("VERSION_ID").unwrap_or_default(),
    }
}
