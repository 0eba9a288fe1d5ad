//! Frontends that are programs in images: `tests/support/frontend` in an image, asked for with
//! `# syntax=…`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::{TestEnv, ready, run, tool};
use crate::faulty_registry::Registry;
use crate::git_server::GitServer;

/// The image of the frontend.
const FRONTEND: &str = "example.org/test/frontend:1";
/// Longest that a build which is told to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A store with the frontend in it, and a build context that asks for it.
struct Fixture {
    env: TestEnv,
}

impl Fixture {
    fn new() -> Self {
        let env = TestEnv::busybox();
        let program = Path::new(env!("CARGO_BIN_EXE_cooper")).with_file_name("examples");
        let program = program.join("test-frontend");
        assert!(
            program.is_file(),
            "{program:?} is missing: cargo build --example test-frontend"
        );
        let image = env.path("frontend");
        let listed = run(Command::new("ldd").arg(&program));
        let listed = String::from_utf8(listed.stdout).unwrap();
        let words = listed.split_whitespace();
        let libraries = words
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from);
        for library in libraries {
            let target = image.join("root").join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(library, target).unwrap();
        }
        fs::copy(program, image.join("root/frontend")).unwrap();
        env.write(
            "frontend/Dockerfile",
            "FROM scratch\nCOPY root /\nENTRYPOINT [\"/frontend\"]\n\
             LABEL moby.buildkit.frontend.network.none=true\n\
             LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs\n",
        );
        env.ok(&["build", "-t", FRONTEND, image.to_str().unwrap()]);
        env.write(
            "context/Dockerfile",
            &format!("# syntax={FRONTEND} with words\nthe last line"),
        );
        env.write("context/a.txt", "abcd");
        env.write("context/b.bin", "");
        env.write("context/secret", "hunter2");
        std::os::unix::fs::symlink("a.txt", env.path("context/link")).unwrap();
        std::os::unix::fs::symlink("/../../secret", env.path("context/out")).unwrap();
        Self { env }
    }

    /// Returns the arguments of a build in which the frontend does something.
    fn args<'a>(&self, task: &'a str, more: &[&'a str]) -> Vec<String> {
        let context = self.env.path("context");
        let mut args = vec!["build".to_owned(), "--progress=plain".to_owned()];
        args.push(format!("--build-arg=DO={task}"));
        args.push("--build-arg=IMAGE=busybox".to_owned());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args.push(context.to_str().unwrap().to_owned());
        args
    }

    /// Builds into a folder and returns what the frontend was told.
    fn told(&self, task: &str, more: &[&str]) -> String {
        let out = self.env.path("out");
        let output = format!("--output=type=local,dest={}", out.display());
        let mut all = vec![output.as_str()];
        all.extend(more);
        self.ok(task, &all);
        fs::read_to_string(out.join("told")).unwrap()
    }

    fn ok(&self, task: &str, more: &[&str]) -> (String, String) {
        let args = self.args(task, more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.env.ok(&args)
    }

    fn fails(&self, code: i32, task: &str, more: &[&str]) -> String {
        let args = self.args(task, more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.env.fails(code, &args)
    }

    /// Starts a build and waits until its frontend runs.
    fn started(&self, task: &str) -> std::process::Child {
        use std::io::{BufRead, BufReader};
        let args = self.args(task, &[]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = self.env.cooper(&args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = lines.any(|line| line.unwrap().contains("run the frontend"));
        assert!(running, "the frontend was not run");
        // Somebody has to read on.
        std::thread::spawn(move || lines.count());
        child
    }
}

#[test]
fn a_frontend_reads_files_and_makes_an_image() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let told = fixture.told("files", &["--target=wanted"]);
    let expected = "dockerfile: \"the last line\"\n\
                    command line: example.org/test/frontend:1 with words\n\
                    target: wanted\n\
                    a.txt 644 4\n\
                    piece: bc\n\
                    link: a.txt\n\
                    secret: open secret: no such file or directory\n\
                    ../../../etc/passwd: open ../../../etc/passwd: no such file or directory\n\
                    out: open out: no such file or directory\n\
                    \"\": no such ref: the empty result has no files\n\
                    \"result-99\": no such ref: result-99\n\
                    inputs: 0";
    assert_eq!(told, expected);
    fixture.ok("files", &["--target=wanted", "-t", "made:1"]);
    let inspected: serde_json::Value =
        serde_json::from_str(&fixture.env.ok(&["inspect", "made:1"]).0).unwrap();
    assert_eq!(inspected[0]["Config"]["Cmd"], serde_json::json!(["/told"]));
    assert_eq!(inspected[0]["Config"]["Labels"]["by"], "frontend");
    let (_, shown) = fixture.ok("files", &["--target=wanted", "-t", "made:1"]);
    assert!(shown.contains("0 MISS"), "{shown}");
}

#[test]
fn a_folder_of_the_user_becomes_a_layer() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let out = fixture.env.path("whole");
    let output = format!("--output=type=local,dest={}", out.display());
    fixture.ok("context", &[&output]);
    assert_eq!(fs::read_to_string(out.join("a.txt")).unwrap(), "abcd");
    assert!(out.join("link").is_symlink());
}

#[test]
fn work_is_handed_to_the_built_in_frontend() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    assert_eq!(fixture.told("dockerfile", &["--build-arg=SAID=so"]), "so\n");
    let given = fs::read_to_string(fixture.env.path("out/given")).unwrap();
    assert_eq!(given, "by the frontend");
}

