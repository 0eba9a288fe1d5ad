//! Python: the `METADATA` of wheels and the `PKG-INFO` of eggs.

use super::package::Package;
use crate::attestation::PackageUrl;

/// Reads the header of such a file.
pub(super) fn read(text: &str) -> Option<Package> {
    let header = text.split("\n\n").next().unwrap_or(text);
    let value = |name: &str| {
        let mut lines = header.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        let value = value.trim();
        (!value.is_empty() && value != "UNKNOWN").then(|| value.to_owned())
    };
    let (name, version) = (value("Name")?, value("Version")?);
    let url = PackageUrl::new("pypi", &normalized(&name), &version);
    Some(Package {
        name,
        licence: value("License-Expression")
            .or_else(|| value("License"))
            .unwrap_or_default(),
        supplier: value("Author")
            .or_else(|| value("Author-email"))
            .unwrap_or_default(),
        summary: value("Summary").unwrap_or_default(),
        ..Package::new(url)
    })
}

/// Writes a name as the index compares names: lower case, with single dashes.
fn normalized(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}
