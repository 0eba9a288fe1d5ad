//! Finds the files that tell of packages, and has them read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha1::Digest as _;
use tokio_util::sync::CancellationToken;

use super::elf::Elf;
use super::package::{Distribution, FoundFile, Inventory, Package};
use super::{apk, dpkg, golang, node, os_release, python, rpm, rust};
use crate::sys::metadata::FileKind;
use crate::sys::root::Root;

/// Largest file of text that is read.
const TEXT_BYTES_MAX: u64 = 128 << 20;
/// Smallest file that may be a program of interest.
const PROGRAM_BYTES_MIN: u64 = 4096;
/// Permission of anybody to run a file.
const RUNNABLE: u32 = 0o111;
/// Folders in the root that hold no software.
const SKIPPED: [&str; 3] = ["dev", "proc", "sys"];
/// Databases of rpm that are read.
const RPM: [&str; 2] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
];
/// Databases of rpm that are not.
const OTHER_RPM: [&str; 3] = [
    "usr/lib/sysimage/rpm/Packages.db",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
];
/// Bytes hashed at a time.
const READ_BYTES: usize = 128 * 1024;

/// Reads everything a tree tells of packages; stops, with an error, once cancelled.
pub fn scan(tree: &Path, cancel: &CancellationToken) -> io::Result<Inventory> {
    let root = Root::open(tree)?;
    let release = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| read_text(&root, Path::new(path)).ok());
    let distribution = os_release::read(&release.unwrap_or_default());
    let mut scanner = Scanner {
        inventory: Inventory {
            distribution: distribution.qualifier(),
            ..Inventory::default()
        },
        root: &root,
        distribution,
    };
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let is_root = directory.as_os_str().is_empty();
        for entry in root.read_dir(&directory)? {
            let path = directory.join(entry.os_name());
            let kind = match entry.kind {
                Some(kind) => kind,
                None => root.lstat(&path)?.kind,
            };
            match kind {
                FileKind::Directory if is_root && is_skipped(&path) => {}
                FileKind::Directory => open.push(path),
                FileKind::Regular => scanner.file(&path),
                _ => {}
            }
        }
    }
    scanner.inventory.notes.sort();
    Ok(scanner.inventory)
}

fn is_skipped(path: &Path) -> bool {
    SKIPPED.iter().any(|name| Path::new(name) == path)
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Dpkg,
    Apk,
    Rpm,
    OtherRpm,
    Python,
    NodePackage,
    NodeLock,
    CargoLock,
    Program,
}

impl Reader {
    /// Chooses by the path alone.
    fn of(path: &Path) -> Self {
        let text = path.to_str().unwrap_or_default();
        let folder = path.parent().and_then(Path::to_str).unwrap_or_default();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        match (text, name) {
            ("var/lib/dpkg/status", _) => Self::Dpkg,
            _ if folder == "var/lib/dpkg/status.d" && !name.ends_with(".md5sums") => Self::Dpkg,
            ("lib/apk/db/installed" | "usr/lib/apk/db/installed", _) => Self::Apk,
            _ if RPM.contains(&text) => Self::Rpm,
            _ if OTHER_RPM.contains(&text) => Self::OtherRpm,
            (_, "METADATA") if folder.ends_with(".dist-info") => Self::Python,
            (_, "PKG-INFO") if folder.ends_with(".egg-info") => Self::Python,
            _ if name.ends_with(".egg-info") => Self::Python,
            (_, "package.json") if node::is_installed(path) => Self::NodePackage,
            (_, "package-lock.json") => Self::NodeLock,
            (_, "Cargo.lock") => Self::CargoLock,
            _ => Self::Program,
        }
    }

    /// Says what kind of file it is.
    fn kind(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg database",
            Self::Apk => "apk database",
            Self::Rpm | Self::OtherRpm => "rpm database",
            Self::Python => "Python package",
            Self::NodePackage => "npm package",
            Self::NodeLock => "npm lock file",
            Self::CargoLock => "Cargo lock file",
            Self::Program => "program",
        }
    }
}

struct Scanner<'a> {
    root: &'a Root,
    distribution: Distribution,
    inventory: Inventory,
}

