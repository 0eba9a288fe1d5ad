//! The user's process: from a fork of pid 1 to the image that the step asks for.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};
use rustix::thread::CapabilitySet;

use super::{Failure, Tried, invalid};
use crate::executor::channel;
use crate::executor::order::{Order, Prepare, Report};
use crate::executor::spec::DEFAULT_PATH;
use crate::sys::root::{NewDirectory, Root};
use crate::sys::{caps, process};

/// Exit codes of shells: not found; found, but not runnable.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

/// Tells the executor what becomes of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller<'a> {
    channel: &'a OwnedFd,
    process: u32,
}

impl<'a> Teller<'a> {
    /// Speaks for the process that the container is there for.
    pub(super) fn first(channel: &'a OwnedFd) -> Self {
        Self::of(channel, 0)
    }

    /// Speaks for the process with a number.
    pub(super) fn of(channel: &'a OwnedFd, process: u32) -> Self {
        Self { channel, process }
    }

    /// Tells. When nobody listens any more there is nobody to tell.
    pub(super) fn tell(self, report: Report) {
        let report = match self.process {
            0 => report,
            process => Report::Further {
                process,
                report: Box::new(report),
            },
        };
        let _ = channel::send(self.channel, &report);
    }
}

/// Standard streams that were sent along, in their places.
pub(super) type Streams = [Option<OwnedFd>; 3];

/// Takes the streams of a process off the end of what was sent along.
pub(super) fn take_streams(order: &Order, descriptors: &mut Vec<OwnedFd>) -> io::Result<Streams> {
    let count = order.streams.iter().filter(|given| **given).count();
    let Some(first) = descriptors.len().checked_sub(count) else {
        return Err(invalid("a stream is missing"));
    };
    let mut given = descriptors.split_off(first).into_iter();
    Ok(order
        .streams
        .map(|is_given| if is_given { given.next() } else { None }))
}

/// Starts the process; returns its id to pid 1.
pub(super) fn start(
    prepare: &Prepare,
    order: &Order,
    streams: Streams,
    teller: &Teller<'_>,
) -> Result<Pid, Failure> {
    let args = strings(&order.args).tried("read the arguments")?;
    let env = strings(&order.env).tried("read the environment")?;
    if let Some(pid) = process::fork().tried("start a process")? {
        return Ok(pid);
    }
    let failure = match become_user(prepare, order, &streams) {
        Ok(()) => execute(order, &args, &env),
        Err(failure) => failure,
    };
    teller.tell(failure.report);
    process::exit_now(NOT_FOUND)
}

/// Puts the streams in their places; a terminal becomes the one that signals come from.
fn take_over(streams: &Streams, terminal: bool) -> io::Result<()> {
    let [stdin, stdout, stderr] = streams;
    if let Some(stream) = stdin {
        rustix::stdio::dup2_stdin(stream)?;
    }
    if let Some(stream) = stdout {
        rustix::stdio::dup2_stdout(stream)?;
    }
    if let Some(stream) = stderr {
        rustix::stdio::dup2_stderr(stream)?;
    }
    if let Some(stream) = streams.iter().flatten().next().filter(|_| terminal) {
        rustix::process::ioctl_tiocsctty(stream)?;
    }
    Ok(())
}

/// Returns the capabilities that the container's processes may have.
pub(super) fn allowed(prepare: &Prepare) -> io::Result<CapabilitySet> {
    if prepare.insecure {
        caps::permitted()
    } else {
        Ok(caps::DEFAULT)
    }
}

fn become_user(prepare: &Prepare, order: &Order, streams: &Streams) -> Result<(), Failure> {
    process::reset_signals().tried("reset signals")?;
    process::close_on_execute(3).tried("close descriptors")?;
    rustix::process::setsid().tried("start a session")?;
    take_over(streams, order.terminal).tried("connect the streams")?;
    set_limits(order)?;
    // As root: the directory may lie behind one that the user cannot enter.
    let early = enter_directory(order);
    let allowed = allowed(prepare).tried("read capabilities")?;
    caps::bound(allowed).tried("drop capabilities")?;
    set_ids(order).tried("change to the user")?;
    let keep = if order.uid == 0 {
        allowed
    } else {
        CapabilitySet::empty()
    };
    caps::set(keep).tried("drop capabilities")?;
    let entered = match early {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => enter_directory(order),
        other => other,
    };
    entered.tried(format!("enter the working directory {:?}", order.cwd))
}