#[test]
fn a_frontend_runs_processes_in_containers() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let expected = "again: AlreadyExists\n\
                    second: (\"afar\\n\", 4)\n\
                    terminal: \"9 33 is one\" 0\n\
                    absent: 255\n\
                    helper: (\"\", 0)\n\
                    made: \"x\\n\"\n\
                    main: (\"what it reads\\ninside\\nfrom a result\", 5)\n\
                    note: \"changed\\n\"\n\
                    mount 2 of the container has no files to read\n\
                    released: NotFound\n\
                    late: container \"c\" previously released or not created";
    assert_eq!(fixture.told("containers", &[]), expected);
    // An external runtime does the same, and its container ends with the first process, too.
    for runtime in ["runc", "crun"] {
        let args = fixture.args(
            "containers",
            &["--output=type=local,dest=out", "--no-cache"],
        );
        let mut all = vec!["--runtime", runtime];
        all.extend(args.iter().map(String::as_str));
        fixture.env.ok(&all);
        let told = fs::read_to_string(fixture.env.path("out/told")).unwrap();
        assert_eq!(told, expected, "{runtime}");
    }
}

#[test]
fn a_frontend_answers_for_platforms() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let archive = fixture.env.path("image.tar");
    fixture.ok("platforms", &["-t", "several:1"]);
    let inspected = fixture
        .env
        .ok(&["inspect", "--platform=linux/arm64", "several:1"])
        .0;
    assert!(
        inspected.contains("\"Architecture\": \"arm64\""),
        "{inspected}"
    );
    let output = format!("--output=type=docker,dest={}", archive.display());
    let shown = fixture.fails(3, "platforms", &[&output]);
    assert!(shown.contains("docker exporter"), "{shown}");
}

#[test]
fn what_nobody_looks_into_costs_nothing() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    assert_eq!(fixture.told("lazy", &[]), "unused: true");
    let (_, shown) = fixture.ok("lazy", &[]);
    assert!(shown.contains("mind the gap"), "{shown}");
    assert!(!shown.contains("/bin/false"), "{shown}");
}

