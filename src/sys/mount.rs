//! Mounts: overlays of any number of layers, bind mounts, unmounting.
//!
//! Overlays are made with `fsopen`/`fsconfig`, one `lowerdir+` for each layer (Linux 6.5), so
//! their number is bounded by the kernel (500) and not by the length of a string; older
//! kernels get the classic call. Options are those that keep a layer self-contained: no
//! redirects, no metadata-only copies, no index. A writable overlay is `volatile`: nothing is
//! synced, because a layer that is not committed is worth nothing after a crash.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// Most lower layers the kernel stacks (`OVL_MAX_STACK`).
pub const MAX_LOWER: usize = 500;

/// Longest options of the classic mount call: one page with its end.
const MAX_OPTIONS: usize = 4095;

/// Upper and work directory of a writable overlay.
pub type Upper<'a> = (&'a Path, &'a Path);

/// Mounts an overlay of `lower` (top first) on `target`; read-only without `upper`.
pub fn overlay(lower: &[PathBuf], upper: Option<Upper<'_>>, target: &Path) -> io::Result<()> {
    check_count(lower)?;
    match overlay_by_descriptor(lower, upper) {
        Ok(mount) => move_to(&mount, target),
        // No new mount API, no `lowerdir+`, or an option this kernel does not know.
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => overlay_classic(lower, upper, target),
        Err(error) => Err(error.into()),
    }
}

/// Makes an overlay that hangs nowhere yet; see [`overlay`] and [`super::detached`].
pub fn overlay_detached(lower: &[PathBuf], upper: Option<Upper<'_>>) -> io::Result<OwnedFd> {
    check_count(lower)?;
    match overlay_by_descriptor(lower, upper) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
            let place = tempfile::tempdir()?;
            overlay_classic(lower, upper, place.path())?;
            let mount = clone_tree(place.path());
            unmount(place.path())?;
            mount
        }
        other => Ok(other?),
    }
}

/// Mounts the tree at `source` on `target`, with mounts below it.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind_recursive(source, target)?)
}

/// Mounts the tree at `source` on `target` without mounts below it, so that nobody can write.
pub fn bind_readonly(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(source, target)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    Ok(rustix::mount::mount_remount(target, flags, c"")?)
}

/// Clones the tree at `source` as a mount that hangs nowhere yet; see [`move_to`].
pub fn clone_tree(source: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(
        rustix::fs::CWD,
        source,
        flags | OpenTreeFlags::AT_RECURSIVE,
    )?)
}

/// Hangs a mount that was made without a place at `target`.
pub fn move_to(mount: impl AsFd, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(
        mount,
        c"",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Unmounts `target`; when somebody still uses it, it vanishes with the last user.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => Ok(rustix::mount::unmount(
            target,
            UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        )?),
        other => Ok(other?),
    }
}

/// Says whether attributes of overlays are `user.overlay.*`: true in a user namespace, where
/// `trusted.overlay.*` cannot be written.
pub fn is_user_xattr() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let fields: Vec<&str> = map.split_whitespace().collect();
        let is_initial = fields == ["0", "0", "4294967295"];
        !is_initial || !rustix::process::geteuid().is_root()
    })
}

/// Returns the name of the attribute that makes a directory hide all lower ones.
pub fn opaque_xattr() -> &'static str {
    if is_user_xattr() {
        "user.overlay.opaque"
    } else {
        "trusted.overlay.opaque"
    }
}

fn check_count(lower: &[PathBuf]) -> io::Result<()> {
    if lower.len() <= MAX_LOWER {
        return Ok(());
    }
    let count = lower.len();
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{count} layers, but the kernel stacks at most {MAX_LOWER}"),
    ))
}

fn overlay_by_descriptor(
    lower: &[PathBuf],
    upper: Option<Upper<'_>>,
) -> rustix::io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        rustix::mount::fsconfig_set_string(&fs, c"lowerdir+", layer.as_path())?;
    }
    for (key, value) in OPTIONS {
        rustix::mount::fsconfig_set_string(&fs, key, value)?;
    }
    if is_user_xattr() {
        rustix::mount::fsconfig_set_flag(&fs, c"userxattr")?;
    }
    let attributes = match upper {
        Some((upper, work)) => {
            rustix::mount::fsconfig_set_string(&fs, c"upperdir", upper)?;
            rustix::mount::fsconfig_set_string(&fs, c"workdir", work)?;
            rustix::mount::fsconfig_set_flag(&fs, c"volatile")?;
            MountAttrFlags::empty()
        }
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    rustix::mount::fsconfig_create(&fs)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Options of every overlay. `nofollow` neither makes nor follows redirects; unlike `off` it
/// may be combined with `userxattr`.
const OPTIONS: [(&std::ffi::CStr, &std::ffi::CStr); 3] = [
    (c"redirect_dir", c"nofollow"),
    (c"metacopy", c"off"),
    (c"index", c"off"),
];

fn overlay_classic(lower: &[PathBuf], upper: Option<Upper<'_>>, target: &Path) -> io::Result<()> {
    // Descriptors keep the paths short, which is what limits their number here.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = lower
        .iter()
        .map(|layer| rustix::fs::open(layer, flags, Mode::empty()))
        .collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = opened
        .iter()
        .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .collect();
    let mut options = b"redirect_dir=nofollow,metacopy=off,index=off,lowerdir=".to_vec();
    options.extend(names.join(":").into_bytes());
    if is_user_xattr() {
        options.extend(b",userxattr");
    }
    let mut mount_flags = MountFlags::empty();
    match upper {
        Some((upper, work)) => {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                options.extend(format!(",{key}=").into_bytes());
                options.extend(escaped(path));
            }
            options.extend(b",volatile");
        }
        None => mount_flags |= MountFlags::RDONLY,
    }
    if options.len() > MAX_OPTIONS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} layers are too many for this kernel: it needs Linux 6.5 for them",
                lower.len()
            ),
        ));
    }
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(
        c"overlay",
        target,
        c"overlay",
        mount_flags,
        options.as_c_str(),
    )?)
}

/// Escapes the characters that separate overlay options.
fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b':' | b'\\') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text
}