impl Scanner<'_> {
    fn file(&mut self, path: &Path) {
        let reader = Reader::of(path);
        let packages = match self.read(reader, path) {
            Ok(packages) => packages,
            Err(reason) => {
                let (kind, path) = (reader.kind(), path.display());
                let note = format!("the {kind} /{path} is not in the SBOM: {reason}");
                return self.inventory.notes.push(note);
            }
        };
        if packages.is_empty() {
            return;
        }
        let Ok((sha1, sha256)) = hashed(self.root, path) else {
            return;
        };
        let found = FoundFile {
            kind: reader.kind(),
            sha1,
            sha256,
            layer: None,
            packages: packages.into_iter().map(|p| (p, None)).collect(),
        };
        self.inventory.files.insert(path.to_owned(), found);
    }

    fn read(&self, reader: Reader, path: &Path) -> Result<Vec<Package>, String> {
        let distribution = &self.distribution;
        let text = || read_text(self.root, path).map_err(|error| error.to_string());
        let json = || serde_json::from_str(&text()?).map_err(|error| error.to_string());
        match reader {
            Reader::Dpkg => {
                let mut packages = dpkg::read(&text()?, distribution);
                for package in &mut packages {
                    let mut lists = dpkg::lists(package).into_iter();
                    package.came_with = lists.find(|list| self.root.exists(list).unwrap_or(false));
                }
                Ok(packages)
            }
            Reader::Apk => Ok(apk::read(&text()?, distribution)),
            Reader::Rpm => {
                let file = self.root.open_read(path).map_err(|e| e.to_string())?;
                rpm::read(&file, distribution).map_err(|error| error.to_string())
            }
            Reader::OtherRpm => Err("only the SQLite form is read; `rpmdb --rebuilddb` with \
                 _db_backend=sqlite converts it"
                .to_owned()),
            Reader::Python => Ok(python::read(&text()?).into_iter().collect()),
            Reader::NodePackage => Ok(node::read(&json()?).into_iter().collect()),
            Reader::NodeLock => {
                // Where the packages are installed they speak for themselves.
                let installed = path.with_file_name(node::MODULES);
                match self.root.exists(&installed).unwrap_or(false) {
                    true => Ok(Vec::new()),
                    false => Ok(node::read_lock(&json()?)),
                }
            }
            Reader::CargoLock => Ok(rust::read_lock(&text()?)),
            Reader::Program => self.program(path),
        }
    }

    fn program(&self, path: &Path) -> Result<Vec<Package>, String> {
        let metadata = self.root.lstat(path).map_err(|e| e.to_string())?;
        if metadata.mode & RUNNABLE == 0 || metadata.size < PROGRAM_BYTES_MIN {
            return Ok(Vec::new());
        }
        let file = self.root.open_read(path).map_err(|e| e.to_string())?;
        let named = |name: &'static str| {
            move |error: io::Error| format!("its section {name} cannot be read: {error}")
        };
        // A script, or a program that somebody cut short: nothing that tells of packages.
        let Ok(Some(elf)) = Elf::open(&file) else {
            return Ok(Vec::new());
        };
        if let Some(section) = elf
            .section(golang::SECTION)
            .map_err(named(golang::SECTION))?
        {
            return golang::read(&section);
        }
        match elf.section(rust::SECTION).map_err(named(rust::SECTION))? {
            Some(section) => rust::read_section(&section),
            None => Ok(Vec::new()),
        }
    }
}

fn read_text(root: &Root, path: &Path) -> io::Result<String> {
    let file = root.open_read(path)?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        let reason = format!("it has more than {TEXT_BYTES_MAX} bytes");
        return Err(io::Error::other(reason));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Hashes a file with SHA-1 and SHA-256.
fn hashed(root: &Root, path: &Path) -> io::Result<(String, String)> {
    let mut file: File = root.open_read(path)?;
    let (mut sha1, mut sha256) = (sha1::Sha1::new(), sha2::Sha256::new());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                sha1.update(&buffer[..count]);
                sha256.update(&buffer[..count]);
            }
        }
    }
    Ok((
        crate::oci::hex_of(&sha1.finalize()),
        crate::oci::hex_of(&sha256.finalize()),
    ))
}
