//! Capabilities of containers.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The capabilities that Docker gives a container by default (`a80425fb` in /proc).
pub const DEFAULT: CapabilitySet = CapabilitySet::from_bits_truncate(0xA804_25FB);

/// Limits what the calling thread and its children can ever have again.
///
/// Capabilities that the kernel does not know are skipped.
pub fn bound(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number past the last capability.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Says whether the calling thread keeps its capabilities when it becomes another user.
pub fn keep_for_other_users(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}

/// Gives the calling thread these capabilities and passes them on to whatever it executes, a
/// user other than root included.
pub fn set_ambient(capabilities: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: capabilities,
    };
    rustix::thread::set_capabilities(None, sets)?;
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if capabilities.contains(capability) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

/// Gives the calling thread exactly these capabilities, none of them inheritable or ambient.
pub fn set(capabilities: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

/// Returns the capabilities that the calling thread may use.
pub fn permitted() -> io::Result<CapabilitySet> {
    Ok(rustix::thread::capabilities(None)?.permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_has_fourteen_members() {
        assert_eq!(DEFAULT.bits(), 0xA804_25FB);
        assert_eq!(DEFAULT.bits().count_ones(), 14);
        for (capability, is_in) in [
            (CapabilitySet::CHOWN, true),
            (CapabilitySet::SYS_CHROOT, true),
            (CapabilitySet::AUDIT_WRITE, true),
            (CapabilitySet::SYS_ADMIN, false),
            (CapabilitySet::SYS_PTRACE, false),
            (CapabilitySet::NET_ADMIN, false),
        ] {
            assert_eq!(DEFAULT.contains(capability), is_in, "{capability:?}");
        }
    }
}
