//! Processes: starting one in new namespaces, forking, waiting, signals, program images.
//!
//! [`spawn`] starts a program from a process with threads. Its child shares the memory of the
//! parent until it has replaced its image, as `vfork` does, so nothing is copied; it makes
//! nothing but raw system calls, so no lock that another thread holds can stop it.
//! [`fork`] and [`fork_sibling`] copy the process and are for single-threaded ones only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of stack for the child of [`spawn`] until it has replaced its image.
const STACK: usize = 64 * 1024;

/// Lowest descriptor that the sources of [`Spawn::descriptors`] are moved to, past every target.
const FIRST_FREE: i32 = 64;

/// A program to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, opened with `O_PATH`.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the first being its name.
    pub args: &'a [CString],
    /// Its descriptors: the first becomes 0 and so on; it gets no others.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// A process that was started.
#[derive(Debug)]
pub struct Child {
    /// Its id in our namespace.
    pub pid: Pid,
    /// A handle on it that never means another process; readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Starts a program with an empty environment.
#[allow(unsafe_code, reason = "clone with shared memory has no safe wrapper")]
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Child> {
    let moved: Vec<OwnedFd> = spawn
        .descriptors
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE))
        .collect::<Result<_, _>>()?;
    let program = rustix::io::fcntl_dupfd_cloexec(spawn.program, FIRST_FREE)?;
    let args = pointers(spawn.args);
    let environment = [std::ptr::null()];
    let mut plan = Plan {
        program: program.as_raw_fd(),
        sources: moved.iter().map(AsRawFd::as_raw_fd).collect(),
        args: args.as_ptr(),
        environment: environment.as_ptr(),
        error: 0,
    };
    let mut stack = vec![0_u8; STACK];
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let blocked = SignalsBlocked::new()?;
    // SAFETY: the child runs `child_main` on a stack of its own and this thread stands still
    // until it has replaced its image or ended, so `plan`, `stack` and what they point to
    // outlive its use of them. Signals are blocked, so no handler runs in the child. The
    // stack grows down from its end, which is aligned by `align_down`.
    let pid = unsafe {
        let top = align_down(stack.as_mut_ptr().add(STACK));
        libc::clone(
            child_main,
            top.cast(),
            flags,
            (&raw mut plan).cast(),
            &raw mut pidfd,
        )
    };
    let error = io::Error::last_os_error();
    drop(blocked);
    let pid = Pid::from_raw(pid.max(0)).ok_or(error)?;
    // SAFETY: the kernel stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let child = Child { pid, pidfd };
    if plan.error != 0 {
        child.wait()?;
        return Err(io::Error::from_raw_os_error(plan.error));
    }
    Ok(child)
}

impl Child {
    /// Sends a signal; a process that has ended is fine.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns something to await the end of the process with. Needs a tokio runtime.
    pub fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watch(self.pidfd.try_clone()?, Interest::READABLE)
    }

    /// Waits for the end of the process and takes its status, once.
    pub fn wait(&self) -> io::Result<()> {
        use rustix::process::{WaitId, WaitIdOptions};
        loop {
            let id = WaitId::PidFd(self.pidfd.as_fd());
            match rustix::process::waitid(id, WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Makes something to await what happens to a descriptor with. Needs a tokio runtime.
#[allow(unsafe_code, reason = "tokio wants a promise about descriptors")]
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// What [`child_main`] needs, prepared where memory may be allocated.
struct Plan {
    program: i32,
    sources: Vec<i32>,
    args: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    error: i32,
}

/// Runs in the child, in the memory of the parent: raw system calls only.
#[allow(unsafe_code, reason = "the code between clone and exec")]
extern "C" fn child_main(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a pointer to its plan and waits; nobody else uses it meanwhile.
    let plan = unsafe { &mut *argument.cast::<Plan>() };
    // SAFETY: system calls on descriptors and strings that the plan keeps alive. Sources lie
    // above every target, so none is overwritten before it was copied. The descriptor table
    // is the child's own copy.
    unsafe {
        for (target, source) in plan.sources.iter().enumerate() {
            if libc::dup2(*source, target as i32) < 0 {
                plan.error = *libc::__errno_location();
                return 127;
            }
        }
        let first = plan.sources.len() as libc::c_uint;
        let flag = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flag) < 0 {
            plan.error = *libc::__errno_location();
            return 127;
        }
        libc::syscall(
            libc::SYS_execveat,
            plan.program,
            c"".as_ptr(),
            plan.args,
            plan.environment,
            libc::AT_EMPTY_PATH,
        );
        plan.error = *libc::__errno_location();
    }
    127
}

/// Rounds an address down to a multiple of 16, as calling conventions want stacks.
fn align_down(pointer: *mut u8) -> *mut u8 {
    pointer.map_addr(|address| address & !15)
}

/// All signals blocked in this thread until dropped.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    #[allow(unsafe_code, reason = "signal masks have no safe wrapper")]
    fn new() -> io::Result<Self> {
        // SAFETY: both sets are plain data that the calls fill.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            check(libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const all,
                &raw mut before,
            ))?;
            Ok(Self { before })
        }
    }
}