fn set_ids(order: &Order) -> io::Result<()> {
    let groups: Vec<Gid> = order.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Enters the working directory, which is made when missing, and makes sure that it lies in
/// the container: a path through `/proc` could lead elsewhere (CVE-2024-21626).
fn enter_directory(order: &Order) -> io::Result<()> {
    match rustix::process::chdir(order.cwd.as_str()) {
        Err(rustix::io::Errno::NOENT) => {
            let new = NewDirectory {
                mode: 0o755,
                owner: Some((order.uid, order.gid)),
                mtime: None,
            };
            Root::open(Path::new("/"))?.mkdir_all(Path::new(&order.cwd), new)?;
            rustix::process::chdir(order.cwd.as_str())?;
        }
        other => other?,
    }
    // The kernel marks a directory outside the root with "(unreachable)" instead of a slash.
    let found = rustix::process::getcwd(Vec::new())?;
    if found.as_bytes().first() != Some(&b'/') {
        return Err(invalid("it is outside the container"));
    }
    Ok(())
}

fn set_limits(order: &Order) -> Result<(), Failure> {
    for (name, soft, hard) in &order.ulimits {
        let action = format!("set the limit {name}");
        let Some(resource) = resource(name) else {
            return Err(invalid("no such limit")).tried(action);
        };
        let limit = Rlimit {
            current: *soft,
            maximum: *hard,
        };
        rustix::process::setrlimit(resource, limit).tried(action)?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Finds a limit by its name.
fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Replaces the image; returns only when that failed.
fn execute(order: &Order, args: &[CString], env: &[CString]) -> Failure {
    let Some(program) = order.args.first() else {
        return cannot_start("there is no program to run".to_owned(), NOT_FOUND);
    };
    let candidates = candidates(program, search_path(&order.env));
    let mut denied = false;
    for candidate in &candidates {
        let Ok(path) = CString::new(candidate.as_str()) else {
            continue;
        };
        let is_search = candidates.len() > 1 || !program.contains('/');
        if is_search && !is_program(&path) {
            continue;
        }
        let error = process::execute(&path, args, env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) if is_search => {}
            Some(libc::EACCES) if is_search => denied = true,
            _ => return cannot_start(describe(&error), code_of(&error)),
        }
    }
    if denied {
        return cannot_start("permission denied".to_owned(), NOT_RUNNABLE);
    }
    cannot_start("executable file not found in $PATH".to_owned(), NOT_FOUND)
}

fn search_path(env: &[String]) -> &str {
    env.iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH)
}

/// Lists the places where a program may be.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.split(':')
        .map(|directory| match directory {
            "" => format!("./{program}"),
            directory => format!("{directory}/{program}"),
        })
        .collect()
}

/// Says whether there is a regular file that may be executed by somebody.
fn is_program(path: &CStr) -> bool {
    use rustix::fs::FileType;
    rustix::fs::stat(path).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
    })
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::E2BIG) => "argument list too long".to_owned(),
        _ => error.to_string(),
    }
}

fn code_of(error: &io::Error) -> i32 {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => NOT_FOUND,
        _ => NOT_RUNNABLE,
    }
}

fn cannot_start(reason: String, code: i32) -> Failure {
    Failure {
        report: Report::CannotStart { reason, code },
    }
}

fn strings(strings: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    strings
        .iter()
        .map(|string| CString::new(string.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_path() {
        for (program, path, expected) in [
            ("/bin/sh", "/usr/bin", &["/bin/sh"][..]),
            ("bin/sh", "/usr/bin", &["bin/sh"]),
            ("sh", "/usr/bin:/bin", &["/usr/bin/sh", "/bin/sh"]),
            ("sh", "/bin:", &["/bin/sh", "./sh"]),
        ] {
            assert_eq!(candidates(program, path), expected, "{program} {path}");
        }
        let env = ["A=1", "PATH=/x"].map(str::to_owned);
        assert_eq!(search_path(&env), "/x");
        assert_eq!(search_path(&env[..1]), DEFAULT_PATH);
    }
}
