//! Rust: `Cargo.lock`, and the list of crates that `cargo auditable` puts into a binary.

use std::io::Read;

use serde::Deserialize;

use super::package::Package;
use crate::attestation::PackageUrl;

/// Section of a binary with the list of its crates.
pub(super) const SECTION: &str = ".dep-v0";
/// Largest list, unpacked.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// The list in a binary.
#[derive(Debug, Deserialize)]
struct Audit {
    packages: Vec<AuditedPackage>,
}

/// A crate of the list.
#[derive(Debug, Deserialize)]
struct AuditedPackage {
    name: String,
    version: String,
    /// `build` for what ran at build time only.
    #[serde(default)]
    kind: String,
}

/// Reads a `Cargo.lock`; crates without a source are the project's own.
pub(super) fn read_lock(text: &str) -> Vec<Package> {
    let packages = text.split("[[package]]").skip(1);
    let package = |block: &str| {
        // What follows the last package is not one.
        let block = block.split("\n[").next().unwrap_or(block);
        let value = |name: &str| {
            let mut lines = block.lines().filter_map(|line| line.split_once('='));
            let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
            value.trim().strip_prefix('"')?.strip_suffix('"')
        };
        let url = PackageUrl::new("cargo", value("name")?, value("version")?);
        value("source")?;
        Some(Package::new(url))
    };
    packages.filter_map(package).collect()
}

/// Reads the section of a binary: JSON, compressed with zlib.
pub(super) fn read_section(section: &[u8]) -> Result<Vec<Package>, String> {
    let mut json = Vec::new();
    let unpacked = flate2::read::ZlibDecoder::new(section);
    let read = unpacked.take(LIST_BYTES_MAX + 1).read_to_end(&mut json);
    read.map_err(|error| error.to_string())?;
    if json.len() as u64 > LIST_BYTES_MAX {
        return Err(format!("it has more than {LIST_BYTES_MAX} bytes"));
    }
    let audit: Audit = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    let used = audit.packages.iter().filter(|one| one.kind != "build");
    let package =
        |one: &AuditedPackage| Package::new(PackageUrl::new("cargo", &one.name, &one.version));
    Ok(used.map(package).collect())
}
