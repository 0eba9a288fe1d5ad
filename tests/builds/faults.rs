//! Bad input and bad luck: one clear error, the right exit code, and the next build works.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::consumers::Registry;
use crate::env::{TestEnv, ready, run, tool};

/// Exit codes of docs/exit-codes.md that these tests expect.
const BUILD_FAILED: i32 = 1;
const USER_ERROR: i32 = 3;
const CONFIG_ERROR: i32 = 4;
const REGISTRY_ERROR: i32 = 5;

const GOOD: &str = "FROM busybox\nCOPY a /a\nRUN cat /a > /b\n";

/// Expects that a good build works on the store.
fn next_build_works(env: &TestEnv) {
    env.write("good/Dockerfile", GOOD);
    env.write("good/a", "a\n");
    env.ok(&["build", "-t", "good", env.path("good").to_str().unwrap()]);
}

#[test]
fn bad_dockerfiles_are_refused_with_place_and_advice() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    for (text, code, expected) in [
        ("", USER_ERROR, "no instructions"),
        ("# only a comment\n", USER_ERROR, "no instructions"),
        ("FROM busybox\nCOPPY a b\n", USER_ERROR, "COPY"),
        ("FROM busybox\nCOPY --chwon=1 a b\n", USER_ERROR, "--chown"),
        (
            "FROM busybox\nRUN --mount=type=bind,bind-propagation=shared true\n",
            USER_ERROR,
            "bind-propagation",
        ),
        ("FROM busybox\nCOPY absent /\n", USER_ERROR, "absent"),
        (
            "FROM busybox AS a\nFROM a\nCOPY --from=b x y\n",
            REGISTRY_ERROR,
            "b",
        ),
        ("FROM 127.0.0.1:1/absent\n", REGISTRY_ERROR, "127.0.0.1:1"),
        ("FROM Bad:Name:here\n", USER_ERROR, "Bad"),
        ("FROM busybox\nRUN exit 7\n", BUILD_FAILED, "exit code: 7"),
        (
            "FROM busybox\nUSER nobody-here\nRUN true\n",
            USER_ERROR,
            "nobody-here",
        ),
    ] {
        env.write("bad/Dockerfile", text);
        let stderr = env.fails(code, &["build", env.path("bad").to_str().unwrap()]);
        assert!(
            stderr.contains(expected),
            "{text:?} should mention {expected:?}:\n{stderr}"
        );
    }
    let stderr = env.fails(
        USER_ERROR,
        &["build", env.path("nowhere").to_str().unwrap()],
    );
    assert!(stderr.contains("nowhere"), "{stderr}");
    fs::create_dir(env.path("empty")).unwrap();
    let stderr = env.fails(USER_ERROR, &["build", env.path("empty").to_str().unwrap()]);
    assert!(stderr.contains("Dockerfile"), "{stderr}");
    next_build_works(&env);
}

#[test]
fn a_failing_step_shows_command_place_and_output() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    env.write(
        "bad/Dockerfile",
        "FROM busybox\nENV A=1\nRUN echo first words && false\n",
    );
    let stderr = env.fails(BUILD_FAILED, &["build", env.path("bad").to_str().unwrap()]);
    for expected in [
        "exit code: 1",
        "Dockerfile:3",
        ">>>",
        "first words",
        "echo first words",
    ] {
        assert!(
            stderr.contains(expected),
            "{expected:?} is missing:\n{stderr}"
        );
    }
}

#[test]
fn fifos_and_sockets_in_a_context_never_block() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    env.write("odd/Dockerfile", "FROM busybox\nCOPY . /all\nRUN ls /all\n");
    tool("mkfifo", &[env.path("odd/fifo").to_str().unwrap()]);
    let _socket = std::os::unix::net::UnixListener::bind(env.path("odd/socket")).unwrap();
    symlink("/etc/passwd", env.path("odd/link")).unwrap();
    env.ok(&[
        "build",
        "--progress",
        "plain",
        env.path("odd").to_str().unwrap(),
    ]);
    for name in ["Dockerfile", ".dockerignore"] {
        let _ = fs::remove_file(env.path("odd").join(name));
        tool("mkfifo", &[env.path("odd").join(name).to_str().unwrap()]);
        env.fails(USER_ERROR, &["build", env.path("odd").to_str().unwrap()]);
        fs::remove_file(env.path("odd").join(name)).unwrap();
        env.write("odd/Dockerfile", "FROM busybox\n");
    }
}

