//! Who owns what a file op makes: ids as given, names as the image's account files have them.

use std::io::{self, Read};
use std::path::Path;

use super::FileOpError;
use crate::sys::root::{self, Root};

/// Most bytes an account file may have.
const ACCOUNTS_BYTES_MAX: u64 = 10 << 20;

/// An entry of `/etc/passwd` or `/etc/group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    id: u32,
    /// The group of a user; nothing for a group.
    group: u32,
}

/// Finds a user by name; `None` when the image has none of that name.
///
/// Returns the user's id and group.
pub(super) fn user(image: &Root, name: &str) -> Result<Option<(u32, u32)>, FileOpError> {
    let account = find(image, "/etc/passwd", name, 3)?;
    Ok(account.map(|account| (account.id, account.group)))
}

/// Finds a group by name; `None` when the image has none of that name.
pub(super) fn group(image: &Root, name: &str) -> Result<Option<u32>, FileOpError> {
    let account = find(image, "/etc/group", name, 2)?;
    Ok(account.map(|account| account.id))
}

/// Looks for `name` in an account file, whose line has `needed` fields after the name.
fn find(
    image: &Root,
    file: &'static str,
    name: &str,
    needed: usize,
) -> Result<Option<Account>, FileOpError> {
    let failed = |source| FileOpError::Accounts { file, source };
    let mut opened = match image.open_read(Path::new(file)) {
        // An image without accounts has no user of that name.
        Err(error) if root::is_missing(&error) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    let mut bounded = (&mut opened).take(ACCOUNTS_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > ACCOUNTS_BYTES_MAX {
        return Err(failed(io::Error::other("larger than 10 MiB")));
    }
    let text = String::from_utf8_lossy(&bytes);
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        if fields.next() != Some(name) {
            continue;
        }
        let fields: Vec<&str> = fields.collect();
        let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok());
        // As for a process, a user without a group has that of root.
        let group = match fields.get(2) {
            Some(text) if needed == 3 && !text.is_empty() => number(2),
            _ => Some(0),
        };
        let (Some(id), Some(group)) = (number(1), group) else {
            let reason = format!("the entry of {name:?} has no valid number");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, reason)));
        };
        return Ok(Some(Account { id, group }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn finds_accounts_inside_the_image_only() {
        let temp = tempfile::tempdir().unwrap();
        let etc = temp.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let image = Root::open(temp.path()).unwrap();
        assert_eq!(user(&image, "app").unwrap(), None);
        let users = "root:x:0:0:root:/root:/bin/sh\n\n# comment\napp:x:1000:1001::/:\nbad:x:4294967296:1\nshort:x\n\
                     alone:x:7::\nodd:x:7:wheel\n";
        fs::write(etc.join("passwd"), users).unwrap();
        fs::write(etc.join("group"), "root:x:0:\nstaff:x:50:app\n").unwrap();
        for (name, expected) in [
            ("root", Some((0, 0))),
            ("app", Some((1000, 1001))),
            ("alone", Some((7, 0))),
            ("nobody", None),
            ("# comment", None),
        ] {
            assert_eq!(user(&image, name).ok().flatten(), expected, "{name}");
        }
        assert!(user(&image, "bad").is_err());
        assert!(user(&image, "short").is_err());
        assert!(user(&image, "odd").is_err());
        assert_eq!(group(&image, "staff").unwrap(), Some(50));
        assert_eq!(group(&image, "app").unwrap(), None);
    }

    #[test]
    fn refuses_account_files_that_are_none() {
        let temp = tempfile::tempdir().unwrap();
        let etc = temp.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let image = Root::open(temp.path()).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let passwd = etc.join("passwd");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &passwd,
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
        // A pipe would be waited for, for ever.
        assert!(user(&image, "app").is_err());
        let group_file = fs::File::create(etc.join("group")).unwrap();
        group_file.set_len(ACCOUNTS_BYTES_MAX + 1).unwrap();
        assert!(group(&image, "app").is_err());
        fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/shadow-of-host", &passwd).unwrap();
        assert_eq!(user(&image, "root").unwrap(), None);
    }
}
