//! Keeps devices from the processes of a version 2 control group, with a small BPF program.
//!
//! Version 1 has a controller for this; version 2 asks a program for every access: is it
//! allowed? The program is the same for nearly every container, so it is loaded once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// Commands and constants of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// What the program is asked about: `BPF_DEVCG_ACC_MKNOD` alone, `BPF_DEVCG_DEV_CHAR`.
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const BLOCK_DEVICE: i32 = 1;
const CHARACTER_DEVICE: i32 = 2;

/// Character devices that may be used: major number, minor numbers (none means all).
const ALLOWED: [(i32, &[i32]); 3] = [(1, &[3, 5, 7, 8, 9]), (5, &[0, 1, 2]), (136, &[])];

/// A device that may be used besides the usual ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether it is a block device.
    pub is_block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
}

impl std::fmt::Display for Rule {
    /// Writes it as version 1 takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_block { 'b' } else { 'c' };
        let read = if self.read { "r" } else { "" };
        let write = if self.write { "w" } else { "" };
        write!(f, "{kind} {}:{} {read}{write}m", self.major, self.minor)
    }
}

/// Puts the processes of a group, and of those below it, under the filter.
pub fn attach(group: impl AsFd, more: &[Rule]) -> io::Result<()> {
    let own = match more {
        [] => None,
        more => Some(load(more)?),
    };
    let program = match &own {
        Some(own) => own,
        None => program()?,
    };
    let attributes = Attach {
        target: group.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

/// Says whether the kernel takes the filter.
pub fn is_available() -> bool {
    program().is_ok()
}

fn program() -> io::Result<&'static OwnedFd> {
    static PROGRAM: OnceLock<Option<OwnedFd>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| load(&[]).ok())
        .as_ref()
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
}

#[allow(unsafe_code, reason = "a descriptor comes out of a raw system call")]
fn load(more: &[Rule]) -> io::Result<OwnedFd> {
    let instructions = assemble(more);
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    let descriptor = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel returned a new descriptor (with close-on-exec set), owned by nobody.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `union bpf_attr` for [`PROG_LOAD`], as far as it matters.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `union bpf_attr` for [`PROG_ATTACH`].
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[allow(unsafe_code, reason = "bpf(2) has no safe wrapper")]
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the structure is that of the command, is passed with its size, and everything
    // it points to lives through the call; the kernel verifies a program before it takes it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An instruction as the kernel has it: code, registers, offset, constant.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    constant: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Registers: the context, then kind and access and numbers of the device.
const CONTEXT: u8 = 1;
const KIND: u8 = 3;
const ACCESS: u8 = 4;
const MAJOR: u8 = 5;
const MINOR: u8 = 2;
/// The register that also holds the answer.
const SCRATCH: u8 = 0;

/// Offsets that mean "the answer", filled in at the end.
const TO_ALLOW: i16 = i16::MAX;
const TO_DENY: i16 = i16::MIN;

fn assemble(more: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND | CONTEXT << 4, 0, 0),
        instruction(MOVE_REGISTER, ACCESS | KIND << 4, 0, 0),
        instruction(AND, KIND, 0, 0xFFFF),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        instruction(LOAD_WORD, MAJOR | CONTEXT << 4, 4, 0),
        instruction(LOAD_WORD, MINOR | CONTEXT << 4, 8, 0),
        // Nodes may be made, as tars do; using them is what matters.
        instruction(JUMP_EQUAL, ACCESS, TO_ALLOW, ACCESS_MKNOD),
    ];
    for rule in more {
        allow(&mut program, rule);
    }
    program.push(instruction(JUMP_NOT_EQUAL, KIND, TO_DENY, CHARACTER_DEVICE));
    for (major, minors) in ALLOWED {
        if minors.is_empty() {
            program.push(instruction(JUMP_EQUAL, MAJOR, TO_ALLOW, major));
            continue;
        }
        let past = i16::try_from(minors.len() + 1).unwrap_or(0);
        program.push(instruction(JUMP_NOT_EQUAL, MAJOR, past, major));
        for minor in minors {
            program.push(instruction(JUMP_EQUAL, MINOR, TO_ALLOW, *minor));
        }
        program.push(instruction(JUMP, 0, TO_DENY, 0));
    }
    let deny = program.len();
    for answer in [0, 1] {
        program.push(instruction(MOVE_CONSTANT, 0, 0, answer));
        program.push(instruction(EXIT, 0, 0, 0));
    }
    for (at, instruction) in program.iter_mut().enumerate() {
        let target = match instruction.offset {
            TO_DENY => deny,
            TO_ALLOW => deny + 2,
            _ => continue,
        };
        // A jump counts from the instruction after it.
        instruction.offset = i16::try_from(target - at - 1).unwrap_or(0);
    }
    program
}

