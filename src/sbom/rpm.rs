//! rpm: the SQLite database that Fedora, RHEL 9 and Amazon Linux 2023 have.
//!
//! A row of `Packages` is a header: two counts, an index of 16-byte entries (tag, type, offset,
//! number), and the data that these point into; all numbers big-endian.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use super::package::{Distribution, Package};
use crate::attestation::PackageUrl;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const SUMMARY: u32 = 1004;
const VENDOR: u32 = 1011;
const LICENCE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;
const DIRECTORY_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIRECTORY_NAMES: u32 = 1118;
/// Type of a 32-bit number.
const INT32: u32 = 4;
/// Size of an entry of the index.
const ENTRY_BYTES: usize = 16;
/// Name of the packages that are keys.
const KEY: &str = "gpg-pubkey";

/// Reads a database, without its journal: nobody writes to an image.
pub(super) fn read(file: &File, distribution: &Distribution) -> rusqlite::Result<Vec<Package>> {
    let place = format!("file:/proc/self/fd/{}?immutable=1", file.as_raw_fd());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(place, flags)?;
    database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    let mut rows = database.prepare("SELECT blob FROM Packages ORDER BY hnum")?;
    let headers = rows.query_map((), |row| row.get::<_, Vec<u8>>(0))?;
    let mut packages = Vec::new();
    for header in headers {
        packages.extend(Header::new(&header?).and_then(|header| header.package(distribution)));
    }
    Ok(packages)
}

/// A header as it lies in the database.
struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(number(bytes, 0)?).ok()?;
        let size = usize::try_from(number(bytes, 4)?).ok()?;
        let end = 8_usize.checked_add(entries.checked_mul(ENTRY_BYTES)?)?;
        Some(Self {
            index: bytes.get(8..end)?,
            data: bytes.get(end..end.checked_add(size)?)?,
        })
    }

    /// Finds the data of a tag and how many values they are.
    fn entry(&self, tag: u32) -> Option<(u32, &'a [u8], usize)> {
        let mut entries = self.index.chunks_exact(ENTRY_BYTES);
        let entry = entries.find(|entry| number(entry, 0) == Some(tag))?;
        let (kind, offset, count) = (number(entry, 4)?, number(entry, 8)?, number(entry, 12)?);
        let data = self.data.get(usize::try_from(offset).ok()?..)?;
        Some((kind, data, usize::try_from(count).ok()?))
    }

    fn text(&self, tag: u32) -> Option<String> {
        self.nth_text(tag, 0)
    }

    fn nth_text(&self, tag: u32, place: usize) -> Option<String> {
        let (_, data, count) = self.entry(tag)?;
        if place >= count {
            return None;
        }
        let text = data.split(|byte| *byte == 0).nth(place)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn int(&self, tag: u32) -> Option<u32> {
        let (kind, data, count) = self.entry(tag)?;
        (kind == INT32 && count > 0)
            .then(|| number(data, 0))
            .flatten()
    }

    fn package(&self, distribution: &Distribution) -> Option<Package> {
        let name = self.text(NAME).filter(|name| !name.is_empty())?;
        if name == KEY {
            return None;
        }
        let (version, release) = (self.text(VERSION)?, self.text(RELEASE)?);
        let plain = format!("{version}-{release}");
        let epoch = self.int(EPOCH);
        let text = |tag| self.text(tag).unwrap_or_default();
        let url = PackageUrl::new("rpm", &name, &plain)
            .under(distribution.namespace("redhat"))
            .with("arch", &text(ARCH))
            .with("distro", &distribution.qualifier())
            .with("epoch", &epoch.map(|e| e.to_string()).unwrap_or_default())
            .with("upstream", &text(SOURCE));
        Some(Package {
            version: match epoch {
                Some(epoch) => format!("{epoch}:{plain}"),
                None => plain,
            },
            licence: text(LICENCE),
            supplier: text(VENDOR),
            summary: text(SUMMARY),
            came_with: self.first_file(),
            ..Package::new(url)
        })
    }

    /// Finds a file of the package.
    fn first_file(&self) -> Option<PathBuf> {
        let name = self.nth_text(BASE_NAMES, 0)?;
        let folder = usize::try_from(self.int(DIRECTORY_INDEXES)?).ok()?;
        let folder = self.nth_text(DIRECTORY_NAMES, folder)?;
        Some(PathBuf::from(folder.trim_start_matches('/')).join(name))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
