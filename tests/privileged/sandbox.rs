//! A root file system out of a static busybox, and containers that run in it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cooper::executor::{Executor, ExecutorError, ExecutorOptions, Exit, ProcessSpec};
use cooper::oci::Digest;
use cooper::progress::{Event, LogStream, Progress, Sink, Timed};
use cooper::snapshot::RootMount;
use tokio_util::sync::CancellationToken;

const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Programs that the root has.
const APPLETS: &str = "sh ls cat echo true false id env sleep grep wc ps mount umount mkdir rm mv ln chmod \
    chown touch stat readlink test hostname wget nc ip ifconfig ping sort head tail sed awk dd \
    find mknod kill seq pwd printf sync nproc tr od cut unshare df nslookup date";

/// A busybox root with an executor.
pub(crate) struct Sandbox {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) executor: Executor,
    next: AtomicU32,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Exit, ExecutorError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) warnings: Vec<String>,
    /// What the run changed.
    pub(crate) upper: PathBuf,
}

impl Outcome {
    /// Returns the exit code; panics where nothing ran.
    pub(crate) fn code(&self) -> i32 {
        match &self.result {
            Ok(exit) => exit.code,
            Err(error) => panic!("{error}: {}\n{}", chain(error), self.stderr),
        }
    }

    /// Returns the output of a run that must have succeeded.
    pub(crate) fn output(&self) -> &str {
        assert_eq!(self.code(), 0, "{}{}", self.stdout, self.stderr);
        self.stdout.trim_end()
    }

    /// Lists what the run changed, sorted.
    pub(crate) fn changes(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.upper, &self.upper, &mut found);
        found.sort();
        found
    }
}

fn list(base: &Path, directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.strip_prefix(base).unwrap().display().to_string());
        if path.is_dir() && !path.is_symlink() {
            list(base, &path, found);
        }
    }
}

/// Writes an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Says whether these tests can run; prints why not. `REQUIRE_ROOT=1` makes that a failure.
pub(crate) fn can_run() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if busybox().is_none() {
        "no static busybox at /bin/busybox"
    } else {
        return true;
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "tests have no command line of their own"
    )]
    let is_required = std::env::var_os("REQUIRE_ROOT").is_some_and(|value| value == "1");
    assert!(!is_required, "REQUIRE_ROOT=1, but: {reason}");
    println!("SKIPPED: {reason}");
    false
}

fn busybox() -> Option<&'static Path> {
    BUSYBOX.iter().map(Path::new).find(|path| path.exists())
}

impl Sandbox {
    /// Makes a root and an executor; `None` where that cannot be.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    /// The same with changed options.
    pub(crate) fn with(change: impl FnOnce(&mut ExecutorOptions)) -> Option<Self> {
        if !can_run() {
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        make_root(&temp.path().join("root"));
        let mut options = ExecutorOptions::new(temp.path().join("state"));
        options.helper = Some(PathBuf::from(env!("CARGO_BIN_EXE_cooper")));
        change(&mut options);
        let executor = Executor::new(&options).unwrap();
        Some(Self {
            temp,
            executor,
            next: AtomicU32::new(0),
        })
    }

    /// The directory of the root that all runs have as their lowest layer.
    pub(crate) fn root(&self) -> PathBuf {
        self.temp.path().join("root")
    }

    /// A fresh overlay on the root.
    pub(crate) fn overlay(&self) -> RootMount {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let base = self.temp.path().join(format!("run{number}"));
        let (upper, work) = (base.join("upper"), base.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        RootMount::Overlay {
            lower: vec![self.root()],
            upper,
            work,
        }
    }

    /// A spec that runs a script with the shell.
    pub(crate) fn script(&self, script: &str) -> ProcessSpec {
        ProcessSpec::new(self.overlay(), ["/bin/sh", "-c", script])
    }

    /// Runs a script with the shell and changes to the spec.
    pub(crate) fn sh(&self, script: &str, change: impl FnOnce(&mut ProcessSpec)) -> Outcome {
        let mut spec = self.script(script);
        change(&mut spec);
        self.run(&spec)
    }

    /// Runs a spec.
    pub(crate) fn run(&self, spec: &ProcessSpec) -> Outcome {
        runtime().block_on(self.start(spec, &CancellationToken::new()))
    }

    /// Runs a spec that may be cancelled.
    pub(crate) async fn start(&self, spec: &ProcessSpec, cancel: &CancellationToken) -> Outcome {
        let collector = Arc::new(Collector::default());
        let log = Progress::new(collector.clone()).of_vertex(Digest::of(b"step"));
        let result = self.executor.run(spec, &log, cancel).await;
        let text =
            |stream: &Mutex<Vec<u8>>| String::from_utf8_lossy(&stream.lock().unwrap()).into_owned();
        Outcome {
            result,
            stdout: text(&collector.stdout),
            stderr: text(&collector.stderr),
            warnings: collector.warnings.lock().unwrap().clone(),
            upper: match &spec.root {
                RootMount::Overlay { upper, .. } => upper.clone(),
                RootMount::Directory(path) => path.clone(),
            },
        }
    }
}

/// Counts the processes of the machine that were started as `sleep TIME`.
pub(crate) fn sleepers(time: &str) -> usize {
    let ending = format!("sleep\0{time}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| {
            std::fs::read(process.path().join("cmdline"))
                .is_ok_and(|line| line.ends_with(ending.as_bytes()))
        })
        .count()
}

/// A runtime for one test.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn make_root(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var/lib"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\napp:x:1001:\nextra:x:2000:app\n";
    std::fs::write(root.join("etc/group"), group).unwrap();
}

#[derive(Default)]
struct Collector {
    stdout: Mutex<Vec<u8>>,
    stderr: Mutex<Vec<u8>>,
    warnings: Mutex<Vec<String>>,
}

impl Sink for Collector {
    fn event(&self, event: Timed) {
        match event.event {
            Event::Log { stream, data, .. } => {
                let to = match stream {
                    LogStream::Stdout => &self.stdout,
                    LogStream::Stderr => &self.stderr,
                };
                to.lock().unwrap().extend(data);
            }
            Event::Warning(warning) => self.warnings.lock().unwrap().push(warning.short),
            _ => {}
        }
    }
}
