//! The kernel's messages: bytes to requests, answers to bytes.
//!
//! Version 7.31 of the protocol, of which a read-only tree that never changes needs little: names
//! and attributes may be remembered for good, files need not be opened, and nothing is counted.
//!
//! ```text
//! request  length 4 · operation 4 · unique 8 · node 8 · uid 4 · gid 4 · pid 4 · 4 · arguments
//! answer   length 4 · negative error 4 · unique 8 · results
//! ```

use rustix::io::Errno;

use crate::sys::metadata::Timestamp;

/// Bytes before the arguments of a request.
const HEADER_BYTES: usize = 40;
/// Bytes before the results of an answer.
const ANSWER_HEADER_BYTES: usize = 16;
/// The version that is spoken, within major version 7.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// Seconds for which the kernel may remember: nothing ever changes.
const VALID_SECONDS: u64 = 1 << 30;
/// What is wanted of the kernel: several reads of a file at a time, no opening of files and
/// folders, lists with attributes, look-ups side by side, remembered links.
const FLAGS: u32 = 1 | 1 << 13 | 1 << 17 | 1 << 18 | 1 << 23 | 1 << 24;
/// Reads ahead that may be under way, and from how many on the kernel holds back.
const BACKGROUND_MAX: u16 = 32;
const CONGESTION: u16 = 24;
/// Largest write, as the kernel wants one named.
const WRITE_BYTES_MAX: u32 = 4096;
/// Block size that is told.
const BLOCK: u32 = 4096;
/// Bytes of the attributes of a node.
const ATTR_BYTES: usize = 88;
/// Bytes of a node found by its name.
const ENTRY_BYTES: usize = 40 + ATTR_BYTES;

/// What the kernel wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names the request in its answer.
    pub unique: u64,
    /// What it is about; 1 is the root.
    pub node: u64,
    /// The thread that asks.
    pub pid: u32,
    /// What is wanted.
    pub operation: Operation,
}

/// The requests that a read-only tree knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The first one.
    Init {
        /// What the kernel reads ahead.
        readahead_bytes: u32,
        /// What the kernel can do.
        flags: u32,
    },
    /// The node of a name in a directory.
    Lookup(Vec<u8>),
    /// Attributes.
    GetAttr,
    /// The text of a link.
    ReadLink,
    /// Bytes of a file.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many are wanted.
        size: u32,
    },
    /// The entries of a directory, from one on.
    ReadDir {
        /// Entries that were told before.
        offset: u64,
        /// Bytes that there is room for.
        size: u32,
        /// Whether attributes are wanted, too.
        with_attributes: bool,
    },
    /// The value of an extended attribute, or its size where there is no room.
    GetXattr {
        /// The attribute.
        name: Vec<u8>,
        /// Room for it.
        size: u32,
    },
    /// The names of the extended attributes, or their size where there is no room.
    ListXattr {
        /// Room for them.
        size: u32,
    },
    /// About the file system.
    StatFs,
    /// A request of this `unique` was interrupted by a signal.
    Interrupt(u64),
    /// A notice without answer.
    Notice,
    /// Anything else.
    Other,
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The node, which is also its inode.
    pub node: u64,
    /// Bytes of a file or link.
    pub size: u64,
    /// Time of last change.
    pub mtime: Timestamp,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of a device: major and minor.
    pub device: (u32, u32),
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it names.
    pub attr: Attr,
    /// Entries told when this one is.
    pub next: u64,
}

/// What the kernel is told.
#[derive(Debug, Clone)]
pub enum Answer {
    /// No.
    Error(Errno),
    /// The connection stands; the kernel reads so much ahead, and can do what it said.
    Init(u32, u32),
    /// A name leads here; `None` where there is none, which the kernel may remember.
    Entry(Option<Attr>),
    /// Attributes.
    Attr(Attr),
    /// The text of a link, bytes of a file, a value, names, a list of entries.
    Bytes(Vec<u8>),
    /// Bytes that a value or list of names needs.
    XattrSize(u32),
    /// The file system has so many nodes.
    StatFs(u64),
    /// Nothing at all, not even that.
    None,
}