#[test]
fn failures_are_told_as_they_are() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let shown = fixture.fails(1, "fail", &[]);
    assert!(shown.contains("these are its last words"), "{shown}");
    assert!(shown.contains("exit code: 7"), "{shown}");
    let shown = fixture.fails(3, "refuse", &[]);
    assert!(shown.contains("the second line is wrong"), "{shown}");
    assert!(shown.contains("the last line"), "{shown}");
    let shown = fixture.fails(3, "crash", &[]);
    assert!(
        shown.contains(&format!("the frontend {FRONTEND} failed: exit code: 3")),
        "{shown}"
    );
    let shown = fixture.fails(3, "silence", &[]);
    assert!(shown.contains("ended without a result"), "{shown}");
    let shown = fixture.fails(3, "juggle", &[]);
    assert!(shown.contains("cannot do \"juggle\""), "{shown}");
    // One that cannot be had is shown where the file asks for it.
    let line = "# syntax=127.0.0.1:1/no/frontend";
    fixture
        .env
        .write("context/Dockerfile", &format!("{line}\nFROM scratch\n"));
    let shown = fixture.fails(5, "fail", &[]);
    assert!(
        shown.contains("cannot find the frontend 127.0.0.1:1/no/frontend"),
        "{shown}"
    );
    assert!(shown.contains(&format!("1 | >>> {line}")), "{shown}");
}

#[test]
fn a_frontend_has_only_the_rights_of_the_build() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let told = fixture.told("rights", &[]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("network.host is not allowed"), "{told}");
    assert!(lines[1].contains("network.host is not allowed"), "{told}");
    assert!(
        lines[2].contains("\"nobody-gave-this\" was not given"),
        "{told}"
    );
    let told = fixture.told("confined", &[]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(
        lines[0].contains("\"frontend\"") && !lines[0].contains("\"home\""),
        "{told}"
    );
    assert_eq!(lines[1], "[\"lo\"]");
    assert_eq!(lines[2], "ops: 2");
}

#[test]
fn questions_go_to_the_frontend() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let (shown, _) = fixture.ok("question", &["--call=outline"]);
    assert_eq!(shown.trim(), "asked frontend.outline");
    let (shown, _) = fixture.ok("question", &["--call=targets,format=json"]);
    assert_eq!(shown.trim(), "{\"asked\":\"frontend.targets\"}");
}

#[test]
fn nothing_is_left_of_a_frontend_that_hangs() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    for task in ["hang", "nonsense"] {
        let mut child = fixture.started(task);
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let begun = Instant::now();
        let status = child.wait().unwrap();
        assert!(
            !status.success() && begun.elapsed() < STOP_LIMIT,
            "{task}: {status}"
        );
        let steps = fixture.env.store().join("executor/steps");
        let left = fs::read_dir(steps).unwrap().count();
        assert_eq!(left, 0, "{task}");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let store = fixture.env.store().to_str().unwrap();
        assert!(!mounts.contains(store), "{task}: {mounts}");
    }
}

#[test]
fn frontends_are_allowed_by_configuration() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let config = |text: &str| fixture.env.write("config/buildkit/buildkitd.toml", text);
    let build = |code: i32, task: &str| {
        let args = fixture.args(task, &["--call=outline"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = fixture.env.cooper(&args);
        let output = command
            .env("XDG_CONFIG_HOME", fixture.env.path("config"))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{shown}");
        shown
    };
    config("[frontend.\"gateway.v0\"]\nallowedRepositories = [\"example.org/other\"]\n");
    let shown = build(4, "question");
    assert!(
        shown.contains("is not an allowed gateway source")
            && shown.contains(&format!("1 | >>> # syntax={FRONTEND}")),
        "{shown}"
    );
    config("[frontend.\"gateway.v0\"]\nallowedRepositories = [\"example.org/test/frontend\"]\n");
    build(0, "question");
    config("[frontend.\"gateway.v0\"]\nenabled = false\n");
    let shown = build(4, "question");
    assert!(shown.contains("gateway.v0 is switched off"), "{shown}");
    config("[frontend.\"dockerfile.v0\"]\nenabled = false\n");
    let shown = build(4, "dockerfile");
    assert!(shown.contains("dockerfile.v0 is switched off"), "{shown}");
}

#[test]
fn sources_are_described() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    let registry = Registry::start();
    let attested = format!("{}/app:1", registry.host());
    fixture
        .env
        .write("app/Dockerfile", "FROM busybox\nENV A=1\n");
    let args = ["--provenance=mode=min", "--push", "-t", &attested, "app"];
    fixture.env.ok(&[&["build"][..], &args].concat());
    registry.put_file("file.txt", b"text");
    let (repositories, git) = repository(&fixture.env);
    let told = fixture.told(
        "sources",
        &[
            &format!("--build-arg=ATTESTED={attested}"),
            &format!("--build-arg=GIT={}", git.smart("r")),
            &format!("--build-arg=FILE={}/file.txt", registry.url()),
        ],
    );
    drop(repositories);
    let expected = "config: true true\n\
                    nothing: false false\n\
                    chain: true false\n\
                    blobs: 2, signatures: 0\n\
                    provenance: true true\n\
                    blobs: 3, signatures: 0\n\
                    refs/tags/v1 true none none\n\
                    refs/tags/v1 true tree object\n\
                    refs/heads/main false tree none\n\
                    file.txt sha256:SHA256\n\
                    file.txt sha384:SHA384\n\
                    file.txt sha512:SHA512\n\
                    http checksum request suffix exceeds max size 4096\n\
                    source policies of a frontend are not supported";
    let expected = expected
        .replace("SHA256", &hashed("sha256sum", b"text!"))
        .replace("SHA384", &hashed("sha384sum", b"text!"))
        .replace("SHA512", &hashed("sha512sum", b"text"));
    assert_eq!(told, expected);
}

