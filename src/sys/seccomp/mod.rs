//! The system call filter of a container: Docker's default profile as a BPF program.
//!
//! In reading order: [`table`] (which calls, and their numbers), [`program`] (how a filter
//! becomes BPF), [`profile`] (the rules put together). The filter is a balanced tree over
//! ranges of call numbers, about 9 comparisons a call, so installing it costs the kernel
//! little; a linear list of 300 rules costs a millisecond a process.
//!
//! Both instruction sets that a kernel runs are covered (x86_64 and i386, aarch64 and arm).
//! A call that the profile does not allow fails with EPERM; one newer than the profile with
//! ENOSYS, so that a C library falls back to the older call instead of giving up.

mod profile;
mod program;
mod table;

use std::io;
use std::sync::OnceLock;

pub use profile::{CLONE_NEW, PERSONALITIES, REFUSED_FAMILIES};
pub use program::Program;

/// Lists the names of the calls that the profile allows whatever their arguments.
pub fn allowed_names() -> impl Iterator<Item = &'static str> {
    table::names()
}

/// Returns the default profile for containers with the default capabilities, or `None` on
/// an architecture that has no table.
pub fn default_profile() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    PROGRAM.get_or_init(profile::compile).as_ref()
}

/// Puts the calling thread and its future children under a filter, for ever.
///
/// Needs CAP_SYS_ADMIN in the user namespace, or `no_new_privs`.
#[allow(unsafe_code, reason = "seccomp(2) has no safe wrapper")]
pub fn install(program: &Program) -> io::Result<()> {
    let instructions = program.instructions();
    let length = u16::try_from(instructions.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter too long"))?;
    let filter = libc::sock_fprog {
        len: length,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` points to `len` instructions that live through the call; the kernel
    // copies them and checks every one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const filter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