impl Request {
    /// Reads a message; `None` where it is none.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, arguments) = message.split_at_checked(HEADER_BYTES)?;
        let size = |at| u32_at(arguments, at);
        let operation = match u32_at(header, 4)? {
            1 => Operation::Lookup(until_zero(arguments)?),
            3 => Operation::GetAttr,
            5 => Operation::ReadLink,
            15 => Operation::Read {
                offset: u64_at(arguments, 8)?,
                size: size(16)?,
            },
            17 => Operation::StatFs,
            22 => Operation::GetXattr {
                size: size(0)?,
                name: until_zero(arguments.get(8..)?)?,
            },
            23 => Operation::ListXattr { size: size(0)? },
            26 => Operation::Init {
                readahead_bytes: size(8)?,
                flags: size(12)?,
            },
            code @ (28 | 44) => Operation::ReadDir {
                offset: u64_at(arguments, 8)?,
                size: size(16)?,
                with_attributes: code == 44,
            },
            36 => Operation::Interrupt(u64_at(arguments, 0)?),
            // Forgetting, one or many, and the last goodbye.
            2 | 38 | 42 => Operation::Notice,
            _ => Operation::Other,
        };
        Some(Self {
            unique: u64_at(header, 8)?,
            node: u64_at(header, 16)?,
            pid: u32_at(header, 32)?,
            operation,
        })
    }
}

/// Writes as many entries as there is room for.
pub fn list<'a>(
    entries: impl Iterator<Item = DirEntry<'a>>,
    room: u32,
    with_attributes: bool,
) -> Vec<u8> {
    // The kernel asks for pages, not for more than an answer may have.
    let room = room as usize;
    let mut bytes = Vec::new();
    for entry in entries {
        let head = if with_attributes { ENTRY_BYTES } else { 0 };
        let length = head + (24 + entry.name.len()).next_multiple_of(8);
        if bytes.len() + length > room {
            break;
        }
        let end = bytes.len() + length;
        if with_attributes {
            put_entry(&mut bytes, &entry.attr);
        }
        put64(&mut bytes, entry.attr.node);
        put64(&mut bytes, entry.next);
        // Names have at most 255 bytes.
        put32(&mut bytes, entry.name.len() as u32);
        put32(&mut bytes, entry.attr.mode >> 12);
        bytes.extend_from_slice(entry.name);
        bytes.resize(end, 0);
    }
    bytes
}

/// Writes an answer as a message; `None` where there is to be none.
pub(super) fn encode(unique: u64, answer: &Answer) -> Option<Vec<u8>> {
    let mut bytes = vec![0; ANSWER_HEADER_BYTES];
    let mut error = 0;
    match answer {
        Answer::None => return None,
        Answer::Error(errno) => error = -errno.raw_os_error(),
        Answer::Init(readahead_bytes, flags) => put_init(&mut bytes, *readahead_bytes, *flags),
        Answer::Entry(Some(attr)) => put_entry(&mut bytes, attr),
        Answer::Entry(None) => {
            put64(&mut bytes, 0);
            put64(&mut bytes, 0);
            put64(&mut bytes, VALID_SECONDS);
            bytes.resize(ANSWER_HEADER_BYTES + ENTRY_BYTES, 0);
        }
        Answer::Attr(attr) => {
            put64(&mut bytes, VALID_SECONDS);
            put64(&mut bytes, 0);
            put_attr(&mut bytes, attr);
        }
        Answer::Bytes(results) => bytes.extend_from_slice(results),
        Answer::XattrSize(size) => {
            put32(&mut bytes, *size);
            put32(&mut bytes, 0);
        }
        Answer::StatFs(nodes) => {
            for number in [0, 0, 0, *nodes, 0] {
                put64(&mut bytes, number);
            }
            for number in [BLOCK, 255, BLOCK] {
                put32(&mut bytes, number);
            }
            bytes.resize(ANSWER_HEADER_BYTES + 80, 0);
        }
    }
    let length = u32::try_from(bytes.len()).ok()?;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..8].copy_from_slice(&error.to_ne_bytes());
    bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
    Some(bytes)
}

fn put_init(bytes: &mut Vec<u8>, readahead_bytes: u32, flags: u32) {
    put32(bytes, MAJOR);
    put32(bytes, MINOR);
    put32(bytes, readahead_bytes);
    put32(bytes, flags & FLAGS);
    bytes.extend_from_slice(&BACKGROUND_MAX.to_ne_bytes());
    bytes.extend_from_slice(&CONGESTION.to_ne_bytes());
    put32(bytes, WRITE_BYTES_MAX);
    // Times in nanoseconds; the rest as it is without asking.
    put32(bytes, 1);
    bytes.resize(ANSWER_HEADER_BYTES + 64, 0);
}

fn put_entry(bytes: &mut Vec<u8>, attr: &Attr) {
    put64(bytes, attr.node);
    put64(bytes, 0);
    put64(bytes, VALID_SECONDS);
    put64(bytes, VALID_SECONDS);
    put64(bytes, 0);
    put_attr(bytes, attr);
}

