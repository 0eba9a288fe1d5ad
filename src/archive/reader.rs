//! Reads tar streams that may be hostile: one meaning for each byte, or an error.
//!
//! Understands v7, ustar, pax and GNU headers. Where two readers could disagree (sizes told
//! twice, names told twice, global headers that rename) the archive is refused. Entry data is
//! read through [`TarReader::read`]; what is left of it is skipped by the next [`TarReader::next_entry`].

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use tar::Header;

use super::entry::{Entry, EntryKind, MAX_PATH, MAX_PAX, clean_path};
use super::error::{ArchiveError, Refusal, malformed};
use super::pax::Pax;
use super::sparse::{self, Expansion, LeadingNumbers, SparseRecords, Stretch};
use crate::sys::metadata::Timestamp;

const BLOCK: usize = 512;
/// First size that does not fit the twelve-byte octal field: only then may an extended header
/// and the header differ.
const OCTAL_SIZES: u64 = 1 << 33;
/// Most entries of one archive.
const MAX_ENTRIES: u64 = 20_000_000;

/// Reads entries one after the other.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    /// Data of the present entry that was not read yet.
    left: u64,
    /// Zero bytes after that data.
    padding: u64,
    entries: u64,
    finished: bool,
    /// How the data of the present entry becomes the file, if it is sparse.
    sparse: Option<Expansion>,
}

