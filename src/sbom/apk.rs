//! apk: `lib/apk/db/installed`, one letter a line.

use std::path::PathBuf;

use super::package::{Distribution, Package};
use crate::attestation::PackageUrl;

/// Reads a database.
pub(super) fn read(text: &str, distribution: &Distribution) -> Vec<Package> {
    let entries = text.split("\n\n");
    entries
        .filter_map(|entry| package(entry, distribution))
        .collect()
}

fn package(entry: &str, distribution: &Distribution) -> Option<Package> {
    let value = |letter: char| {
        let lines = entry.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(letter)?.strip_prefix(':'));
        values.next()
    };
    let (name, version) = (value('P')?, value('V')?);
    if name.is_empty() {
        return None;
    }
    let origin = value('o').filter(|origin| *origin != name);
    let url = PackageUrl::new("apk", name, version)
        .under(distribution.namespace("alpine"))
        .with("arch", value('A').unwrap_or_default())
        .with("distro", &distribution.qualifier())
        .with("upstream", origin.unwrap_or_default());
    Some(Package {
        licence: value('L').unwrap_or_default().to_owned(),
        supplier: value('m').unwrap_or_default().to_owned(),
        summary: value('T').unwrap_or_default().to_owned(),
        came_with: first_file(entry),
        ..Package::new(url)
    })
}

/// Finds a file of the package: `F:` names a folder, `R:` a file in it.
fn first_file(entry: &str) -> Option<PathBuf> {
    let mut folder = None;
    for line in entry.lines() {
        match line.split_once(':') {
            Some(("F", name)) => folder = Some(PathBuf::from(name)),
            Some(("R", name)) => return folder.map(|folder| folder.join(name)),
            _ => {}
        }
    }
    None
}