fn put_attr(bytes: &mut Vec<u8>, attr: &Attr) {
    // The kernel reads seconds as signed.
    let seconds = attr.mtime.seconds as u64;
    // As most file systems have it: data in whole blocks, short links in none.
    let has_blocks = matches!(attr.mode >> 12, 0o4 | 0o10);
    let blocks = if has_blocks {
        attr.size.div_ceil(BLOCK.into())
    } else {
        0
    };
    for number in [attr.node, attr.size, blocks * u64::from(BLOCK / 512)] {
        put64(bytes, number);
    }
    for _ in 0..3 {
        put64(bytes, seconds);
    }
    for _ in 0..3 {
        put32(bytes, attr.mtime.nanoseconds);
    }
    let (major, minor) = attr.device;
    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    for number in [attr.mode, attr.links, attr.uid, attr.gid, device, BLOCK, 0] {
        put32(bytes, number);
    }
}

fn put32(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_ne_bytes());
}

fn put64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_ne_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(eight.try_into().ok()?))
}

fn until_zero(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(bytes[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: u32, arguments: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put32(&mut bytes, (HEADER_BYTES + arguments.len()) as u32);
        put32(&mut bytes, code);
        put64(&mut bytes, 77);
        put64(&mut bytes, 5);
        for number in [1000, 1001, 4242, 0] {
            put32(&mut bytes, number);
        }
        bytes.extend_from_slice(arguments);
        bytes
    }

    #[test]
    fn requests_are_read_and_nonsense_is_not() {
        let mut read = vec![0; 40];
        read[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
        read[16..20].copy_from_slice(&100_u32.to_ne_bytes());
        let room = [9_u32.to_ne_bytes(), [0; 4]].concat();
        for (code, arguments, expected) in [
            (1, b"etc\0".to_vec(), Operation::Lookup(b"etc".to_vec())),
            (
                15,
                read,
                Operation::Read {
                    offset: 4096,
                    size: 100,
                },
            ),
            (
                22,
                [&room[..], b"user.a\0"].concat(),
                Operation::GetXattr {
                    name: b"user.a".to_vec(),
                    size: 9,
                },
            ),
            (36, 8_u64.to_ne_bytes().to_vec(), Operation::Interrupt(8)),
            (42, Vec::new(), Operation::Notice),
            (16, Vec::new(), Operation::Other),
        ] {
            let bytes = message(code, &arguments);
            let request = Request::parse(&bytes).unwrap();
            assert_eq!((request.unique, request.node, request.pid), (77, 5, 4242));
            assert_eq!(request.operation, expected);
        }
        for cut in [0, 39] {
            assert_eq!(Request::parse(&message(3, b"")[..cut]), None);
        }
        assert_eq!(Request::parse(&message(1, b"no end")), None);
        assert_eq!(Request::parse(&message(15, &[0; 19])), None);
    }

    #[test]
    fn lists_end_where_the_room_ends() {
        let attr = Attr {
            node: 3,
            size: 0,
            mtime: Timestamp::default(),
            mode: 0o100_644,
            links: 1,
            uid: 0,
            gid: 0,
            device: (0, 0),
        };
        let names = [&b"a"[..], b"eight888", b"c"];
        let entries = || {
            let numbered = names.iter().zip(1..);
            numbered.map(|(name, next)| DirEntry { name, attr, next })
        };
        assert_eq!(list(entries(), 4096, false).len(), 32 + 32 + 32);
        assert_eq!(list(entries(), 95, false).len(), 64);
        assert_eq!(list(entries(), 31, false).len(), 0);
        let long = list(entries(), 4096, true);
        assert_eq!(long.len(), 3 * (ENTRY_BYTES + 32));
        assert_eq!(u32_at(&long, ENTRY_BYTES + 20), Some(8));
    }

    #[test]
    fn answers_have_the_length_they_say() {
        let attr = Attr {
            node: 3,
            size: 7,
            mtime: Timestamp::from_seconds(-1),
            mode: 0o020_600,
            links: 1,
            uid: 0,
            gid: 0,
            device: (1, 0x103),
        };
        for (answer, length) in [
            (Answer::Error(Errno::IO), 16),
            (Answer::Init(1, u32::MAX), 80),
            (Answer::Entry(Some(attr)), 144),
            (Answer::Entry(None), 144),
            (Answer::Attr(attr), 120),
            (Answer::Bytes(vec![1; 9]), 25),
            (Answer::XattrSize(9), 24),
            (Answer::StatFs(1), 96),
        ] {
            let bytes = encode(6, &answer).unwrap();
            assert_eq!(bytes.len(), length, "{answer:?}");
            assert_eq!(u32_at(&bytes, 0), Some(length as u32));
            assert_eq!(u64_at(&bytes, 8), Some(6));
        }
        assert!(encode(6, &Answer::None).is_none());
        let device = encode(6, &Answer::Attr(attr)).unwrap();
        assert_eq!(u32_at(&device, 16 + 16 + 76), Some(0x0010_0103));
    }
}
