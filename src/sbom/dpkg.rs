//! dpkg: `status`, and the files of `status.d` that images without dpkg have.

use std::path::PathBuf;

use super::package::{Distribution, Package};
use crate::attestation::PackageUrl;

/// Folder with the lists of packages' files.
const INFO: &str = "var/lib/dpkg/info";

/// Reads a database: paragraphs of `Name: value` lines.
pub(super) fn read(text: &str, distribution: &Distribution) -> Vec<Package> {
    let paragraphs = text.split("\n\n");
    paragraphs
        .filter_map(|paragraph| package(paragraph, distribution))
        .collect()
}

/// Returns the files that may be the list of a package's files.
pub(super) fn lists(package: &Package) -> [PathBuf; 2] {
    let arch = package
        .url
        .qualifiers
        .get("arch")
        .map_or("", String::as_str);
    let name = &package.name;
    [
        format!("{INFO}/{name}.list").into(),
        format!("{INFO}/{name}:{arch}.list").into(),
    ]
}

fn package(paragraph: &str, distribution: &Distribution) -> Option<Package> {
    let value = |name: &str| {
        let line = |line: &&str| {
            let rest = line
                .get(..name.len())
                .is_some_and(|n| n.eq_ignore_ascii_case(name));
            rest && line[name.len()..].starts_with(':')
        };
        let line = paragraph.lines().find(line)?;
        Some(line[name.len() + 1..].trim())
    };
    let (name, version) = (value("Package")?, value("Version")?);
    // A package that was removed keeps its paragraph while its settings are there.
    let state = value("Status").and_then(|status| status.split_whitespace().last());
    if name.is_empty() || state.is_some_and(|state| state != "installed") {
        return None;
    }
    let source = value("Source").unwrap_or_default();
    let source = match source.split_once(" (") {
        Some((name, version)) => format!("{name}@{}", version.trim_end_matches(')')),
        None => source.to_owned(),
    };
    let url = PackageUrl::new("deb", name, version)
        .under(distribution.namespace("debian"))
        .with("arch", value("Architecture").unwrap_or_default())
        .with("distro", &distribution.qualifier())
        .with("upstream", &source);
    Some(Package {
        supplier: value("Maintainer").unwrap_or_default().to_owned(),
        summary: value("Description").unwrap_or_default().to_owned(),
        ..Package::new(url)
    })
}
