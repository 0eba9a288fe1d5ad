//! Who a process is: `user[:group]` looked up in the root file system.
//!
//! `/etc/passwd` and `/etc/group` come from an image and are guilty until proven regular,
//! small and well-formed: they are opened inside the root, never as a pipe or device, and
//! ids outside the range of Linux are refused instead of wrapping round to root.

use std::io::{self, Read};
use std::path::Path;

use crate::sys::root::{Root, is_missing};

/// Most bytes of `/etc/passwd` or `/etc/group`.
pub(super) const MAX_DATABASE_BYTES: u64 = 10 << 20;

/// Largest id that is accepted, as in Docker.
const MAX_ID: u32 = i32::MAX as u32;

/// Most supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// A user as the kernel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; the primary one is among them.
    pub groups: Vec<u32>,
    /// Home directory; `/` when nothing says otherwise.
    pub home: String,
}

/// Why a user cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No line for the name.
    #[error("no user {0:?} in /etc/passwd of the image")]
    NoUser(String),
    /// No line for the name.
    #[error("no group {0:?} in /etc/group of the image")]
    NoGroup(String),
    /// An id that Linux does not have.
    #[error("id {0} is out of range")]
    OutOfRange(String),
    /// The file cannot be used.
    #[error("cannot read {path} of the image")]
    Unreadable {
        /// `/etc/passwd` or `/etc/group`.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Looks a user up in the files of a root file system.
pub fn resolve(root: &Root, user: &str) -> Result<Identity, UserError> {
    let passwd = read(root, "/etc/passwd");
    let group = read(root, "/etc/group");
    if user.is_empty() {
        // Nobody asked for anything in particular: broken files do no harm.
        let (passwd, group) = (passwd.unwrap_or_default(), group.unwrap_or_default());
        return Ok(find("0", &passwd, &group).unwrap_or_else(|_| Identity::root()));
    }
    find(user, &passwd?, &group?)
}

impl Identity {
    fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/".to_owned(),
        }
    }
}

/// Looks `user[:group]` up in the texts of `/etc/passwd` and `/etc/group`.
pub fn find(user: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name)?;
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid = fields.get(2)?.trim();
        // Digits are always an id, even if somebody has such a name.
        let is_it = number.map_or(fields[0] == name, |n| uid.parse() == Ok(n));
        is_it.then_some(fields)
    });
    let mut identity = Identity::root();
    match (&entry, number) {
        (Some(fields), _) => {
            identity.uid = required_number(fields[2].trim())?;
            // As elsewhere, a user without a group has that of root.
            let gid = fields.get(3).map_or("", |gid| gid.trim());
            identity.gid = required_number(if gid.is_empty() { "0" } else { gid })?;
        }
        (None, Some(number)) => identity.uid = number,
        (None, None) => return Err(UserError::NoUser(name.to_owned())),
    }
    if let Some(home) = home_of(identity.uid, passwd) {
        identity.home = home.to_owned();
    }
    match wanted_group.filter(|group| !group.is_empty()) {
        Some(wanted) => {
            identity.gid = find_group(wanted, group)?;
            identity.groups = vec![identity.gid];
        }
        None => {
            let member = entry.as_ref().map(|fields| fields[0]);
            identity.groups = groups_of(member, identity.gid, group);
        }
    }
    Ok(identity)
}

/// Finds the home of a user as runtimes do, which know its id only: that of its first name.
fn home_of(uid: u32, passwd: &str) -> Option<&str> {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let home = entries.find_map(|mut fields| {
        let is_it = fields.nth(2)?.trim().parse() == Ok(uid);
        is_it.then(|| fields.nth(2).unwrap_or_default())
    })?;
    (!home.is_empty()).then_some(home)
}

fn find_group(name: &str, group: &str) -> Result<u32, UserError> {
    let number = number(name)?;
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (entry, gid) = (fields.next()?, fields.nth(1)?.trim());
        number
            .map_or(entry == name, |n| gid.parse() == Ok(n))
            .then_some(gid)
    });
    match (found, number) {
        (Some(gid), _) => required_number(gid),
        (None, Some(number)) => Ok(number),
        (None, None) => Err(UserError::NoGroup(name.to_owned())),
    }
}

/// Lists the groups that name a user as a member, the primary one first.
fn groups_of(member: Option<&str>, primary: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![primary];
    let Some(member) = member else { return groups };
    let mut seen = std::collections::BTreeSet::from([primary]);
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let (Some(gid), Some(members)) = (fields.next(), fields.next()) else {
            continue;
        };
        if !members.split(',').any(|name| name.trim() == member) {
            continue;
        }
        if let Ok(gid) = gid.trim().parse::<u32>()
            && gid <= MAX_ID
            && groups.len() < MAX_GROUPS
            && seen.insert(gid)
        {
            groups.push(gid);
        }
    }
    groups
}

