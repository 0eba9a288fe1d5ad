//! npm: `package.json` of installed packages, and lock files.

use std::path::Path;

use serde_json::Value;

use super::package::Package;
use crate::attestation::PackageUrl;

/// Folder of installed packages.
pub(super) const MODULES: &str = "node_modules";
/// Deepest nesting of dependencies in an old lock file.
const DEPTH_MAX: usize = 64;

/// Says whether a `package.json` is that of an installed package, and not of a part of one.
pub(super) fn is_installed(path: &Path) -> bool {
    let folders = path.parent().map(|folder| {
        let mut names = folder.iter().rev().filter_map(|name| name.to_str());
        (names.next(), names.next(), names.next())
    });
    match folders {
        Some((Some(_), Some(MODULES), _)) => true,
        Some((Some(_), Some(scope), Some(MODULES))) => scope.starts_with('@'),
        _ => false,
    }
}

/// Reads a `package.json`.
pub(super) fn read(json: &Value) -> Option<Package> {
    let (name, version) = (json["name"].as_str()?, json["version"].as_str()?);
    let mut package = package(name, version)?;
    let licence = &json["license"];
    package.licence = match licence {
        Value::String(text) => text.clone(),
        _ => licence["type"].as_str().unwrap_or_default().to_owned(),
    };
    let author = &json["author"];
    let author = author.as_str().or_else(|| author["name"].as_str());
    author.unwrap_or_default().clone_into(&mut package.supplier);
    let summary = json["description"].as_str().unwrap_or_default();
    summary.clone_into(&mut package.summary);
    Some(package)
}

/// Reads a lock file of any version; packages for development only are left out.
pub(super) fn read_lock(json: &Value) -> Vec<Package> {
    let is_for_use = |entry: &Value| entry["dev"] != true && entry["link"] != true;
    let mut packages = Vec::new();
    if let Some(entries) = json["packages"].as_object() {
        for (path, entry) in entries.iter().filter(|(_, entry)| is_for_use(entry)) {
            // The first entry is the project itself.
            let name = path.rsplit_once(&format!("{MODULES}/"));
            let Some((_, name)) = name.filter(|(_, name)| !name.is_empty()) else {
                continue;
            };
            let name = entry["name"].as_str().unwrap_or(name);
            let found = entry["version"].as_str().and_then(|v| package(name, v));
            packages.extend(found.map(|found| Package {
                licence: entry["license"].as_str().unwrap_or_default().to_owned(),
                ..found
            }));
        }
        return packages;
    }
    let mut open = vec![(&json["dependencies"], 0)];
    while let Some((entries, depth)) = open.pop() {
        for (name, entry) in entries.as_object().into_iter().flatten() {
            if !is_for_use(entry) {
                continue;
            }
            packages.extend(entry["version"].as_str().and_then(|v| package(name, v)));
            if depth < DEPTH_MAX {
                open.push((&entry["dependencies"], depth + 1));
            }
        }
    }
    packages
}

fn package(name: &str, version: &str) -> Option<Package> {
    let (namespace, bare) = name.rsplit_once('/').unwrap_or(("", name));
    if bare.is_empty() || version.is_empty() {
        return None;
    }
    let url = PackageUrl::new("npm", bare, version).under(namespace);
    Some(Package {
        name: name.to_owned(),
        ..Package::new(url)
    })
}
