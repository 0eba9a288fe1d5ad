//! Images into container engines: docker, podman and containerd of Debian, each with a store of
//! its own. Only what an engine lacks travels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::consumers::Dockerd;
use crate::env::{TestEnv, ready, run, which};

/// Writes a build context with a layer that stays and one that says `text`.
fn context(env: &TestEnv, text: &str) -> PathBuf {
    env.write(
        "context/Dockerfile",
        "FROM busybox\nCOPY large /\nCOPY small /\nCMD [\"cat\", \"/small\"]\n",
    );
    env.write("context/large", &"large ".repeat(100_000));
    env.write("context/small", text);
    env.path("context")
}

/// Builds and loads; returns how many blobs the engine fetched.
fn load(env: &TestEnv, variables: &[(&str, &str)], args: &[&str]) -> usize {
    let context = env.path("context");
    let mut command = env.cooper(&["build", "--progress=plain"]);
    command.args(args).arg(context);
    for (name, value) in variables {
        command.env(name, value);
    }
    let shown = String::from_utf8_lossy(&run(&mut command).stderr).into_owned();
    let sent = shown.lines().filter_map(|line| {
        let (_, rest) = line.split_once("sending sha256:")?;
        Some(rest.split(' ').next()?.to_owned())
    });
    sent.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn docker_gets_only_what_it_lacks() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    context(&env, "one");
    let docker = Dockerd::start(&env.path("docker"));
    let host = format!("unix://{}/sock", env.path("docker").display());
    let host = [("DOCKER_HOST", host.as_str())];
    let names = ["-t", "app:1", "-t", "registry.example/team/app:2"];
    let with = |option| [&[option][..], &names].concat();
    // The base image, two layers, and the config.
    assert_eq!(load(&env, &host, &with("--load")), 4);
    let images = docker.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut images: Vec<&str> = images.lines().collect();
    images.sort_unstable();
    assert_eq!(images, ["app:1", "registry.example/team/app:2"]);
    let inspect = |format: &str| docker.docker(&["image", "inspect", "-f", format, "app:1"]);
    assert_eq!(inspect("{{.Config.Cmd}}").trim(), "[cat /small]");
    assert_eq!(inspect("{{.RepoDigests}}").trim(), "[]");
    // It is the image that cooper has.
    let inspected = env.ok(&["inspect", "app:1"]).0;
    let id = inspect("{{.Id}}");
    assert!(inspected.contains(id.trim()), "{id} {inspected}");
    // An image that is there gets its names.
    assert_eq!(load(&env, &host, &["-o", "type=docker", "-t", "again"]), 0);
    assert_eq!(load(&env, &host, &with("--load=docker")), 0);
    context(&env, "two");
    assert_eq!(load(&env, &host, &with("--load")), 2);
    let text = ["run", "--rm", "--network=none", "app:1"];
    assert_eq!(docker.docker(&text), "two");
    // Without a name it comes as an archive.
    context(&env, "three");
    assert_eq!(load(&env, &host, &["--load"]), 0);
    let all = docker.docker(&["images", "--quiet"]);
    // Two names of the second image, one of the first, none of the third.
    assert_eq!(all.lines().count(), 4, "{all}");
    assert!(docker.docker(&["images"]).contains("<none>"));
}

#[test]
fn docker_behind_its_program_gets_an_archive() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    context(&env, "one");
    let docker = Dockerd::start(&env.path("docker"));
    let meta = format!(
        r#"{{"Name":"here","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"unix://{}/sock"}}}}}}"#,
        env.path("docker").display()
    );
    // The folder's name is the SHA-256 of the context's.
    let folder = run(Command::new("sh").args(["-c", "printf here | sha256sum"])).stdout;
    let folder = String::from_utf8_lossy(&folder)[..64].to_owned();
    env.write(&format!("config/contexts/meta/{folder}/meta.json"), &meta);
    let config = env.path("config").display().to_string();
    let variables = [("DOCKER_CONFIG", config.as_str()), ("DOCKER_HOST", "")];
    let output = ["-o", "type=docker,context=here", "-t", "app:1"];
    assert_eq!(load(&env, &variables, &output), 4);
    // An address that only the program knows how to reach: here the same engine.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unreachable = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = {
        let mut command = env.cooper(&["build", "--load", "-t", "app:2"]);
        command
            .arg(env.path("context"))
            .env("DOCKER_HOST", &unreachable);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(
        error.contains("cannot load the image into docker"),
        "{error}"
    );
    let images = docker.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(images.trim(), "app:1");
}

#[test]
fn podman_gets_only_what_it_lacks() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    context(&env, "one");
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
        env.path("podman").display()
    );
    let config = env.write("storage.conf", &storage);
    let variables = [("CONTAINERS_STORAGE_CONF", config.to_str().unwrap())];
    let podman = |args: &[&str]| {
        let mut command = Command::new(which("podman").expect("podman is installed"));
        let output = run(command.args(args).envs(variables));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let args = ["--load=podman", "-t", "app:1"];
    assert_eq!(load(&env, &variables, &args), 4);
    let names = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(names.trim(), "docker.io/library/app:1");
    assert_eq!(load(&env, &variables, &args), 0);
    context(&env, "two");
    assert_eq!(load(&env, &variables, &args), 2);
    let mounted = podman(&["image", "mount", "app:1"]);
    let small = Path::new(mounted.trim()).join("small");
    assert_eq!(fs::read_to_string(small).unwrap(), "two");
    podman(&["image", "unmount", "app:1"]);
}

#[test]
fn containerd_gets_only_what_it_lacks() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    context(&env, "one");
    let containerd = Containerd::start(&env.path("containerd"));
    let socket = containerd.socket().display().to_string();
    let variables = [
        ("CONTAINERD_ADDRESS", socket.as_str()),
        ("CONTAINERD_NAMESPACE", "test"),
        ("CONTAINERD_SNAPSHOTTER", "native"),
    ];
    let ctr = |args: &[&str]| {
        let mut command = Command::new(which("ctr").expect("ctr is installed"));
        let output = run(command.args(args).envs(variables));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let args = ["--load=containerd", "-t", "app:1"];
    assert_eq!(load(&env, &variables, &args), 4);
    let names = ctr(&["images", "list", "--quiet"]);
    assert_eq!(names.trim(), "docker.io/library/app:1");
    assert_eq!(load(&env, &variables, &args), 0);
    context(&env, "two");
    assert_eq!(load(&env, &variables, &args), 2);
    let mount = env.path("mounted");
    fs::create_dir(&mount).unwrap();
    let target = mount.to_str().unwrap();
    ctr(&["images", "mount", "docker.io/library/app:1", target]);
    let text = fs::read_to_string(mount.join("small"));
    ctr(&["images", "unmount", target]);
    assert_eq!(text.unwrap(), "two");
}

/// A containerd of our own.
struct Containerd {
    child: Child,
    dir: PathBuf,
}

impl Containerd {
    fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let config = dir.join("config.toml");
        // Only what images need; `native` copies, so any file system will do.
        let text = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(which("containerd").expect("containerd is installed"))
            .arg("--config")
            .arg(config)
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--state")
            .arg(dir.join("state"))
            .arg("--address")
            .arg(dir.join("sock"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self {
            child,
            dir: dir.to_owned(),
        };
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            let mut command = Command::new(which("ctr").expect("ctr is installed"));
            let answered = command
                .arg("--address")
                .arg(containerd.socket())
                .arg("version");
            if answered.output().unwrap().status.success() {
                return containerd;
            }
            let log = fs::read_to_string(dir.join("log")).unwrap();
            assert!(Instant::now() < end, "containerd does not answer\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
