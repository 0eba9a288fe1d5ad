//! Programs of other processors: which kind a file is, and what the kernel runs it with.
//!
//! The kernel's table (`binfmt_misc`) has a file for each registration:
//!
//! ```text
//! enabled
//! interpreter /usr/bin/qemu-aarch64-static
//! flags: OCF
//! offset 0
//! magic 7f454c460201010000000000000000000200b700
//! mask ffffffffffffff00fffffffffffffffffeffffff
//! ```
//!
//! With the flag `F` the interpreter was opened when it was registered, so it works in every
//! root; without, it must lie in the root that the program runs in.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{detached, dir};

/// Where the table is mounted.
const TABLE: &str = "/proc/sys/fs/binfmt_misc";
/// Files of the table that are no registrations.
const CONTROLS: [&str; 2] = ["register", "status"];
/// Longest registration that is read.
const REGISTRATION_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of an ELF header that tell what a program is for.
pub const HEADER_BYTES: usize = 20;

/// Marks of programs: OCI's name of the processor, bits, byte order, ELF's number of it.
const MACHINES: [(&str, u8, u8, u16); 12] = [
    ("386", 1, 1, 3),
    ("amd64", 2, 1, 62),
    ("arm", 1, 1, 40),
    ("arm64", 2, 1, 183),
    ("riscv64", 2, 1, 243),
    ("ppc64le", 2, 1, 21),
    ("ppc64", 2, 2, 21),
    ("s390x", 2, 2, 22),
    ("loong64", 2, 1, 258),
    ("mips64le", 2, 1, 8),
    ("mips64", 2, 2, 8),
    ("mipsle", 1, 1, 8),
];

/// What the kernel does with programs of some kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The program that runs them.
    pub interpreter: PathBuf,
    /// Whether it works in every root, not only in one that holds it.
    pub is_fixed: bool,
    is_enabled: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Registration {
    /// Reads a file of the table; `None` for one that goes by the names of files.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let is_enabled = lines.next()? == "enabled";
        let mut found = Self {
            interpreter: PathBuf::new(),
            is_fixed: false,
            is_enabled,
            offset: 0,
            magic: Vec::new(),
            mask: Vec::new(),
        };
        for line in lines {
            match line.split_once(' ')? {
                ("interpreter", path) => found.interpreter = path.into(),
                ("flags:", flags) => found.is_fixed = flags.contains('F'),
                ("offset", number) => found.offset = number.parse().ok()?,
                ("magic", bytes) => found.magic = unhex(bytes)?,
                ("mask", bytes) => found.mask = unhex(bytes)?,
                _ => {}
            }
        }
        (!found.magic.is_empty()).then_some(found)
    }

    /// Says whether it is for programs that begin with `header`.
    fn fits(&self, header: &[u8]) -> bool {
        let Some(bytes) = header.get(self.offset..) else {
            return false;
        };
        let mask = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        let mut triples = self.magic.iter().zip(bytes).zip(mask);
        self.is_enabled
            && bytes.len() >= self.magic.len()
            && triples.all(|((magic, byte), mask)| (magic ^ byte) & mask == 0)
    }
}

/// The kernel's table, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    registrations: Vec<Registration>,
}

impl Table {
    /// Reads the table; `None` where this process cannot know it.
    pub fn read() -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mounted = rustix::fs::open(TABLE, flags, Mode::empty()).ok()?;
        if is_table(&mounted) {
            return Self::from_dir(&mounted).ok();
        }
        // Mounting it in a user namespace would make a new, empty table for it.
        if !is_first_user_namespace() {
            return None;
        }
        let mount = detached::filesystem(c"binfmt_misc", &[], detached::INERT).ok()?;
        Self::from_dir(&mount).ok()
    }

    fn from_dir(table: &OwnedFd) -> io::Result<Self> {
        let mut registrations = Vec::new();
        for entry in dir::list(dir::open(table, c".")?)? {
            if CONTROLS.iter().any(|name| entry.os_name() == *name) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(table, entry.name.as_c_str(), flags, Mode::empty())?;
            let mut text = String::new();
            File::from(file)
                .take(REGISTRATION_BYTES_MAX)
                .read_to_string(&mut text)?;
            registrations.extend(Registration::parse(&text));
        }
        Ok(Self { registrations })
    }

    /// Finds what runs programs of a processor, by OCI's name of it.
    pub fn emulator(&self, architecture: &str) -> Option<&Registration> {
        let header = header_of(architecture)?;
        self.registrations.iter().find(|one| one.fits(&header))
    }
}

/// Returns for which processor a program is, by OCI's name; `None` for anything else than a
/// program of a known one.
pub fn architecture_of(header: &[u8]) -> Option<&'static str> {
    let known = MACHINES.iter().map(|machine| machine.0);
    known.into_iter().find(|name| {
        header_of(name).is_some_and(|wanted| {
            let same =
                |range: std::ops::Range<usize>| header.get(range.clone()) == wanted.get(range);
            same(0..6) && same(18..20)
        })
    })
}

/// Reads the beginning of a file.
pub fn header(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Says whether this kernel may run programs of a processor by itself.
pub fn is_native(architecture: &str, host: &str) -> bool {
    architecture == host
        || matches!(
            (host, architecture),
            ("amd64", "386") | ("arm64", "arm") | ("mips64le", "mipsle")
        )
}

/// Makes the header of a static program.
fn header_of(architecture: &str) -> Option<[u8; HEADER_BYTES]> {
    let (_, bits, order, machine) = MACHINES.iter().find(|machine| machine.0 == architecture)?;
    let number = |value: u16| match order {
        1 => value.to_le_bytes(),
        _ => value.to_be_bytes(),
    };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4..7].copy_from_slice(&[*bits, *order, 1]);
    header[16..18].copy_from_slice(&number(2));
    header[18..20].copy_from_slice(&number(*machine));
    Some(header)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

fn is_table(directory: impl AsFd) -> bool {
    rustix::fs::statat(directory, "register", rustix::fs::AtFlags::empty()).is_ok()
}

fn is_first_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Returns where a program is looked for in a root, when it has no path of its own.
pub fn in_path(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    directories.map(|d| Path::new(d).join(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\n\
        interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n\
        flags: POCF\n\
        offset 0\n\
        magic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_registration_is_for_one_processor() {
        let registration = Registration::parse(AARCH64).unwrap();
        assert!(registration.is_fixed);
        let table = Table {
            registrations: vec![registration],
        };
        let found = |name: &str| table.emulator(name).is_some();
        assert!(found("arm64"));
        for other in ["amd64", "arm", "riscv64", "s390x", "vax"] {
            assert!(!found(other), "{other}");
        }
        let off = AARCH64.replace("enabled", "disabled");
        let table = Table {
            registrations: vec![Registration::parse(&off).unwrap()],
        };
        assert!(table.emulator("arm64").is_none());
        let by_name = "enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n";
        assert_eq!(Registration::parse(by_name), None);
        let open = AARCH64.replace("POCF", "OC");
        assert!(!Registration::parse(&open).unwrap().is_fixed);
    }

    #[test]
    fn programs_tell_what_they_are_for() {
        for (name, ..) in MACHINES {
            assert_eq!(architecture_of(&header_of(name).unwrap()), Some(name));
        }
        let own = header(File::open("/proc/self/exe").unwrap()).unwrap();
        let host = architecture_of(&own);
        assert!(host.is_some_and(|host| is_native(host, host)));
        for other in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF"] {
            assert_eq!(architecture_of(other), None);
        }
    }
}
