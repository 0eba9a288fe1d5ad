//! Extended headers (POSIX pax): `length key=value` records.
//!
//! Values may hold any byte, line ends included: the length counts, not the line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::entry::MAX_XATTR;
use super::error::{ArchiveError, Refusal};
use super::sparse::SparseRecords;
use crate::sys::metadata::Timestamp;
use crate::sys::xattr::Xattrs;

/// Prefix of records that hold extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Prefix of records that describe a sparse file.
const SPARSE: &[u8] = b"GNU.sparse.";

/// The records that matter, of one extended header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
}

impl Pax {
    /// Reads the records of a header.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, ArchiveError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes)?;
            pax.take(key, value)?;
            bytes = rest;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match key {
            b"path" => once(&mut self.path, value.to_vec()),
            b"linkpath" => once(&mut self.link, value.to_vec()),
            b"size" => once(&mut self.size, decimal(value)?),
            b"uid" => once(&mut self.uid, decimal(value)?),
            b"gid" => once(&mut self.gid, decimal(value)?),
            b"mtime" => once(&mut self.mtime, parse_time(value)?),
            _ => match (key.strip_prefix(XATTR), key.strip_prefix(SPARSE)) {
                (Some(name), _) => self.take_xattr(name, value),
                (None, Some(name)) => self.sparse.take(name, value),
                (None, None) => Ok(()),
            },
        }
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err(malformed("attribute name"));
        }
        if value.len() > MAX_XATTR {
            return Err(ArchiveError::refused(name, Refusal::XattrTooLarge));
        }
        self.xattrs
            .insert(OsString::from_vec(name.to_vec()), value.to_vec());
        Ok(())
    }

    /// Says whether a global header would change what later entries are.
    pub(super) fn changes_entries(&self) -> bool {
        let is_sparse = self.sparse.is_any();
        self.path.is_some() || self.link.is_some() || self.size.is_some() || is_sparse
    }
}

/// Two values for one key would let two readers see two archives.
fn once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
    if slot.as_ref().is_some_and(|old| *old != value) {
        return Err(malformed("extended header says one thing twice"));
    }
    *slot = Some(value);
    Ok(())
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_record(bytes: &[u8]) -> Result<Record<'_>, ArchiveError> {
    let bad = || malformed("extended header");
    let space = bytes
        .iter()
        .take(10)
        .position(|byte| *byte == b' ')
        .ok_or_else(bad)?;
    let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| bad())?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(bad());
    }
    let record = &bytes[space + 1..length - 1];
    let equals = record
        .iter()
        .position(|byte| *byte == b'=')
        .ok_or_else(bad)?;
    if equals == 0 {
        return Err(bad());
    }
    Ok((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

fn decimal(text: &[u8]) -> Result<u64, ArchiveError> {
    let bad = || malformed("number in extended header");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    text.parse().map_err(|_| bad())
}

/// Reads seconds with an optional fraction, possibly before 1970.
fn parse_time(text: &[u8]) -> Result<Timestamp, ArchiveError> {
    let bad = || malformed("time in extended header");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let (text, is_negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds = i64::try_from(decimal(whole.as_bytes())?).map_err(|_| bad())?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| bad())?;
    Ok(match (is_negative, nanoseconds) {
        (false, _) => Timestamp {
            seconds,
            nanoseconds,
        },
        (true, 0) => Timestamp::from_seconds(-seconds),
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Collects records for writing.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + digits_of(length) != length {
            length = rest + digits_of(length);
        }
        self.0.extend(length.to_string().into_bytes());
        self.0.push(b' ');
        self.0.extend(key);
        self.0.push(b'=');
        self.0.extend(value);
        self.0.push(b'\n');
    }

    pub(super) fn add_xattr(&mut self, name: &[u8], value: &[u8]) {
        self.add(&[XATTR, name].concat(), value);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn digits_of(number: usize) -> usize {
    number.to_string().len()
}

fn malformed(what: &str) -> ArchiveError {
    ArchiveError::Malformed(format!("bad {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_byte_and_any_length() {
        for length in (0..120).chain([980, 990, 1000, 9980, 9990]) {
            let value: Vec<u8> = (0..length).map(|at| (at * 7 % 256) as u8).collect();
            let mut records = Records::default();
            records.add_xattr(b"user.x", &value);
            records.add(b"path", b"a=b\nc");
            let pax = Pax::parse(&records.into_bytes()).unwrap();
            assert_eq!(pax.xattrs[std::ffi::OsStr::new("user.x")], value);
            assert_eq!(pax.path.as_deref(), Some(&b"a=b\nc"[..]));
        }
    }

    #[test]
    fn times_may_be_fractional_and_negative() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("12.5", 12, 500_000_000),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("1.1234567899", 1, 123_456_789),
        ] {
            let found = parse_time(text.as_bytes()).unwrap();
            assert_eq!((found.seconds, found.nanoseconds), (seconds, nanoseconds));
        }
    }

    #[test]
    fn refuses_malformed_records() {
        for bad in [
            &b"x"[..],
            b"4 a=\n",
            b"6 ab=c\n",
            b"99999999999 a=b\n",
            b"-6 a=b\n",
            b"6 =ab\n",
            b"7 abcd\n",
            b"10 uid=-5\n",
            b"11 size=1e\n",
            b"10 size=5\n10 size=6\n",
            b"11 mtime=x\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(Pax::parse(b"10 size=5\n10 size=5\n").is_ok());
    }
}