#[test]
fn files_that_a_plain_user_may_not_read_are_named() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    env.write("context/Dockerfile", "FROM scratch\nCOPY . /\n");
    env.write("context/sub/secret", "s\n");
    fs::copy(env!("CARGO_BIN_EXE_cooper"), env.path("cooper")).unwrap();
    fs::create_dir(env.path("home")).unwrap();
    let modes = [
        ("", 0o755),
        ("context/sub/secret", 0o600),
        ("home", 0o777),
        ("cooper", 0o755),
    ];
    for (name, mode) in modes {
        fs::set_permissions(env.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let build = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.env("HOME", env.path("home"));
        command.arg(env.path("cooper")).args(["build", "--root"]);
        command.arg(env.path("home/store")).arg(env.path("context"));
        command.current_dir(env.path("home")).output().unwrap()
    };
    let output = build();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(USER_ERROR), "{stderr}");
    assert!(stderr.contains("cannot read \"sub/secret\""), "{stderr}");

    let folder = fs::Permissions::from_mode(0o700);
    fs::set_permissions(env.path("context/sub"), folder).unwrap();
    let output = build();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(USER_ERROR), "{stderr}");
    assert!(stderr.contains("cannot read \"sub\""), "{stderr}");
}

#[test]
fn a_registry_is_pulled_from_and_pushed_to() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let env = TestEnv::fresh();
    let name = format!("{}/team/app:1.0", registry.host());
    env.write("app/Dockerfile", "FROM busybox\nRUN echo built > /built\n");
    env.ok(&[
        "build",
        "-t",
        &name,
        "--push",
        env.path("app").to_str().unwrap(),
    ]);
    let remote = format!("docker://{name}");
    assert!(tool("skopeo", &["inspect", "--tls-verify=false", &remote]).contains("sha256:"));

    let other = TestEnv::fresh();
    other.write(
        "app/Dockerfile",
        &format!("FROM {name}\nRUN grep built /built\n"),
    );
    other.ok(&["build", other.path("app").to_str().unwrap()]);
    other.ok(&["pull", &name]);
    let wrong = name.replace("1.0", "2.0");
    let stderr = other.fails(REGISTRY_ERROR, &["pull", &wrong]);
    assert!(stderr.contains(&wrong), "{stderr}");
    let digest = format!("{}/team/app@sha256:{}", registry.host(), "0".repeat(64));
    other.fails(REGISTRY_ERROR, &["pull", &digest]);
}

#[test]
fn wrong_credentials_are_named() {
    if !ready() {
        return;
    }
    let registry = Registry::start_with_password("user", "right");
    let env = TestEnv::fresh();
    let name = format!("{}/app:1", registry.host());
    let login = |password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
        let config = serde_json::json!({"auths": {registry.host(): {"auth": auth}}});
        env.write("docker/config.json", &config.to_string());
    };
    env.ok(&["tag", "busybox", &name]);
    let push = || {
        let mut command = env.cooper(&["push", &name]);
        command
            .env("DOCKER_CONFIG", env.path("docker"))
            .output()
            .unwrap()
    };
    login("wrong");
    let output = push();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REGISTRY_ERROR), "{stderr}");
    assert!(
        stderr.contains("401") || stderr.contains("credentials"),
        "{stderr}"
    );
    assert!(
        !stderr.contains("wrong"),
        "a password is never printed: {stderr}"
    );
    login("right");
    assert!(push().status.success());
}

#[test]
fn a_corrupt_blob_is_named_and_the_store_heals() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    next_build_works(&env);
    let inspected: serde_json::Value =
        serde_json::from_str(&env.ok(&["inspect", "good"]).0).unwrap();
    let layer = inspected[0]["Manifest"]["layers"][1]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let blob = env.store().join("blobs/sha256").join(&layer[7..]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let archive = env.path("good.tar");
    let stderr = env.fails(
        CONFIG_ERROR,
        &["save", "-o", archive.to_str().unwrap(), "good"],
    );
    assert!(stderr.contains(&layer), "{stderr}");
    assert!(!archive.exists(), "a failed save leaves no file");
}