/// Reads a number; `None` for what is a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    required_number(text).map(Some)
}

fn required_number(text: &str) -> Result<u32, UserError> {
    text.parse::<u32>()
        .ok()
        .filter(|&number| number <= MAX_ID)
        .ok_or_else(|| UserError::OutOfRange(text.to_owned()))
}

/// Reads a database; a missing one is empty.
fn read(root: &Root, path: &'static str) -> Result<String, UserError> {
    let read = || -> io::Result<String> {
        let file = match root.open_read(Path::new(path)) {
            Err(error) if is_missing(&error) => return Ok(String::new()),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_DATABASE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_DATABASE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("larger than {MAX_DATABASE_BYTES} bytes"),
            ));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| UserError::Unreadable { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        nohome:x:7:7::\n\
        again:x:1000:1001:Again:/home/again:/bin/sh\n\
        nogroup:x:9:::/odd:\n\
        broken\n\
        huge:x:4294967296:0::/:/bin/sh\n\
        hugegid:x:8:99999999999::/:/bin/sh\n\
        12:x:13:13::/odd:\n";
    const GROUP: &str = "root:x:0:root\n\
        wheel:x:10:root,app\n\
        app:x:1001:\n\
        docker:x:999: app ,daemon\n\
        broken\n\
        bad:x:4294967296:app\n\
        again:x:10:app\n";

    #[test]
    fn finds_users_and_groups() {
        for (user, uid, gid, groups, home) in [
            ("root", 0, 0, &[0, 10][..], "/root"),
            ("0", 0, 0, &[0, 10], "/root"),
            ("app", 1000, 1001, &[1001, 10, 999], "/home/app"),
            ("1000", 1000, 1001, &[1001, 10, 999], "/home/app"),
            ("again", 1000, 1001, &[1001], "/home/app"),
            ("app:root", 1000, 0, &[0], "/home/app"),
            ("app:5", 1000, 5, &[5], "/home/app"),
            ("app:", 1000, 1001, &[1001, 10, 999], "/home/app"),
            (":wheel", 0, 10, &[10], "/root"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:4712", 4711, 4712, &[4712], "/"),
            ("nohome", 7, 7, &[7], "/"),
            ("nogroup", 9, 0, &[0], "/odd"),
            ("12", 12, 0, &[0], "/"),
            ("13", 13, 13, &[13], "/odd"),
            ("2147483647", 2_147_483_647, 0, &[0], "/"),
        ] {
            let found = find(user, PASSWD, GROUP).unwrap();
            let expected = Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            };
            assert_eq!(found, expected, "{user}");
        }
    }

    #[test]
    fn refuses_what_is_not_there_or_not_an_id() {
        for (user, message) in [
            ("nobody", "no user \"nobody\" in /etc/passwd of the image"),
            (
                "app:nobody",
                "no group \"nobody\" in /etc/group of the image",
            ),
            ("4294967296", "id 4294967296 is out of range"),
            ("4294967295", "id 4294967295 is out of range"),
            ("2147483648", "id 2147483648 is out of range"),
            ("-1", "id -1 is out of range"),
            ("huge", "id 4294967296 is out of range"),
            ("hugegid", "id 99999999999 is out of range"),
            ("app:4294967296", "id 4294967296 is out of range"),
            ("app:bad", "id 4294967296 is out of range"),
            ("broken", "no user \"broken\" in /etc/passwd of the image"),
        ] {
            let error = find(user, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn files_that_are_traps_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let etc = temp.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        let root = Root::open(temp.path()).unwrap();
        assert_eq!(resolve(&root, "").unwrap(), Identity::root());
        assert_eq!(resolve(&root, "5").unwrap().uid, 5);

        let pipe = Path::new("etc/passwd");
        root.mknod(pipe, crate::sys::metadata::FileKind::Fifo, 0o644, (0, 0))
            .unwrap();
        assert!(resolve(&root, "app").is_err());
        assert_eq!(resolve(&root, "").unwrap(), Identity::root());
        root.remove_all(pipe).unwrap();

        let outside = temp.path().parent().unwrap().join("passwd");
        root.symlink(outside.as_os_str(), pipe).unwrap();
        assert!(matches!(resolve(&root, "app"), Err(UserError::NoUser(_))));
        root.remove_all(pipe).unwrap();

        let file = root.create_file(pipe, 0o644).unwrap();
        file.set_len(MAX_DATABASE_BYTES + 1).unwrap();
        assert!(matches!(
            resolve(&root, "app"),
            Err(UserError::Unreadable {
                path: "/etc/passwd",
                ..
            })
        ));
    }
}
