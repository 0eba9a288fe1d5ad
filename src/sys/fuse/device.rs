//! Mounting, and passing messages between the kernel's device and a socket.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

use super::wire::{self, Answer, Request};
use crate::sys::{detached, mount};

/// Bytes of the largest message from the kernel that is taken; those of a read-only file system
/// are a name long.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the largest answer: one read, as large as the kernel makes them without being asked,
/// or one list.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A mounted file system that waits to be served.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<OwnedFd>,
    buffer: Vec<u8>,
}

/// Takes answers, from any thread and in any order.
#[derive(Debug, Clone)]
pub struct Replies(Arc<OwnedFd>);

impl Connection {
    /// Mounts a file system on `target`, read-only, for everybody who can reach that place.
    pub fn mount(target: &Path) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (sender, receiver) = sync_channel(1);
        let (number, path) = (theirs.as_raw_fd(), target.to_owned());
        std::thread::Builder::new()
            .name("fuse".into())
            .spawn(move || serve_device(number, path, &sender))?;
        let mounted = receiver.recv();
        // From here on only the thread's table has it.
        drop(theirs);
        mounted.map_err(|_| io::Error::other("the thread of the mount ended"))??;
        Ok(Self {
            socket: Arc::new(ours),
            buffer: vec![0; REQUEST_BYTES_MAX],
        })
    }

    /// Returns what takes the answers.
    pub fn replies(&self) -> Replies {
        Replies(Arc::clone(&self.socket))
    }

    /// Waits for the next request; `None` when the file system is gone for good.
    pub fn receive(&mut self) -> io::Result<Option<Request>> {
        loop {
            let received = rustix::net::recv(&self.socket, &mut self.buffer, RecvFlags::empty());
            let count = match received {
                Ok((0, _)) => return Ok(None),
                Ok((count, _)) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // What makes no sense has no sender that could be answered.
            if let Some(request) = Request::parse(&self.buffer[..count]) {
                return Ok(Some(request));
            }
        }
    }

    /// Waits so long for a request; says whether there is one, or the end.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&*self.socket, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap_or_default();
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Replies {
    /// Answers a request. A file system that is gone needs no answers.
    pub fn send(&self, unique: u64, answer: &Answer) {
        if let Some(message) = wire::encode(unique, answer) {
            let _ = send(&self.0, &message);
        }
    }
}

/// Says whether a thread is about to be killed.
pub fn is_killed(thread: u32) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
    let status = status.unwrap_or_default();
    let pending = status.lines().filter_map(|line| {
        let (name, signals) = line.split_once(':')?;
        let is_pending = matches!(name, "SigPnd" | "ShdPnd");
        u64::from_str_radix(signals.trim(), 16)
            .ok()
            .filter(|_| is_pending)
    });
    pending.fold(0, |all, signals| all | signals) & KILL != 0
}

/// The first of the two threads: mounts, then passes on what the kernel asks.
fn serve_device(number: RawFd, target: PathBuf, mounted: &SyncSender<io::Result<()>>) {
    let started = keep_only(number).and_then(|socket| {
        let device = mount_device(&target)?;
        Ok((socket, device))
    });
    // Nothing of this thread may hold the path's memory for the life of the mount.
    drop(target);
    let (socket, device) = match started {
        Ok(started) => started,
        Err(error) => return drop(mounted.send(Err(error))),
    };
    if mounted.send(Ok(())).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        let answers = || pass_answers(&socket, &device);
        let answering = std::thread::Builder::new().name("fuse".into());
        if answering.spawn_scoped(scope, answers).is_ok() {
            pass_requests(&device, &socket);
        }
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
    });
}

/// Gives this thread, and those it starts, a table of descriptors with standard streams and one
/// more; returns that one.
#[allow(
    unsafe_code,
    reason = "nothing safe gives a thread its own descriptors"
)]
fn keep_only(number: RawFd) -> io::Result<OwnedFd> {
    const FIRST: libc::c_uint = 3;
    let kept = libc::c_uint::try_from(number).map_err(io::Error::other)?;
    let ranges = [
        (kept + 1, libc::c_uint::MAX),
        (FIRST, kept.saturating_sub(1)),
    ];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: the call makes the table of this thread its own before it closes anything, so
        // descriptors that others own stay open for them. This thread owns none: it was handed
        // a path, a channel and a number.
        let result = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                last,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the number is open in this thread's own table, and nobody else here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Opens the device and hangs its file system on `target`.
fn mount_device(target: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())
        .map_err(|error| named("/dev/fuse", error.into()))?;
    let number = CString::new(device.as_raw_fd().to_string())?;
    let user = CString::new(rustix::process::geteuid().as_raw().to_string())?;
    let group = CString::new(rustix::process::getegid().as_raw().to_string())?;
    let options = [
        (c"fd", Some(number.as_c_str())),
        (c"rootmode", Some(c"40000")),
        (c"user_id", Some(user.as_c_str())),
        (c"group_id", Some(group.as_c_str())),
        (c"default_permissions", None),
        (c"allow_other", None),
    ];
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let made = detached::filesystem(c"fuse", &options, attributes);
    let made = made.map_err(|error| named("mounting with fuse", error))?;
    mount::move_to(&made, target)?;
    Ok(device)
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Passes on requests until the file system is unmounted, or nobody answers any more: who waits
/// for an answer then is told when the device is closed.
fn pass_requests(device: impl AsFd, socket: &OwnedFd) {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let mut fds = [
            PollFd::new(&device, PollFlags::IN),
            PollFd::new(socket, PollFlags::empty()),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(&device, &mut buffer) {
            Ok(count) => {
                if send(socket, &buffer[..count]).is_err() {
                    return;
                }
            }
            // The one who asked does not want to know any more.
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
            // Unmounted.
            Err(_) => return,
        }
    }
}

fn pass_answers(socket: &OwnedFd, device: impl AsFd) {
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => return,
            // Fails where nobody waits for the answer any more.
            Ok((count, _)) => drop(rustix::io::write(&device, &buffer[..count])),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    loop {
        match rustix::net::send(socket, message, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}