/// Hashes bytes with a program.
fn hashed(program: &str, bytes: &[u8]) -> String {
    let temp = tempfile::NamedTempFile::new().unwrap();
    fs::write(temp.path(), bytes).unwrap();
    let printed = tool(program, &[temp.path().to_str().unwrap()]);
    printed.split(' ').next().unwrap().to_owned()
}

/// Makes a repository with a commit and a tag of its own, and serves it.
fn repository(env: &TestEnv) -> (PathBuf, GitServer) {
    let folder = env.path("repositories");
    fs::create_dir_all(folder.join("r")).unwrap();
    let script = "git init --quiet --initial-branch=main && \
                  git -c user.name=a -c user.email=a@b commit --quiet --allow-empty -m one && \
                  git -c user.name=a -c user.email=a@b tag -a v1 -m v1";
    let mut shell = Command::new("sh");
    run(shell.args(["-c", script]).current_dir(folder.join("r")));
    let server = GitServer::start(&folder, None);
    (folder, server)
}

#[test]
fn a_frontend_says_something_about_its_result() {
    if !ready() {
        return;
    }
    let fixture = Fixture::new();
    fixture.ok("attested", &["--provenance=mode=min", "-t", "said:1"]);
    let (text, _) = fixture.env.ok(&["inspect", "--attestations", "said:1"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kinds: Vec<&str> = said
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["predicateType"].as_str().unwrap())
        .collect();
    let slsa = "https://slsa.dev/provenance/v1";
    assert_eq!(kinds, ["https://x/said", "https://x/bundled", slsa]);
    assert_eq!(said[0]["predicate"]["said"], 1);
    let names: Vec<&str> = said[0]["subject"]
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| subject["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[1], "another name");
    assert_eq!(said[1]["subject"][0]["name"], "elsewhere");
    assert_eq!(said[1]["predicate"]["said"], 2);
    let out = fixture.env.path("tree");
    fixture.ok("attested", &["-o", out.to_str().unwrap()]);
    for name in ["p.json", "two.json", "told"] {
        assert!(out.join(name).is_file(), "{name}");
    }
}

#[test]
fn a_failed_step_can_be_looked_into() {
    if !ready() {
        return;
    }
    let expected = "command: \"echo half > /made; exit 3\"\n\
                    mountIDs: (\"half\\n\", 0)\n\
                    inputIDs: (\"nothing was made\\n\", 0)";
    assert_eq!(Fixture::new().told("failed", &[]), expected);
}

#[test]
fn stages_are_inputs_of_a_frontend() {
    if !ready() {
        return;
    }
    let expected = "the stage base\ninput:tools\nconfig: true";
    let context = "--build-context=tools=target:base";
    assert_eq!(Fixture::new().told("stages", &[context]), expected);
}
