//! Go: the modules that the linker writes into a binary (Go 1.18 and later).
//!
//! The section begins with 14 bytes of magic, the size of pointers and flags; at byte 32 stand two
//! texts, each after its length as a variable-length number: the version of Go, and the modules,
//! the latter between two marks of 16 bytes.

use super::package::Package;
use crate::attestation::PackageUrl;

/// Section of a binary with the modules.
pub(super) const SECTION: &str = ".go.buildinfo";
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the texts begin.
const TEXTS: usize = 32;
/// Flag: the texts stand in the section, not behind pointers.
const INLINE: u8 = 2;
/// Bytes around the modules.
const MARK: usize = 16;

/// Reads the section.
pub(super) fn read(section: &[u8]) -> Result<Vec<Package>, String> {
    if !section.starts_with(MAGIC) || section.len() < TEXTS {
        return Err("it does not begin as the Go linker writes it".to_owned());
    }
    if section[15] & INLINE == 0 {
        return Err("it was linked by a Go older than 1.18".to_owned());
    }
    let cut = || "it is cut off".to_owned();
    let (version, rest) = text(&section[TEXTS..]).ok_or_else(cut)?;
    let (modules, _) = text(rest).ok_or_else(cut)?;
    let modules = match modules.len() >= 2 * MARK {
        true => &modules[MARK..modules.len() - MARK],
        false => &[],
    };
    let mut packages = read_modules(&String::from_utf8_lossy(modules));
    let version = String::from_utf8_lossy(version);
    // `go1.22.1 X:nocoverage` names settings behind the version.
    let version = version.split_whitespace().next().unwrap_or_default();
    if let Some(version) = version.strip_prefix("go") {
        packages.push(Package::new(PackageUrl::new("golang", "stdlib", version)));
    }
    Ok(packages)
}

/// Takes a text off the front of bytes.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length: usize = 0;
    for (place, byte) in bytes.iter().enumerate().take(9) {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let end = (place + 1).checked_add(length)?;
            return Some((bytes.get(place + 1..end)?, bytes.get(end..)?));
        }
    }
    None
}

/// Reads the lines `mod`, `dep` and `=>` (what replaces the one before).
fn read_modules(text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    for line in text.lines() {
        let mut words = line.split('\t');
        let kind = words.next().unwrap_or_default();
        let (name, version) = (words.next(), words.next().unwrap_or_default());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            continue;
        };
        match kind {
            "mod" | "dep" => packages.push(module(name, version)),
            "=>" => {
                packages.pop();
                packages.push(module(name, version));
            }
            _ => {}
        }
    }
    packages
}

fn module(path: &str, version: &str) -> Package {
    // What was built from a working tree has no version.
    let version = if version == "(devel)" { "" } else { version };
    let lower = path.to_lowercase();
    let (namespace, name) = lower.rsplit_once('/').unwrap_or(("", &lower));
    Package {
        name: path.to_owned(),
        ..Package::new(PackageUrl::new("golang", name, version).under(namespace))
    }
}
