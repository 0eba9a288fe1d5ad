//! What a whole build needs: the binary, a store of its own, base images made of packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A folder and a store for one test, gone when dropped.
pub(crate) struct TestEnv {
    dir: tempfile::TempDir,
    store: PathBuf,
}

/// Says whether whole builds can run here; prints why not, or fails where they must.
pub(crate) fn ready() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("root".to_owned())
    } else {
        ["debootstrap", "runc", "umoci", "skopeo"]
            .iter()
            .find(|tool| which(tool).is_none())
            .map(|tool| (*tool).to_owned())
    };
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var_os("REQUIRE_ROOT").is_none(),
        "whole builds need {missing}"
    );
    eprintln!("skipped: whole builds need {missing}");
    false
}

/// Finds a program.
pub(crate) fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let with_sbin = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    with_sbin
        .map(|dir: PathBuf| dir.join(tool))
        .find(|file| file.is_file())
}

/// Returns the folder that outlives one run: base images are made once.
fn shared_dir() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("whole-builds");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Returns the store that all whole builds share, with `debian:12` and `busybox` in it.
pub(crate) fn shared_store() -> &'static Path {
    static STORE: OnceLock<PathBuf> = OnceLock::new();
    STORE.get_or_init(|| {
        let store = shared_dir().join("store");
        make_base_images(&store, "debian:12 busybox");
        store
    })
}

/// Makes base images in a store unless they are there; their root file systems are kept.
fn make_base_images(store: &Path, images: &str) {
    let dir = shared_dir();
    let lock = fs::File::create(dir.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let script = format!(
        "set -euo pipefail; . scripts/lib.sh; export COOPER_ROOT={store}
         for image in {images}; do
             {cooper} inspect $image >/dev/null 2>&1 && continue
             root={dir}/${{image%:*}}
             if [ ! -e $root.done ]; then
                 rm -rf $root; make_${{image%:*}}_root $root; touch $root.done
             fi
             base_image {cooper} $image $root
         done",
        store = store.display(),
        dir = dir.display(),
        cooper = env!("CARGO_BIN_EXE_cooper"),
    );
    run(Command::new("bash")
        .arg("-c")
        .arg(script)
        .current_dir(env!("CARGO_MANIFEST_DIR")));
}

impl TestEnv {
    /// Uses the shared store, in which base images and earlier results are cached.
    pub(crate) fn shared() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            store: shared_store().to_owned(),
        }
    }

    /// Uses a store of its own that holds `busybox` and nothing else.
    pub(crate) fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("busybox.tar");
        let shared = Self {
            dir: tempfile::tempdir().unwrap(),
            store: shared_store().to_owned(),
        };
        shared.ok(&["save", "-o", archive.to_str().unwrap(), "busybox"]);
        let env = Self {
            store: dir.path().join("store"),
            dir,
        };
        env.ok(&["load", "-i", archive.to_str().unwrap()]);
        env
    }

    /// Uses a store of its own with a `busybox` made on the spot: no other image is needed.
    pub(crate) fn busybox() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        make_base_images(&store, "busybox");
        Self { dir, store }
    }

    /// Uses a store of its own with nothing in it.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        Self { dir, store }
    }

    /// Returns a path inside the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the store.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Writes a file below the test's folder, with its parents.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Copies an example to the test's folder and returns where it is.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        let to = self.path(name);
        run(Command::new("cp").arg("-r").arg(from).arg(&to));
        to
    }

    /// Prepares a call of the binary on this store.
    pub(crate) fn cooper(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
        command
            .arg("--root")
            .arg(&self.store)
            .args(args)
            .current_dir(self.dir.path());
        command
            .env_remove("BUILDKIT_PROGRESS")
            .stdin(std::process::Stdio::null());
        command
    }

    /// Calls the binary and expects success; returns stdout and stderr.
    pub(crate) fn ok(&self, args: &[&str]) -> (String, String) {
        let output = run(&mut self.cooper(args));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    /// Calls the binary and expects the exit code; returns stderr.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.cooper(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "cooper {args:?}\n{stderr}"
        );
        stderr
    }
}

/// Runs a command and expects success.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Runs a program with arguments, expects success, returns its standard output.
pub(crate) fn tool(program: &str, args: &[&str]) -> String {
    let path = which(program).unwrap_or_else(|| panic!("{program} is not installed"));
    String::from_utf8_lossy(&run(Command::new(path).args(args)).stdout).into_owned()
}