impl Drop for SignalsBlocked {
    #[allow(unsafe_code, reason = "signal masks have no safe wrapper")]
    fn drop(&mut self) {
        // SAFETY: `before` was filled by the kernel.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}

fn check(number: libc::c_int) -> io::Result<()> {
    match number {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// Blocks all signals in a single-threaded process, for good.
pub fn block_signals() -> io::Result<()> {
    std::mem::forget(SignalsBlocked::new()?);
    Ok(())
}

/// Blocks all signals in a single-threaded process and returns a descriptor that is readable
/// when a child has ended.
#[allow(unsafe_code, reason = "signalfd has no safe wrapper")]
pub fn watch_children() -> io::Result<OwnedFd> {
    block_signals()?;
    // SAFETY: the set is plain data; the descriptor is new and ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Gives a program, when it is started, a mask for the files it makes.
#[allow(unsafe_code, reason = "code between fork and exec has no safe wrapper")]
pub fn set_umask(command: &mut tokio::process::Command, mask: u32) {
    let set = move || {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        Ok(())
    };
    // SAFETY: between fork and exec runs one system call, which allocates and locks nothing.
    unsafe { command.pre_exec(set) };
}

/// Gives a program, when it is started, a session whose terminal is its standard input.
#[allow(unsafe_code, reason = "code between fork and exec has no safe wrapper")]
pub fn set_terminal(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        rustix::process::setsid()?;
        Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
    };
    // SAFETY: between fork and exec run two system calls, which allocate and lock nothing.
    unsafe { command.pre_exec(set) };
}

/// Gives every signal its default action and lets all of them through, as a new program
/// expects to find them.
#[allow(unsafe_code, reason = "signal actions have no safe wrapper")]
pub fn reset_signals() -> io::Result<()> {
    for number in 1..=64 {
        // SAFETY: the default action runs no code of ours. Numbers that the C library keeps
        // for itself and the two that cannot be changed are refused, which is fine.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    // SAFETY: the set is plain data.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::pthread_sigmask(
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut(),
        ))
    }
}

/// Copies this process; returns the child's id to the parent and `None` to the child.
///
/// The child has only the calling thread, so this is refused where there are others.
#[allow(
    unsafe_code,
    reason = "fork is unsafe for processes with threads, refused here"
)]
pub fn fork() -> io::Result<Option<Pid>> {
    refuse_threads()?;
    // SAFETY: there is no other thread that could hold a lock.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Copies this process into new namespaces; returns the copy's id to the caller and `None` to the
/// copy, which is a child of the caller's parent.
///
/// The copy has only the calling thread, so this is refused where there are others.
#[allow(unsafe_code, reason = "clone has no safe wrapper")]
pub fn fork_sibling(namespaces: UnshareFlags) -> io::Result<Option<Pid>> {
    refuse_threads()?;
    let flags = libc::CLONE_PARENT | namespaces.bits().cast_signed();
    // SAFETY: without a new stack the copy goes on where this process stands, with memory of
    // its own; there is no other thread that could hold a lock.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        0 => Ok(None),
        pid if pid > 0 => Ok(i32::try_from(pid).ok().and_then(Pid::from_raw)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn refuse_threads() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() != 1) {
        return Err(io::Error::other("fork from a process with threads"));
    }
    Ok(())
}

/// Replaces the image of this process; returns only when that failed.
#[allow(unsafe_code, reason = "execve is not in rustix")]
pub fn execute(program: &CStr, args: &[CString], environment: &[CString]) -> io::Error {
    let (args, environment) = (pointers(args), pointers(environment));
    // SAFETY: all strings are terminated, both lists end with a null pointer, and all of it
    // lives through the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, running no destructors: for the child of [`fork`].
#[allow(unsafe_code, reason = "_exit runs no cleanup")]
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing is expected to happen afterwards.
    unsafe { libc::_exit(code) }
}

/// Takes a descriptor that this process inherited by number, if it is a packet socket.
///
/// Anybody may start our program in any way, so the number alone proves nothing. Call it
/// before anything else opens descriptors.
#[allow(
    unsafe_code,
    reason = "an inherited descriptor is known by its number only"
)]
pub fn inherited_packets(number: i32) -> Option<OwnedFd> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    // SAFETY: used only to ask the kernel what it is, which answers with an error when closed.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    let is_packets = sockopt::socket_type(socket) == Ok(SocketType::SEQPACKET)
        && sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX);
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: the descriptor is open, and nothing in this process owns it.
    is_packets.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Marks every descriptor from `first` on to be closed by the next program.
