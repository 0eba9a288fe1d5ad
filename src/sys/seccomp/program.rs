//! From verdicts on ranges of call numbers to BPF.

use libc::sock_filter;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// A filter ready for the kernel.
#[derive(Debug, Clone)]
pub struct Program {
    instructions: Vec<sock_filter>,
}

impl Program {
    /// Joins the rules of several architectures; a call from any other one kills.
    pub(super) fn new(architectures: &[(u32, Vec<Segment>)]) -> Self {
        let mut instructions = vec![statement(LOAD_WORD, OFFSET_ARCH)];
        for (arch, segments) in architectures {
            let mut block = vec![statement(LOAD_WORD, OFFSET_NUMBER)];
            block.extend(tree(segments));
            instructions.push(jump(JUMP_EQUAL, *arch, 1, 0));
            instructions.push(statement(JUMP, length(&block)));
            instructions.extend(block);
        }
        instructions.push(statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
        Self { instructions }
    }

    /// Returns the instructions.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }
}

/// A range of call numbers, up to the next segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// First number.
    pub(super) start: u32,
    /// What happens to these calls.
    pub(super) verdict: Verdict,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is made.
    Allow,
    /// It fails with an error number.
    Errno(u16),
    /// An argument decides.
    Check(Check),
}

/// Looks at the low half of an argument. All arguments checked are ints or flags in the low
/// half, so the high half, which the kernel ignores, must not be able to change the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Index of the argument.
    pub(super) argument: u32,
    /// Bits that count.
    pub(super) mask: u32,
    /// Values that count as a match.
    pub(super) values: &'static [u32],
    /// Whether a match is allowed and the rest refused, or the other way round.
    pub(super) allow_match: bool,
}

fn tree(segments: &[Segment]) -> Vec<sock_filter> {
    if let [only] = segments {
        return leaf(&only.verdict);
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let (below, above) = (tree(low), tree(high));
    let mut block = Vec::with_capacity(below.len() + above.len() + 2);
    match u8::try_from(below.len()) {
        Ok(distance) => block.push(jump(JUMP_AT_LEAST, high[0].start, distance, 0)),
        Err(_) => {
            block.push(jump(JUMP_AT_LEAST, high[0].start, 0, 1));
            block.push(statement(JUMP, length(&below)));
        }
    }
    block.extend(below);
    block.extend(above);
    block
}

fn leaf(verdict: &Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Allow => vec![statement(RETURN, libc::SECCOMP_RET_ALLOW)],
        Verdict::Errno(number) => vec![refuse(*number)],
        Verdict::Check(check) => checked(check),
    }
}

fn checked(check: &Check) -> Vec<sock_filter> {
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    let offset = OFFSET_ARGS + 8 * check.argument + low_half;
    let mut block = vec![statement(LOAD_WORD, offset), statement(AND, check.mask)];
    for (index, value) in check.values.iter().enumerate() {
        // Past the values that follow and the answer for "no match".
        let distance = u8::try_from(check.values.len() - index).unwrap_or(u8::MAX);
        block.push(jump(JUMP_EQUAL, *value, distance, 0));
    }
    let (allow, deny) = (
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        refuse(libc::EPERM as u16),
    );
    if check.allow_match {
        block.extend([deny, allow]);
    } else {
        block.extend([allow, deny]);
    }
    block
}

fn refuse(number: u16) -> sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(number))
}

fn statement(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn length(block: &[sock_filter]) -> u32 {
    u32::try_from(block.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod interpreter {
    use super::*;

    /// Runs a program on one call, as the kernel does.
    pub(in crate::sys::seccomp) fn run(
        program: &Program,
        arch: u32,
        number: u32,
        args: [u64; 6],
    ) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (index, arg) in args.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let now = program.instructions[at];
            at += 1;
            match now.code {
                LOAD_WORD => {
                    let offset = now.k as usize;
                    let word = data[offset..offset + 4].try_into().unwrap();
                    accumulator = u32::from_ne_bytes(word);
                }
                AND => accumulator &= now.k,
                JUMP => at += now.k as usize,
                JUMP_EQUAL if accumulator == now.k => at += now.jt as usize,
                JUMP_AT_LEAST if accumulator >= now.k => at += now.jt as usize,
                JUMP_EQUAL | JUMP_AT_LEAST => at += now.jf as usize,
                RETURN => return now.k,
                code => panic!("unknown instruction {code}"),
            }
        }
    }
}
