//! The five real builds of `examples/`, each built, run and handed to other tools.

use std::fs;
use std::process::Command;

use crate::consumers::{Bundle, Dockerd, accepted_by_all};
use crate::env::{TestEnv, ready};

#[test]
fn a_web_server_serves_a_page() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    let context = env.example("nginx");
    env.ok(&["build", "-t", "web:1.0", context.to_str().unwrap()]);
    let bundle = Bundle::of(&env, "web:1.0");
    let log = bundle.rootfs().join("var/log/nginx/access.log");
    assert_eq!(fs::read_link(log).unwrap().to_str(), Some("/dev/stdout"));
    let server = bundle.start();
    let request = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let page = server.exec_until_ok(&["bash", "-c", request]);
    assert!(
        page.contains("200 OK") && page.contains("cooper built"),
        "{page}"
    );
    let inspected: serde_json::Value =
        serde_json::from_str(&env.ok(&["inspect", "web:1.0"]).0).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(
        config["ExposedPorts"],
        serde_json::json!({"443/tcp": {}, "80/tcp": {}})
    );
    assert_eq!(
        config["Cmd"],
        serde_json::json!(["nginx", "-g", "daemon off;"])
    );
    drop(server);
    accepted_by_all(&env, "web:1.0");
}

#[test]
fn a_static_program_ends_up_alone_in_its_image() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    let context = env.example("static-c");
    let context_arg = context.to_str().unwrap();
    let iid = env.path("iid");
    let build = [
        "build",
        "-t",
        "hello:1.0",
        "--iidfile",
        iid.to_str().unwrap(),
        context_arg,
    ];
    env.ok(&build);
    let first = fs::read_to_string(&iid).unwrap();
    let bundle = Bundle::of(&env, "hello:1.0");
    assert_eq!(bundle.output(), "hello, world\n");
    let size = fs::metadata(bundle.rootfs().join("hello")).unwrap().len();
    assert!(size < 2_000_000, "{size} bytes");

    fs::write(context.join("NOTES"), "a comment changed\n").unwrap();
    let (_, progress) = env.ok(&build);
    assert!(
        progress.contains(", 0 MISS,"),
        "an unused file changed and something ran:\n{progress}"
    );
    let touch = format!("find {context_arg} -exec touch {{}} +");
    assert!(
        Command::new("sh")
            .args(["-c", &touch])
            .status()
            .unwrap()
            .success()
    );
    let (_, progress) = env.ok(&build);
    assert!(
        progress.contains(", 0 MISS,"),
        "files were touched and something ran:\n{progress}"
    );
    assert_eq!(fs::read_to_string(&iid).unwrap(), first);
    let (history, _) = env.ok(&["history", "hello:1.0"]);
    let newest = history.lines().nth(1).unwrap();
    assert!(
        newest.contains("CMD [\"world\"]"),
        "the newest step stands first:\n{history}"
    );
    accepted_by_all(&env, "hello:1.0");

    let archive = env.path("hello.tar");
    env.ok(&["save", "-o", archive.to_str().unwrap(), "hello:1.0"]);
    let daemon = Dockerd::start(&env.path("docker"));
    let loaded = daemon.docker(&["load", "-i", archive.to_str().unwrap()]);
    assert!(loaded.contains("hello:1.0"), "{loaded}");
    let entrypoint = daemon.docker(&["inspect", "-f", "{{.Config.Entrypoint}}", "hello:1.0"]);
    assert_eq!(entrypoint, "[/hello]\n");
}

#[test]
fn a_python_service_answers_as_its_own_user() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    let context = env.example("python");
    env.ok(&["build", "-t", "service:1.0", context.to_str().unwrap()]);
    let bundle = Bundle::of(&env, "service:1.0");
    let server = bundle.start();
    let ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read())";
    let answer = server.exec_until_ok(&["python3", "-c", ask]);
    assert!(answer.contains("hello from a heredoc."), "{answer}");
    assert_eq!(server.exec_until_ok(&["id", "-u"]), "10001\n");
    drop(server);
    let inspected: serde_json::Value =
        serde_json::from_str(&env.ok(&["inspect", "service:1.0"]).0).unwrap();
    let health = &inspected[0]["Config"]["Healthcheck"];
    assert_eq!(health["Interval"], 5_000_000_000_i64);
    assert_eq!(health["Retries"], 3);
    accepted_by_all(&env, "service:1.0");
}

#[test]
fn a_node_app_builds_and_tests_side_by_side() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    let context = env.example("node");
    let context = context.to_str().unwrap();
    let (_, progress) = env.ok(&["build", "--target", "test", "--progress", "plain", context]);
    assert!(progress.contains("npm test"), "{progress}");
    assert!(
        !progress.contains("npm run build"),
        "--target test needs no build:\n{progress}"
    );
    env.ok(&["build", "-t", "node-app:1.0", context]);
    assert_eq!(
        Bundle::of(&env, "node-app:1.0").output(),
        "42 is a number\n"
    );
    accepted_by_all(&env, "node-app:1.0");
}

#[test]
fn a_rust_workspace_builds_with_a_borrowed_toolchain() {
    if !ready() {
        return;
    }
    let env = TestEnv::shared();
    let context = env.example("rust");
    let sysroot = crate::env::tool("rustc", &["--print", "sysroot"]);
    let toolchain = format!("toolchain={}", sysroot.trim());
    let context = context.to_str().unwrap();
    env.ok(&[
        "build",
        "--build-context",
        &toolchain,
        "-t",
        "rust-app:1.0",
        context,
    ]);
    assert_eq!(Bundle::of(&env, "rust-app:1.0").output(), "counted to 1\n");
    accepted_by_all(&env, "rust-app:1.0");
}