/// Adds the questions whether it is this device and only what may be done with it.
fn allow(program: &mut Vec<Instruction>, rule: &Rule) {
    let kind = if rule.is_block {
        BLOCK_DEVICE
    } else {
        CHARACTER_DEVICE
    };
    let mut forbidden = 0;
    if !rule.read {
        forbidden |= ACCESS_READ;
    }
    if !rule.write {
        forbidden |= ACCESS_WRITE;
    }
    program.extend([
        instruction(JUMP_NOT_EQUAL, KIND, 6, kind),
        instruction(JUMP_NOT_EQUAL, MAJOR, 5, rule.major.cast_signed()),
        instruction(JUMP_NOT_EQUAL, MINOR, 4, rule.minor.cast_signed()),
        instruction(MOVE_REGISTER, SCRATCH | ACCESS << 4, 0, 0),
        instruction(AND, SCRATCH, 0, forbidden),
        instruction(JUMP_NOT_EQUAL, SCRATCH, 1, 0),
        instruction(JUMP, 0, TO_ALLOW, 0),
    ]);
}

fn instruction(code: u8, registers: u8, offset: i16, constant: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        constant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on one question, as the kernel does.
    fn ask(more: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let program = assemble(more);
        let (mut at, mut registers) = (0_usize, [0_i64; 11]);
        loop {
            let now = program[at];
            at += 1;
            let (to, from) = ((now.registers & 15) as usize, (now.registers >> 4) as usize);
            let jump = |taken: bool| if taken { now.offset as usize } else { 0 };
            match now.code {
                LOAD_WORD => registers[to] = context[now.offset as usize / 4].into(),
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_CONSTANT => registers[to] = now.constant.into(),
                AND => registers[to] &= i64::from(now.constant),
                SHIFT_RIGHT => registers[to] >>= now.constant,
                JUMP => at += jump(true),
                JUMP_EQUAL => at += jump(registers[to] == i64::from(now.constant)),
                JUMP_NOT_EQUAL => at += jump(registers[to] != i64::from(now.constant)),
                EXIT => return registers[0] == 1,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_usual_devices_are_allowed_and_disks_are_not() {
        const BLOCK: u32 = 1;
        const CHARACTER: u32 = 2;
        for (kind, access, major, minor, expected) in [
            (CHARACTER, 6, 1, 3, true),
            (CHARACTER, 2, 1, 9, true),
            (CHARACTER, 6, 1, 1, false),
            (CHARACTER, 6, 5, 0, true),
            (CHARACTER, 6, 5, 2, true),
            (CHARACTER, 6, 5, 3, false),
            (CHARACTER, 6, 136, 77, true),
            (CHARACTER, 6, 10, 200, false),
            (CHARACTER, 1, 10, 200, true),
            (BLOCK, 1, 8, 0, true),
            (BLOCK, 2, 8, 0, false),
            (BLOCK, 7, 1, 3, false),
            (BLOCK, 3, 8, 0, false),
        ] {
            let found = ask(&[], kind, access, major, minor);
            assert_eq!(found, expected, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn further_devices_are_allowed_as_far_as_they_say() {
        let disk = Rule {
            is_block: true,
            major: 8,
            minor: 1,
            read: true,
            write: false,
        };
        let fuse = Rule {
            is_block: false,
            major: 10,
            minor: 229,
            read: true,
            write: true,
        };
        for (kind, access, major, minor, expected) in [
            (1, 2, 8, 1, true),
            (1, 6, 8, 1, false),
            (1, 2, 8, 0, false),
            (2, 2, 8, 1, false),
            (2, 6, 10, 229, true),
            (2, 6, 1, 3, true),
            (1, 7, 1, 3, false),
        ] {
            let found = ask(&[disk, fuse], kind, access, major, minor);
            assert_eq!(found, expected, "{kind} {access} {major}:{minor}");
        }
        assert_eq!(disk.to_string(), "b 8:1 rm");
    }
}
