//! Extended attributes of open objects, bounded and sorted by name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Largest list of names the kernel returns.
const MAX_LIST: usize = 64 * 1024;
/// Largest value the kernel returns.
const MAX_VALUE: usize = 64 * 1024;

/// Extended attributes by name.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

/// Reads all attributes of an open file or directory (not of an `O_PATH` descriptor).
///
/// A file system without attributes has none; that is not an error.
pub fn read(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    collect(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

/// Reads all attributes of the object behind an `O_PATH` descriptor, links included.
pub fn read_handle(fd: &OwnedFd) -> io::Result<Xattrs> {
    let path = proc_path(fd);
    collect(
        |buffer| rustix::fs::listxattr(path.as_str(), buffer),
        |name, buffer| rustix::fs::getxattr(path.as_str(), name, buffer),
    )
}

/// Reads one attribute of an open file or directory; `None` when it is not there.
pub fn get(fd: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    value_of(|buffer| rustix::fs::fgetxattr(fd, name, buffer))
}

/// Sets an attribute of an open file or directory.
pub fn set(fd: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Sets an attribute of the object behind an `O_PATH` descriptor, links included.
pub fn set_handle(fd: &OwnedFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(
        proc_path(fd).as_str(),
        name,
        value,
        XattrFlags::empty(),
    )?)
}

/// Removes an attribute of the object behind an `O_PATH` descriptor; missing is fine.
pub fn remove_handle(fd: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::removexattr(proc_path(fd).as_str(), name) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Names the object behind a descriptor: the link leads to it without resolving any name.
pub(crate) fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let mut found = Xattrs::new();
    // Nearly every file has none: ask with a small buffer on the stack first.
    let mut small = [0_u8; 256];
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(found),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; MAX_LIST];
            let length = list(&mut large)?;
            large.truncate(length);
            large
        }
        Err(error) => return Err(error.into()),
    };
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsStr::from_bytes(name);
        if let Some(value) = value_of(|buffer| get(name, buffer))? {
            found.insert(OsString::from_vec(name.as_bytes().to_vec()), value);
        }
    }
    Ok(found)
}

fn value_of(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0_u8; 256];
    match get(&mut small) {
        Ok(length) => Ok(Some(small[..length].to_vec())),
        Err(Errno::RANGE) => {
            let mut large = vec![0_u8; MAX_VALUE];
            let length = get(&mut large)?;
            large.truncate(length);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