/// What headers before an entry said about it.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Reads from `input`, which should be buffered.
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            entries: 0,
            finished: false,
            sparse: None,
        }
    }

    /// Reads the next header; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        if self.finished {
            return Ok(None);
        }
        self.skip_data()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.read_header()? else {
                if extensions.is_any() {
                    return Err(malformed("archive ends after an extended header"));
                }
                self.finished = true;
                return Ok(None);
            };
            if self.take_extension(&header, &mut extensions)? {
                continue;
            }
            self.entries += 1;
            let (mut entry, records) = extensions.entry(&header)?;
            if self.entries > MAX_ENTRIES {
                let path = entry.path.into_os_string().into_vec();
                return Err(ArchiveError::refused(&path, Refusal::TooManyEntries));
            }
            self.begin_data(entry.size);
            self.expand(&header, records, &mut entry)?;
            return Ok(Some(entry));
        }
    }

    /// Reads data of the present entry; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let Some(mut sparse) = self.sparse.take() else {
            return self.read_stored(buffer);
        };
        let room = buffer.len();
        let within = |length: u64| usize::try_from(length).unwrap_or(usize::MAX).min(room);
        let count = match sparse.next() {
            Stretch::End => 0,
            Stretch::Zeros(length) => {
                let count = within(length);
                buffer[..count].fill(0);
                count
            }
            Stretch::Data(length) => {
                let most = within(length);
                self.read_stored(&mut buffer[..most])?
            }
        };
        sparse.advance(count as u64);
        self.sparse = Some(sparse);
        Ok(count)
    }

    /// Returns what the archive is read from.
    pub(super) fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// Says whether the present entry is a sparse file: zeros in it need no room.
    pub fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Reads data as the archive holds it.
    fn read_stored(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = read_some(&mut self.input, &mut buffer[..most])?;
        if count == 0 {
            return Err(malformed("archive ends inside a file"));
        }
        self.left -= count as u64;
        Ok(count)
    }

    /// Reads everything that follows the archive, so that whoever hashes the input sees it all.
    pub fn drain(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 * 1024];
        while read_some(&mut self.input, &mut buffer)? > 0 {}
        Ok(())
    }

    /// Reads the map of a sparse file, which may stand before its data.
    fn expand(
        &mut self,
        header: &Header,
        records: SparseRecords,
        entry: &mut Entry,
    ) -> Result<(), ArchiveError> {
        let is_gnu = header.as_old().linkflag[0] == b'S';
        let is_pax = records.is_any() && entry.kind == EntryKind::Regular;
        let (numbers, size) = if is_gnu {
            let block = header.as_bytes();
            let numbers = self.gnu_map(&block[386..482], block[482] != 0)?;
            (numbers, Some(number(&block[483..495])?))
        } else if is_pax && records.map_in_data {
            (self.leading_map()?, records.size)
        } else if is_pax {
            (records.numbers, records.size)
        } else {
            return Ok(());
        };
        let size = size.ok_or_else(|| malformed("sparse file without a size"))?;
        let expansion = Expansion::new(&numbers, size, self.left)?;
        entry.size = expansion.size();
        self.sparse = Some(expansion);
        Ok(())
    }

    /// Reads a map that starts in a header and goes on in blocks of its own.
    fn gnu_map(&mut self, first: &[u8], mut goes_on: bool) -> Result<Vec<u64>, ArchiveError> {
        let mut numbers = Vec::new();
        sparse::gnu_pieces(first, number, &mut numbers)?;
        while goes_on {
            let mut block = [0; BLOCK];
            if self.read_block(&mut block)? < BLOCK {
                return Err(malformed("archive ends inside the map of a sparse file"));
            }
            sparse::gnu_pieces(&block[..504], number, &mut numbers)?;
            goes_on = block[504] != 0;
            if numbers.len() > 2 * sparse::MAX_PIECES {
                return Err(malformed("too many parts of a sparse file"));
            }
        }
        Ok(numbers)
    }

    /// Reads a map that stands before the data, in whole blocks.
    fn leading_map(&mut self) -> Result<Vec<u64>, ArchiveError> {
        let mut map = LeadingNumbers::default();
        loop {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_stored(&mut block[filled..])? {
                    0 => return Err(malformed("sparse file without a map")),
                    count => filled += count,
                }
            }
            if map.take(&block)? {
                return map.numbers();
            }
        }
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let mut rest = self.left + self.padding;
        (self.left, self.padding, self.sparse) = (0, 0, None);
        let mut buffer = [0; 8192];
        while rest > 0 {
            let most = usize::try_from(rest)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = read_some(&mut self.input, &mut buffer[..most])?;
            if count == 0 {
                return Err(malformed("archive ends inside a file"));
            }
            rest -= count as u64;
        }
        Ok(())
    }

    /// Reads a header block; `None` at a block of zeros or the end of the stream.
    fn read_header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        match self.read_block(block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(malformed("archive ends inside a header")),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let told = octal(&header.as_old().cksum).ok_or_else(|| malformed("bad checksum field"))?;
        let sums = checksums(header.as_bytes());
        if told != sums.0 && i64::try_from(told) != Ok(sums.1) {
            return Err(malformed("wrong header checksum"));
        }
        Ok(Some(header))
    }

    /// Reads a block, or what is left of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < BLOCK {
            match read_some(&mut self.input, &mut block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Takes a header that only describes the next one; false when it is an entry.
    fn take_extension(
        &mut self,
        header: &Header,
        extensions: &mut Extensions,
    ) -> Result<bool, ArchiveError> {
        let kind = header.as_old().linkflag[0];
        match kind {
            b'x' => {
                let pax = Pax::parse(&self.read_extension(header, MAX_PAX)?)?;
                set_once(&mut extensions.pax, pax)?;
            }
            b'g' => {
                let pax = Pax::parse(&self.read_extension(header, MAX_PAX)?)?;
                if pax.changes_entries() {
                    return Err(ArchiveError::refused(
                        b"(global header)",
                        Refusal::Contradiction,
                    ));
                }
            }
            b'L' | b'K' => {
                let mut name = self.read_extension(header, MAX_PATH as u64 + 1)?;
                if let Some(end) = name.iter().position(|byte| *byte == 0) {
                    name.truncate(end);
                }
                let slot = match kind {
                    b'L' => &mut extensions.long_name,
                    _ => &mut extensions.long_link,
                };
                set_once(slot, name)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let size = number(&header.as_old().size)?;
        if size > limit {
            let reason = if limit == MAX_PAX {
                Refusal::HeaderTooLarge
            } else {
                Refusal::PathTooLong
            };
            return Err(ArchiveError::refused(&header.path_bytes(), reason));
        }
        self.begin_data(size);
        let mut bytes = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match self.read(&mut buffer)? {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        self.skip_data()?;
        Ok(bytes)
    }
}

impl Extensions {
    fn is_any(&self) -> bool {
        self.pax.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }

    /// Joins a header and what was said about it before.
    fn entry(self, header: &Header) -> Result<(Entry, SparseRecords), ArchiveError> {
        let mut pax = self.pax.unwrap_or_default();
        let short = header_path(header);
        let told = one_of(pax.path, self.long_name, &short)?.unwrap_or(short);
        let name = pax.sparse.name.take().unwrap_or(told);
        let refuse = |reason| ArchiveError::refused(&name, reason);
        let old = header.as_old();
        let link = one_of(pax.link, self.long_link, &name)?
            .unwrap_or_else(|| terminated(&old.linkname).to_vec());
        let path = clean_path(&name)?;
        let kind = entry_kind(header, &name, link)?;
        if path.as_os_str().is_empty() && kind != EntryKind::Directory {
            return Err(refuse(Refusal::RootNotDirectory));
        }
        let told = number(&old.size)?;
        let size = pax.size.unwrap_or(told);
        if size != told && size < OCTAL_SIZES {
            return Err(refuse(Refusal::Contradiction));
        }
        let uid = pax.uid.map_or_else(|| number(&old.uid), Ok)?;
        let gid = pax.gid.map_or_else(|| number(&old.gid), Ok)?;
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp::from_seconds(signed(&old.mtime)?),
        };
        let entry = Entry {
            size: if kind == EntryKind::Regular { size } else { 0 },
            path,
            kind,
            mode: u32::try_from(number(&old.mode)? & 0o7777).unwrap_or(0),
            uid: owner(uid).ok_or_else(|| refuse(Refusal::OwnerOutOfRange))?,
            gid: owner(gid).ok_or_else(|| refuse(Refusal::OwnerOutOfRange))?,
            mtime,
            xattrs: pax.xattrs,
        };
        Ok((entry, pax.sparse))
    }
}

fn entry_kind(header: &Header, name: &[u8], link: Vec<u8>) -> Result<EntryKind, ArchiveError> {
    let refuse = |reason| ArchiveError::refused(name, reason);
    Ok(match header.as_old().linkflag[0] {
        // Before ustar a directory was a file whose name ends with a slash.
        b'0' | b'\0' | b'7' if name.ends_with(b"/") => EntryKind::Directory,
        b'0' | b'\0' | b'7' | b'S' => EntryKind::Regular,
        b'1' => EntryKind::HardLink(clean_path(&link)?),
        b'2' => {
            if link.is_empty() || link.contains(&0) {
                return Err(refuse(Refusal::BadPath));
            }
            if link.len() >= MAX_PATH {
                return Err(refuse(Refusal::PathTooLong));
            }
            EntryKind::Symlink(OsString::from_vec(link))
        }
        kind @ (b'3' | b'4') => {
            let (major, minor) = device(header).ok_or_else(|| refuse(Refusal::BadDevice))?;
            if kind == b'3' {
                EntryKind::CharDevice(major, minor)
            } else {
                EntryKind::BlockDevice(major, minor)
            }
        }
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err(refuse(Refusal::UnknownType)),
    })
}

/// Reads device numbers, which only ustar and GNU headers have.
fn device(header: &Header) -> Option<(u32, u32)> {
    // Both layouts keep them in the same place.
    let block = header.as_bytes();
    if &block[257..262] != b"ustar" {
        return None;
    }
    let field = |at: usize| octal(&block[at..at + 8]).and_then(|n| u32::try_from(n).ok());
    let (major, minor) = (field(329)?, field(337)?);
    // What the kernel can hold: 12 bits and 20 bits.
    (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
}

/// Returns name with prefix; GNU headers keep other things where ustar keeps the prefix.
fn header_path(header: &Header) -> Vec<u8> {
    let name = terminated(&header.as_old().name);
    match header.as_ustar() {
        Some(ustar) if ustar.prefix[0] != 0 => [terminated(&ustar.prefix), b"/", name].concat(),
        _ => name.to_vec(),
    }
}

/// Chooses between two long forms of one name, which must agree when both are there.
fn one_of(
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    name: &[u8],
) -> Result<Option<Vec<u8>>, ArchiveError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(ArchiveError::refused(name, Refusal::Contradiction))
        }
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
    if slot.replace(value).is_some() {
        return Err(malformed("two extended headers for one entry"));
    }
    Ok(())
}

fn owner(id: u64) -> Option<u32> {
    // The all-ones id means "leave as it is" to the kernel.
    u32::try_from(id).ok().filter(|id| *id != u32::MAX)
}

fn terminated(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Sums a header with its checksum field blank: unsigned, and signed as some old writers did.
fn checksums(block: &[u8; BLOCK]) -> (u64, i64) {
    let mut sums = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        sums.0 += u64::from(byte);
        sums.1 += i64::from(byte.cast_signed());
    }
    sums
}

/// Reads a number field that cannot be negative: octal, or GNU's base 256.
fn number(field: &[u8]) -> Result<u64, ArchiveError> {
    u64::try_from(signed(field)?).map_err(|_| malformed("negative number in header"))
}

/// Reads a number field: octal, or base 256 when the first bit is set.
fn signed(field: &[u8]) -> Result<i64, ArchiveError> {
    let bad = || malformed("bad number in header");
    if field[0] & 0x80 == 0 {
        return octal(field)
            .and_then(|value| i64::try_from(value).ok())
            .ok_or_else(bad);
    }
    // Two's complement over the remaining bits; the second bit is the sign.
    let is_negative = field[0] & 0x40 != 0;
    let first = if is_negative {
        field[0]
    } else {
        field[0] & 0x7f
    };
    let mut value = i128::from(first.cast_signed());
    for byte in &field[1..] {
        value = (value << 8) | i128::from(*byte);
    }
    i64::try_from(value).map_err(|_| bad())
}

/// Reads octal digits between blanks and zero bytes; an empty field is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = &field[start.unwrap_or(field.len())..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(is_blank) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(ArchiveError::Read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"644 7\0\0", None),
            (b"0x12\0", None),
            (b"-644\0", None),
            (b"\x80\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"777777777777", Some(0o777_777_777_777)),
        ] {
            assert_eq!(signed(field).ok(), expected, "{field:?}");
        }
        assert!(number(b"\xff\xff\xff\xff").is_err());
    }
}
