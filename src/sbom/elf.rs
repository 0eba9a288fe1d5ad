//! Sections of ELF files, by name; 32 and 64 bits, either byte order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// First bytes of every such file.
const MAGIC: &[u8] = b"\x7fELF";
/// Bytes of the longest header.
const HEADER_BYTES: usize = 64;
/// Most sections that are looked at.
const SECTIONS_MAX: u16 = 10_000;
/// Largest table of names.
const NAMES_BYTES_MAX: u64 = 16 << 20;
/// Largest section that is read.
const SECTION_BYTES_MAX: u64 = 64 << 20;

/// The sections of a file.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    file: &'a File,
    sections: Vec<Section>,
    names: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    is_64: bool,
    is_little: bool,
}

#[derive(Debug, Clone, Copy)]
struct Section {
    name: u64,
    offset: u64,
    size: u64,
}

impl Layout {
    /// Reads a number of `size` bytes; 0 where there are none.
    fn number(self, bytes: &[u8], at: usize, size: usize) -> u64 {
        let bytes = bytes.get(at..at + size).unwrap_or_default();
        let shift = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        match self.is_little {
            true => bytes.iter().rev().fold(0, shift),
            false => bytes.iter().fold(0, shift),
        }
    }

    /// Chooses the place or size that this layout has.
    fn of(self, in_64: usize, in_32: usize) -> usize {
        if self.is_64 { in_64 } else { in_32 }
    }

    /// Reads a section header: name, place, size.
    fn section(self, bytes: &[u8]) -> Section {
        let word = self.of(8, 4);
        Section {
            name: self.number(bytes, 0, 4),
            offset: self.number(bytes, self.of(24, 16), word),
            size: self.number(bytes, self.of(32, 20), word),
        }
    }
}

impl<'a> Elf<'a> {
    /// Opens a file; `None` where it is none of this kind, or has no sections.
    pub(super) fn open(file: &'a File) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_BYTES];
        let length = read_some(file, &mut header)?;
        let header = &header[..length];
        if !header.starts_with(MAGIC) || length < 52 {
            return Ok(None);
        }
        let layout = Layout {
            is_64: header[4] == 2,
            is_little: header[5] == 1,
        };
        let table = layout.number(header, layout.of(40, 32), layout.of(8, 4));
        let entry = layout.number(header, layout.of(58, 46), 2);
        let count = layout.number(header, layout.of(60, 48), 2);
        let names = layout.number(header, layout.of(62, 50), 2);
        let least = layout.of(64, 40) as u64;
        if table == 0 || entry < least || count == 0 || count > u64::from(SECTIONS_MAX) {
            return Ok(None);
        }
        // Both factors have 16 bits.
        let table = read_at(file, table, entry * count)?;
        let entry = usize::try_from(entry).unwrap_or(usize::MAX);
        let sections = table.chunks_exact(entry).map(|bytes| layout.section(bytes));
        let sections: Vec<Section> = sections.collect();
        let place = usize::try_from(names).unwrap_or(usize::MAX);
        let names = match sections.get(place) {
            Some(names) if names.size <= NAMES_BYTES_MAX => {
                read_at(file, names.offset, names.size)?
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            file,
            sections,
            names,
        }))
    }

    /// Reads a section; `None` where there is none of that name.
    pub(super) fn section(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let is_named = |section: &&Section| {
            let at = usize::try_from(section.name).unwrap_or(usize::MAX);
            let named = self.names.get(at..).unwrap_or_default();
            named.split(|byte| *byte == 0).next() == Some(name.as_bytes())
        };
        match self.sections.iter().find(is_named) {
            Some(section) if section.size <= SECTION_BYTES_MAX => {
                read_at(self.file, section.offset, section.size).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Reads so many bytes, or fails.
fn read_at(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    // A file that claims more than it has must not cost memory.
    if offset.saturating_add(size) > file.metadata()?.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn read_some(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
