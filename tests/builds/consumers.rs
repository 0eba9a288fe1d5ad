//! The programs that take our images: skopeo, umoci, runc, podman, buildah, docker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::{TestEnv, run, tool, which};

/// What a container may do under docker, as far as servers need it.
const CAPABILITIES: [&str; 6] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// An image, unpacked into a bundle that runc can run.
pub(crate) struct Bundle {
    dir: PathBuf,
    id: String,
}

impl Bundle {
    /// Saves `image` as an OCI layout, lets umoci unpack it and returns the bundle.
    pub(crate) fn of(env: &TestEnv, image: &str) -> Self {
        let archive = env.path("layout.tar");
        let layout = env.path("layout");
        for left in [&archive, &layout] {
            let _ = fs::remove_file(left);
            let _ = fs::remove_dir_all(left);
        }
        env.ok(&[
            "save",
            "--format",
            "oci",
            "-o",
            archive.to_str().unwrap(),
            image,
        ]);
        fs::create_dir(&layout).unwrap();
        run(Command::new("tar")
            .arg("-C")
            .arg(&layout)
            .arg("-xf")
            .arg(&archive));
        let dir = env.path("bundle");
        let _ = fs::remove_dir_all(&dir);
        let tag = image.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        tool(
            "umoci",
            &[
                "unpack",
                "--image",
                &format!("{}:{tag}", layout.display()),
                dir.to_str().unwrap(),
            ],
        );
        let config = dir.join("config.json");
        let text = fs::read_to_string(&config).unwrap();
        let mut spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        spec["process"]["terminal"] = false.into();
        // umoci leaves a process fewer rights than docker does.
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = CAPABILITIES.into();
        }
        for set in ["inheritable", "ambient"] {
            spec["process"]["capabilities"][set] = serde_json::json!([]);
        }
        fs::write(&config, spec.to_string()).unwrap();
        Self {
            dir,
            id: format!("cooper-test-{}-{image}", std::process::id()).replace([':', '/'], "-"),
        }
    }

    /// Returns the unpacked root file system.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Runs the image's command to its end and returns what it printed.
    pub(crate) fn output(&self) -> String {
        let bundle = self.dir.to_str().unwrap();
        let runc = which("runc").unwrap();
        let mut command = Command::new(runc);
        command
            .args(["run", "--bundle", bundle, &self.id])
            .stdin(Stdio::null());
        String::from_utf8_lossy(&run(&mut command).stdout).into_owned()
    }

    /// Starts the image's command in the background.
    pub(crate) fn start(&self) -> Running<'_> {
        let child = Command::new(which("runc").unwrap())
            .args(["run", "--bundle", self.dir.to_str().unwrap(), &self.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Running {
            bundle: self,
            child,
        }
    }
}

/// A container that runs until it is dropped.
pub(crate) struct Running<'a> {
    bundle: &'a Bundle,
    child: Child,
}

impl Running<'_> {
    /// Runs a command inside until it succeeds (20 s at most) and returns what it printed.
    pub(crate) fn exec_until_ok(&self, args: &[&str]) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut command = Command::new(which("runc").unwrap());
            let output = command
                .arg("exec")
                .arg(&self.bundle.id)
                .args(args)
                .stdin(Stdio::null())
                .output();
            let output = output.unwrap();
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < end, "{args:?} never succeeded: {error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = Command::new(which("runc").unwrap())
            .args(["delete", "--force", &self.bundle.id])
            .output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Expects that skopeo, podman and buildah take the image as it stands.
pub(crate) fn accepted_by_all(env: &TestEnv, image: &str) {
    let archive = env.path("image.oci.tar");
    let _ = fs::remove_file(&archive);
    env.ok(&[
        "save",
        "--format",
        "oci",
        "-o",
        archive.to_str().unwrap(),
        image,
    ]);
    let archive = format!("oci-archive:{}", archive.display());
    let inspected = tool("skopeo", &["inspect", &archive]);
    assert!(inspected.contains("\"Digest\": \"sha256:"), "{inspected}");
    let copy = format!("dir:{}", env.path("copied").display());
    tool("skopeo", &["--insecure-policy", "copy", &archive, &copy]);
    let storage = env.path("containers");
    let storage = storage.to_str().unwrap();
    let vfs = [
        "--root",
        storage,
        "--runroot",
        storage,
        "--storage-driver",
        "vfs",
    ];
    tool(
        "buildah",
        &[&vfs[..], &["pull", "--policy", "always", &archive]].concat(),
    );
    let docker_archive = env.path("image.docker.tar");
    let _ = fs::remove_file(&docker_archive);
    env.ok(&["save", "-o", docker_archive.to_str().unwrap(), image]);
    let docker_archive = docker_archive.to_str().unwrap();
    let loaded = tool(
        "podman",
        &[&vfs[..], &["load", "-i", docker_archive]].concat(),
    );
    assert!(loaded.contains("Loaded image"), "{loaded}");
}

/// A docker daemon of our own, with no network and no state.
pub(crate) struct Dockerd {
    child: Child,
    dir: PathBuf,
}

impl Dockerd {
    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(which("dockerd").expect("dockerd is not installed"))
            .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
            .arg(format!("--host=unix://{}/sock", dir.display()))
            .arg(format!("--data-root={}/data", dir.display()))
            .arg(format!("--exec-root={}/exec", dir.display()))
            .arg(format!("--pidfile={}/pid", dir.display()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self {
            child,
            dir: dir.to_owned(),
        };
        let end = Instant::now() + Duration::from_secs(40);
        while !daemon
            .command(&["version"])
            .output()
            .unwrap()
            .status
            .success()
        {
            let log = fs::read_to_string(dir.join("log")).unwrap();
            assert!(Instant::now() < end, "dockerd does not answer\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
        daemon
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command
            .arg("--host")
            .arg(format!("unix://{}/sock", self.dir.display()))
            .args(args);
        command
    }

    /// Calls the docker client and returns what it printed.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&run(&mut self.command(args)).stdout).into_owned()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A registry of our own on a loopback port: Debian's docker-registry.
pub(crate) struct Registry {
    child: Child,
    _dir: tempfile::TempDir,
    port: u16,
}

impl Registry {
    /// Starts a registry that everybody may use.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "")
    }

    /// Starts a registry that knows one user.
    pub(crate) fn start_with_password(user: &str, password: &str) -> Self {
        let line = run(Command::new("htpasswd").args(["-nbB", user, password]));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("htpasswd");
        fs::write(&file, line.stdout).unwrap();
        let auth = format!(
            "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
            file.display()
        );
        Self::start_in(dir, &auth)
    }

    fn start_in(dir: tempfile::TempDir, auth: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(which("docker-registry").expect("docker-registry is installed"))
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            _dir: dir,
            port,
        }
    }

    /// Returns host and port.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