#[allow(unsafe_code, reason = "close_range has no safe wrapper")]
pub fn close_on_execute(first: u32) -> io::Result<()> {
    // SAFETY: changes only what happens at the next exec.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a process ended and what it used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub pid: i32,
    /// Its exit code, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Time it and its children computed.
    pub cpu: Duration,
    /// Most memory that it or one of its children held.
    pub max_rss_bytes: u64,
}

/// Takes the status of a child that has ended, if there is one.
#[allow(
    unsafe_code,
    reason = "wait4 tells the resources, which rustix does not"
)]
pub fn reap() -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: both arguments are plain data that the kernel fills.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage);
        (pid, usage)
    };
    match pid {
        0 => return Ok(None),
        pid if pid < 0 => {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ECHILD) => Ok(None),
                _ => Err(error),
            };
        }
        _ => {}
    }
    Ok(Some(Ended {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }))
}

/// Sends a signal to every process of this pid namespace but this one.
#[allow(unsafe_code, reason = "kill with -1 is not in rustix")]
pub fn signal_all_others(signal: i32) {
    // SAFETY: a system call without pointers. It fails only where there is nobody to signal.
    unsafe { libc::kill(-1, signal) };
}

/// Starts a new, empty session keyring, so that the keys of the caller are out of reach.
///
/// Kernels without keys, and filters that forbid them, are fine: nothing is in reach there.
#[allow(unsafe_code, reason = "keyctl has no safe wrapper")]
pub fn new_keyring() {
    /// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        );
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn open_path(path: &str) -> OwnedFd {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_spawned_program_has_its_descriptors_and_no_others() {
        let program = open_path("/bin/sh");
        let null = open_path("/dev/null");
        let (read, write) = rustix::pipe::pipe().unwrap();
        let args = ["sh", "-c", "echo /proc/self/fd/*; exit 3"].map(|a| CString::new(a).unwrap());
        let child = spawn(&Spawn {
            program: program.as_fd(),
            args: &args,
            descriptors: &[null.as_fd(), write.as_fd(), null.as_fd()],
        })
        .unwrap();
        drop(write);
        let mut output = String::new();
        std::fs::File::from(read)
            .read_to_string(&mut output)
            .unwrap();
        child.wait().unwrap();
        child.signal(rustix::process::Signal::TERM).unwrap();
        let expected = "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2";
        assert!(output.starts_with(expected), "{output}");
        // The shell itself holds one descriptor of the directory while it lists it.
        assert!(output.split_whitespace().count() <= 4, "{output}");
    }

    #[test]
    fn a_program_that_cannot_start_is_an_error() {
        let program = open_path("/etc/passwd");
        let args = [CString::new("passwd").unwrap()];
        let error = spawn(&Spawn {
            program: program.as_fd(),
            args: &args,
            descriptors: &[],
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn many_threads_may_spawn_at_once() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let program = open_path("/bin/true");
                    let args = [CString::new("true").unwrap()];
                    for _ in 0..50 {
                        let child = spawn(&Spawn {
                            program: program.as_fd(),
                            args: &args,
                            descriptors: &[],
                        });
                        child.unwrap().wait().unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
