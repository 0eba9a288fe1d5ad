//! Writes tar streams whose bytes depend on the entries alone.
//!
//! Headers are ustar; an extended (pax) header precedes only those entries that need one:
//! long names, large sizes or owners, odd times, attributes. Times are cut to whole seconds,
//! as docker and BuildKit do: a fraction would cost a kilobyte for each file. No user or group
//! names, no access times. The name of an extended header is fixed, so nothing of the machine
//! or the process gets into it.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use tar::Header;

use super::entry::{Entry, EntryKind};
use super::error::ArchiveError;
use super::pax::Records;

const BLOCK: usize = 512;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// First value that does not fit seven octal digits.
const SEVEN_DIGITS: u64 = 1 << 21;
/// First value that does not fit eleven octal digits.
const ELEVEN_DIGITS: u64 = 1 << 33;

/// Writes entries one after the other.
#[derive(Debug)]
pub struct TarWriter<W> {
    output: W,
    /// Data the present entry still lacks.
    missing: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `output`, which should be buffered.
    pub fn new(output: W) -> Self {
        Self {
            output,
            missing: 0,
            padding: 0,
        }
    }

    /// Writes the headers of an entry. The data of a regular file must follow through
    /// [`TarWriter::data`], exactly as many bytes as the entry says.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.end_data()?;
        let mut name = entry.path.as_os_str().as_bytes().to_vec();
        if entry.kind == EntryKind::Directory {
            // The root is called "./".
            if name.is_empty() {
                name.push(b'.');
            }
            name.push(b'/');
        }
        self.named(entry, &name)
    }

    /// Writes data of the present entry.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.missing = self
            .missing
            .checked_sub(bytes.len() as u64)
            .ok_or_else(wrong_length)?;
        self.put(bytes)
    }

    /// Ends the archive and gives the output back, unflushed.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.end_data()?;
        self.put(&ZEROS)?;
        self.put(&ZEROS)?;
        Ok(self.output)
    }

    fn named(&mut self, entry: &Entry, name: &[u8]) -> Result<(), ArchiveError> {
        let mut header = Header::new_ustar();
        let mut records = Records::default();
        let (kind, link, device) = describe(&entry.kind);
        put_path(&mut header, &mut records, name);
        if put_field(&mut header.as_old_mut().linkname, link).is_none() {
            records.add(b"linkpath", link);
        }
        header.as_old_mut().linkflag = [kind];
        let size = match entry.kind {
            EntryKind::Regular => entry.size,
            _ => 0,
        };
        put_numbers(&mut header, &mut records, entry, size);
        if let Some(ustar) = header.as_ustar_mut() {
            put_octal(&mut ustar.dev_major, device.0.into());
            put_octal(&mut ustar.dev_minor, device.1.into());
        }
        for (key, value) in &entry.xattrs {
            records.add_xattr(key.as_bytes(), value);
        }
        let records = records.into_bytes();
        if !records.is_empty() {
            self.extended(&records)?;
        }
        self.put(seal(&mut header))?;
        self.begin_data(size);
        Ok(())
    }

    fn extended(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        let mut header = Header::new_ustar();
        put_field(&mut header.as_old_mut().name, b"PaxHeaders/entry");
        header.as_old_mut().linkflag = [b'x'];
        put_octal(&mut header.as_old_mut().mode, 0o644);
        put_octal(&mut header.as_old_mut().uid, 0);
        put_octal(&mut header.as_old_mut().gid, 0);
        put_octal(&mut header.as_old_mut().size, records.len() as u64);
        put_octal(&mut header.as_old_mut().mtime, 0);
        self.put(seal(&mut header))?;
        self.begin_data(records.len() as u64);
        self.data(records)?;
        self.end_data()
    }

    fn begin_data(&mut self, size: u64) {
        self.missing = size;
        // Below one block, so it fits.
        self.padding = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    }

    fn end_data(&mut self) -> Result<(), ArchiveError> {
        if self.missing > 0 {
            return Err(wrong_length());
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&ZEROS[..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.output.write_all(bytes).map_err(ArchiveError::Write)
    }
}

fn wrong_length() -> ArchiveError {
    ArchiveError::Write(io::Error::other("entry and data differ in length"))
}

fn describe(kind: &EntryKind) -> (u8, &[u8], (u32, u32)) {
    match kind {
        EntryKind::Regular => (b'0', b"", (0, 0)),
        EntryKind::HardLink(target) => (b'1', target.as_os_str().as_bytes(), (0, 0)),
        EntryKind::Symlink(target) => (b'2', target.as_bytes(), (0, 0)),
        EntryKind::CharDevice(major, minor) => (b'3', b"", (*major, *minor)),
        EntryKind::BlockDevice(major, minor) => (b'4', b"", (*major, *minor)),
        EntryKind::Directory => (b'5', b"", (0, 0)),
        EntryKind::Fifo => (b'6', b"", (0, 0)),
    }
}

/// Puts the numbers where they fit, and beside the header where they do not.
fn put_numbers(header: &mut Header, records: &mut Records, entry: &Entry, size: u64) {
    let old = header.as_old_mut();
    put_octal(&mut old.mode, u64::from(entry.mode & 0o7777));
    put_number(
        &mut old.uid,
        records,
        b"uid",
        entry.uid.into(),
        SEVEN_DIGITS,
    );
    put_number(
        &mut old.gid,
        records,
        b"gid",
        entry.gid.into(),
        SEVEN_DIGITS,
    );
    put_number(&mut old.size, records, b"size", size, ELEVEN_DIGITS);
    let seconds = entry.mtime.seconds;
    match u64::try_from(seconds) {
        Ok(value) if value < ELEVEN_DIGITS => put_octal(&mut old.mtime, value),
        _ => {
            put_octal(&mut old.mtime, 0);
            records.add(b"mtime", seconds.to_string().as_bytes());
        }
    }
}

fn put_number(field: &mut [u8], records: &mut Records, key: &[u8], value: u64, limit: u64) {
    if value < limit {
        put_octal(field, value);
    } else {
        put_octal(field, 0);
        records.add(key, value.to_string().as_bytes());
    }
}

/// Writes a path into name, into prefix and name, or into a record.
fn put_path(header: &mut Header, records: &mut Records, path: &[u8]) {
    let Some(ustar) = header.as_ustar_mut() else {
        return;
    };
    if put_field(&mut ustar.name, path).is_some() {
        return;
    }
    // The shortest prefix that leaves a name that fits, so that there is one way only.
    let from = path.len().saturating_sub(ustar.name.len() + 1);
    let split = (from..path.len().saturating_sub(1))
        .find(|at| path[*at] == b'/')
        .filter(|at| (1..=ustar.prefix.len()).contains(at));
    if let Some(at) = split {
        put_field(&mut ustar.prefix, &path[..at]);
        put_field(&mut ustar.name, &path[at + 1..]);
        return;
    }
    let clipped = &path[..ustar.name.len()];
    put_field(&mut ustar.name, clipped);
    records.add(b"path", path);
}

/// Fills a text field; `None`, with the field untouched, when the text does not fit.
fn put_field(field: &mut [u8], text: &[u8]) -> Option<()> {
    field.get_mut(..text.len())?.copy_from_slice(text);
    Some(())
}

/// Fills a number field with leading zeros and a final zero byte.
fn put_octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for byte in field[..digits].iter_mut().rev() {
        // Below eight, so it fits.
        *byte = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[digits] = 0;
}

fn seal(header: &mut Header) -> &[u8; BLOCK] {
    header.as_old_mut().cksum = [b' '; 8];
    let sum: u64 = header.as_bytes().iter().map(|byte| u64::from(*byte)).sum();
    let field = &mut header.as_old_mut().cksum;
    put_octal(&mut field[..7], sum);
    header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::TarReader;
    use crate::sys::metadata::Timestamp;
    use std::path::PathBuf;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: PathBuf::from(path),
            kind,
            mode: 0o4755,
            uid: 0,
            gid: 1000,
            size: 0,
            mtime: Timestamp::from_seconds(1_700_000_000),
            xattrs: Default::default(),
        }
    }

    fn entries() -> Vec<Entry> {
        let long = format!("{}/{}", "d".repeat(150), "f".repeat(90));
        let longest = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let mut odd = entry("odd", EntryKind::Regular);
        odd.xattrs
            .insert("security.capability".into(), b"\x01\n\0=".to_vec());
        (odd.uid, odd.gid) = (3_000_000, u32::MAX - 1);
        odd.mtime = Timestamp::from_seconds(-5);
        odd.size = 700;
        vec![
            entry("", EntryKind::Directory),
            entry("dir", EntryKind::Directory),
            odd,
            entry(&long, EntryKind::Regular),
            entry(&longest, EntryKind::Directory),
            entry("link", EntryKind::Symlink(longest.clone().into())),
            entry("hard", EntryKind::HardLink(longest.into())),
            entry("null", EntryKind::CharDevice(1, 3)),
            entry("disk", EntryKind::BlockDevice(259, 70_000)),
            entry("pipe", EntryKind::Fifo),
            entry("z\u{fc}", EntryKind::Regular),
        ]
    }

    fn written() -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for entry in entries() {
            writer.entry(&entry).unwrap();
            for _ in 0..entry.size / 7 {
                writer.data(b"sevenxx").unwrap();
            }
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = written();
        let mut reader = TarReader::new(&bytes[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push(entry);
        }
        assert_eq!(found, entries());
    }

    #[test]
    fn another_reader_understands_it_too() {
        let bytes = written();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths: Vec<PathBuf> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().into_owned())
            .collect();
        let expected: Vec<PathBuf> = entries().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths.len(), expected.len());
        assert_eq!(paths[1..], expected[1..]);
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn data_must_match_the_header() {
        let mut sized = entry("f", EntryKind::Regular);
        sized.size = 3;
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&sized).unwrap();
        assert!(writer.data(b"four").is_err());
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&sized).unwrap();
        assert!(writer.finish().is_err());
    }
}
