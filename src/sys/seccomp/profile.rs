//! The default profile: the table, the calls whose arguments decide, and the answers for the
//! rest.

use std::collections::BTreeMap;

use super::program::{Check, Program, Segment, Verdict};
use super::table::{self, Column};

/// `AUDIT_ARCH_*` of linux/audit.h.
const ARCH_X86_64: u32 = 0xC000_003E;
const ARCH_I386: u32 = 0x4000_0003;
const ARCH_AARCH64: u32 = 0xC000_00B7;
const ARCH_ARM: u32 = 0x4000_0028;

/// Newest call that the profile has an opinion on (`removexattrat`).
const NEWEST: u32 = 466;

/// The bits that make namespaces: a container may not.
pub const CLONE_NEW: u32 = 0x7E02_0000;

/// Execution domains that programs ask for: Linux, UNAME26, ADDR_NO_RANDOMIZE variants, query.
pub const PERSONALITIES: &[u32] = &[0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// AF_ALG (a history of holes) and AF_VSOCK (reaches the hypervisor, whatever the namespace).
pub const REFUSED_FAMILIES: &[u32] = &[38, 40];

/// Numbers of the calls that are looked at more closely.
struct Special {
    clone: u32,
    clone3: u32,
    socket: u32,
    personality: u32,
}

/// Makes the filter for the machine that this was compiled for.
pub(super) fn compile() -> Option<Program> {
    let native: &[(u32, Column, Special)] = if cfg!(target_arch = "x86_64") {
        &[
            (ARCH_X86_64, Column::X86_64, SPECIAL_X86_64),
            (ARCH_I386, Column::I386, SPECIAL_I386),
        ]
    } else if cfg!(target_arch = "aarch64") {
        &[
            (ARCH_AARCH64, Column::Aarch64, SPECIAL_AARCH64),
            (ARCH_ARM, Column::Arm, SPECIAL_ARM),
        ]
    } else {
        return None;
    };
    let architectures: Vec<(u32, Vec<Segment>)> = native
        .iter()
        .map(|(arch, column, special)| (*arch, segments(*column, special)))
        .collect();
    Some(Program::new(&architectures))
}

const SPECIAL_X86_64: Special = Special {
    clone: 56,
    clone3: 435,
    socket: 41,
    personality: 135,
};
const SPECIAL_I386: Special = Special {
    clone: 120,
    clone3: 435,
    socket: 359,
    personality: 136,
};
const SPECIAL_AARCH64: Special = Special {
    clone: 220,
    clone3: 435,
    socket: 198,
    personality: 92,
};
const SPECIAL_ARM: Special = Special {
    clone: 120,
    clone3: 435,
    socket: 281,
    personality: 136,
};

fn segments(column: Column, special: &Special) -> Vec<Segment> {
    let mut verdicts: BTreeMap<u32, Verdict> = table::numbers(column)
        .into_iter()
        .map(|number| (number, Verdict::Allow))
        .collect();
    verdicts.extend(special.verdicts());
    let mut starts = BTreeMap::from([(0, other(0)), (NEWEST + 1, other(NEWEST + 1))]);
    for (number, verdict) in verdicts {
        starts.insert(number, verdict);
        starts.insert(number + 1, other(number + 1));
    }
    let mut segments: Vec<Segment> = starts
        .into_iter()
        .map(|(start, verdict)| Segment { start, verdict })
        .collect();
    segments.dedup_by(|later, earlier| later.verdict == earlier.verdict);
    segments
}

/// Answers for a call that no rule names.
fn other(number: u32) -> Verdict {
    if number > NEWEST {
        Verdict::Errno(libc::ENOSYS as u16)
    } else {
        Verdict::Errno(libc::EPERM as u16)
    }
}

impl Special {
    fn verdicts(&self) -> [(u32, Verdict); 4] {
        let clone = Check {
            argument: 0,
            mask: CLONE_NEW,
            values: &[0],
            allow_match: true,
        };
        let socket = Check {
            argument: 0,
            mask: u32::MAX,
            values: REFUSED_FAMILIES,
            allow_match: false,
        };
        let personality = Check {
            argument: 0,
            mask: u32::MAX,
            values: PERSONALITIES,
            allow_match: true,
        };
        [
            (self.clone, Verdict::Check(clone)),
            // Its flags are behind a pointer, so libraries are made to use clone instead.
            (self.clone3, Verdict::Errno(libc::ENOSYS as u16)),
            (self.socket, Verdict::Check(socket)),
            (self.personality, Verdict::Check(personality)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seccomp::program::interpreter;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn every_number_gets_the_verdict_of_the_profile() {
        for (arch, column, special) in [
            (ARCH_X86_64, Column::X86_64, SPECIAL_X86_64),
            (ARCH_I386, Column::I386, SPECIAL_I386),
            (ARCH_AARCH64, Column::Aarch64, SPECIAL_AARCH64),
            (ARCH_ARM, Column::Arm, SPECIAL_ARM),
        ] {
            let program = Program::new(&[(arch, segments(column, &special))]);
            assert!(program.instructions().len() < 600);
            let allowed = table::numbers(column);
            for number in (0..600).chain([0x4000_0001, 0xF_0002, u32::MAX]) {
                let expected = if allowed.contains(&number) {
                    ALLOW
                } else if number == special.clone3 || number > NEWEST {
                    ENOSYS
                } else if [special.clone, special.socket, special.personality].contains(&number) {
                    ALLOW
                } else {
                    EPERM
                };
                let found = interpreter::run(&program, arch, number, [0; 6]);
                assert_eq!(found, expected, "call {number} on {column:?}");
            }
            let killed = interpreter::run(&program, 1, 0, [0; 6]);
            assert_eq!(killed, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn arguments_decide() {
        let program = Program::new(&[(ARCH_X86_64, segments(Column::X86_64, &SPECIAL_X86_64))]);
        for (number, argument, expected) in [
            (56, 0x0120_0011, ALLOW),
            (56, 0x1000_0000, EPERM),
            (56, 0x0002_0000, EPERM),
            (56, 0x4000_0000, EPERM),
            (56, 0xFFFF_FFFF_0000_0000, ALLOW),
            (41, 2, ALLOW),
            (41, 38, EPERM),
            (41, 39, ALLOW),
            (41, 40, EPERM),
            (41, 0x1_0000_0028, EPERM),
            (41, 45, ALLOW),
            (135, 0, ALLOW),
            (135, 8, ALLOW),
            (135, 0x2_0000, ALLOW),
            (135, 0xFFFF_FFFF, ALLOW),
            (135, 0x40_0000, EPERM),
        ] {
            let args = [argument, 0, 0, 0, 0, 0];
            let found = interpreter::run(&program, ARCH_X86_64, number, args);
            assert_eq!(found, expected, "call {number} with {argument:#x}");
        }
    }
}