#[test]
fn no_space_is_said_and_the_store_stays_usable() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    let small = env.path("small");
    fs::create_dir(&small).unwrap();
    tool(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=24m",
            "tmpfs",
            small.to_str().unwrap(),
        ],
    );
    let result = std::panic::catch_unwind(|| {
        run(Command::new("cp")
            .arg("-a")
            .arg(env.store())
            .arg(small.join("store")));
        let store = small.join("store");
        env.write(
            "big/Dockerfile",
            "FROM busybox\nRUN head -c 60000000 /dev/urandom > /big\n",
        );
        env.write("good/Dockerfile", GOOD);
        env.write("good/a", "a\n");
        let build = |context: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
            command
                .arg("--root")
                .arg(&store)
                .arg("build")
                .arg(env.path(context));
            command.stdin(Stdio::null()).output().unwrap()
        };
        let output = build("big");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(stderr.to_lowercase().contains("no space"), "{stderr}");
        let output = build("good");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
    tool("umount", &["-l", small.to_str().unwrap()]);
    result.unwrap();
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    env.write("file", "not a folder");
    env.write("good/Dockerfile", GOOD);
    let store = env.path("file/store");
    let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
        .args([
            "--root",
            store.to_str().unwrap(),
            "build",
            env.path("good").to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(CONFIG_ERROR), "{stderr}");
    assert!(stderr.contains(store.to_str().unwrap()), "{stderr}");
}

#[test]
fn a_killed_build_loses_nothing_finished_and_leaves_nothing() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    env.write(
        "slow/Dockerfile",
        "FROM busybox\nRUN echo kept > /kept\nRUN sleep 0.4; echo x > /x\n",
    );
    let context = env.path("slow");
    let context = context.to_str().unwrap();
    for round in 0..12 {
        let mut child = env
            .cooper(&["build", "-t", "slow", context])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * round));
        let _ = child.kill();
        child.wait().unwrap();
    }
    // However slow the machine is: killed when the first step is done and the second one runs.
    let mut child = env
        .cooper(&["build", "-t", "slow", "--progress", "plain", context])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = shown
        .map_while(Result::ok)
        .any(|line| line.contains("RUN sleep 0.4"));
    let _ = child.kill();
    child.wait().unwrap();
    assert!(begun, "the second step never ran");
    let (_, progress) = env.ok(&["build", "-t", "slow", "--progress", "plain", context]);
    assert!(
        !progress.contains("MISS RUN echo kept"),
        "finished work was lost:\n{progress}"
    );
    let store = env.store().to_str().unwrap().to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&store), "a mount was left");
    let sleeping = Command::new("pgrep")
        .args(["-f", "sleep 0.4"])
        .output()
        .unwrap();
    assert!(sleeping.stdout.is_empty(), "a process was left");
}

/// Returns the process from which a build copies its containers, if there is one now.
fn zygote_of(build: u32) -> Option<rustix::process::Pid> {
    let own = fs::read_link("/proc/self/ns/pid").ok()?;
    let parent = format!("\nPPid:\t{build}\n");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut zygotes = processes.filter(|process| {
        let of_process = |name: &str| process.path().join(name);
        let name = fs::read(of_process("cmdline")).unwrap_or_default();
        let status = fs::read_to_string(of_process("status")).unwrap_or_default();
        // Its copies are in namespaces of their own.
        let namespace = fs::read_link(of_process("ns/pid"));
        name == b"cooper-step\0"
            && status.contains(&parent)
            && namespace.is_ok_and(|namespace| namespace == own)
    });
    let pid = zygotes.next()?.file_name();
    rustix::process::Pid::from_raw(pid.to_str()?.parse().ok()?)
}

#[test]
fn containers_start_although_what_they_are_copied_from_was_killed() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    let steps: String = (0..12)
        .map(|n| format!("RUN sleep 0.1; echo {n}\n"))
        .collect();
    env.write("many/Dockerfile", &format!("FROM busybox\n{steps}"));
    let mut build = env
        .cooper(&["build", env.path("many").to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = BTreeSet::new();
    let status = loop {
        if let Some(status) = build.try_wait().unwrap() {
            break status;
        }
        let zygote = zygote_of(build.id());
        if let Some(zygote) = zygote.filter(|zygote| seen.insert(zygote.as_raw_nonzero()))
            && seen.len() == 1
        {
            // It may be at its end already.
            let _ = rustix::process::kill_process(zygote, rustix::process::Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    assert_eq!(seen.len(), 2, "the killed one and another");
}

#[test]
fn an_interrupted_build_ends_with_130_and_leaves_nothing() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    env.write("long/Dockerfile", "FROM busybox\nRUN sleep 6543\n");
    let child = env
        .cooper(&["build", env.path("long").to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = child;
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let started = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(4));
    let left = Command::new("pgrep")
        .args(["-f", "sleep 6543"])
        .output()
        .unwrap();
    assert!(left.stdout.is_empty(), "a process was left");
}

#[test]
fn sixteen_builds_at_once_on_one_store_are_all_right() {
    if !ready() {
        return;
    }
    let env = TestEnv::fresh();
    let mut children = Vec::new();
    for number in 0..16 {
        let own = format!("RUN echo {number} > /own\n");
        let shared = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /shared\n";
        env.write(&format!("c{number}/Dockerfile"), &format!("{shared}{own}"));
        let context = env.path(&format!("c{number}"));
        let name = format!("many:{number}");
        let mut command = env.cooper(&["build", "-t", &name, context.to_str().unwrap()]);
        children.push(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let mut shared = std::collections::BTreeSet::new();
    for number in 0..16 {
        let name = format!("many:{number}");
        let inspected: serde_json::Value =
            serde_json::from_str(&env.ok(&["inspect", &name]).0).unwrap();
        let diff_ids = inspected[0]["RootFS"]["Layers"].as_array().unwrap().clone();
        assert_eq!(diff_ids.len(), 3);
        shared.insert(diff_ids[1].as_str().unwrap().to_owned());
    }
    assert_eq!(shared.len(), 1, "the shared step ran once");
}
