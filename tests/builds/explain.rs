//! `--plan`, `--explain`, `cooper explain`, and what early cutoff makes of an image.

use serde_json::Value;

use crate::env::{TestEnv, ready, run, tool};

const DOCKERFILE: &str =
    "FROM busybox\nCOPY file /file\nRUN cat /file > /out\nRUN cat /out > /last\n";

fn project() -> TestEnv {
    let env = TestEnv::busybox();
    env.write("context/Dockerfile", DOCKERFILE);
    env.write("context/file", "1\n");
    env
}

/// Runs `cooper` with `BUILDKIT_BUILD_NAME` and returns stdout.
fn named(env: &TestEnv, name: &str, args: &[&str]) -> String {
    let mut command = env.cooper(args);
    let output = run(command.env("BUILDKIT_BUILD_NAME", name));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn builds_are_remembered_and_compared() {
    if !ready() {
        return;
    }
    let env = project();
    let empty = env.path("empty");
    let error = env.fails(3, &["explain", "--root", empty.to_str().unwrap()]);
    assert!(error.contains("no build is known yet"), "{error}");
    let build = ["build", "-t", "app", "context"];
    named(&env, "first", &build);
    env.write("context/file", "2\n");
    named(&env, "second", &build);
    let (text, _) = env.ok(&["explain"]);
    let expected = "MISS        [2/4] COPY file /file\n              1 of 1 file changed: file\n\
                    MISS        [3/4] RUN cat /file > /out\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("4 steps: 1 HIT, 3 MISS\n"), "{text}");
    // What was built first is named second here: the change goes the other way.
    env.write("context/file", "2\n\n");
    env.ok(&build);
    env.ok(&build);
    let (text, _) = env.ok(&["explain"]);
    assert!(text.contains("4 steps: 4 HIT\n"), "{text}");
    let (text, _) = env.ok(&["explain", "second", "first"]);
    assert!(text.contains("1 of 1 file changed: file"), "{text}");
    let (text, _) = env.ok(&["explain", "first"]);
    assert!(text.contains("never built here"), "{text}");
    let (json, _) = env.ok(&["explain", "--format=json", "^2"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["build"]["name"], "second");
    let copy = json["build"]["steps"].as_array().unwrap();
    let copy = copy
        .iter()
        .find(|step| step["name"] == "[2/4] COPY file /file");
    let compared = &copy.unwrap()["compared"];
    assert_eq!(compared["change"], "changed");
    assert_eq!(compared["reason"]["files"][0], "file");
    let (list, _) = env.ok(&["explain", "--list"]);
    let of_this = list.lines().filter(|line| line.ends_with("/context"));
    assert_eq!(of_this.count(), 4, "{list}");
    assert!(
        list.contains("second") && list.contains("3 steps"),
        "{list}"
    );
    let error = env.fails(3, &["explain", "nothing"]);
    assert!(error.contains("there is no build \"nothing\""), "{error}");
}

#[test]
fn a_build_that_failed_is_remembered_too() {
    if !ready() {
        return;
    }
    let env = project();
    env.write(
        "context/Dockerfile",
        &DOCKERFILE.replace("cat /out", "false"),
    );
    let output = env
        .cooper(&["build", "--explain=json", "context"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["outcome"], "failed");
    let last = json["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(last["reason"]["kind"], "never-built");
    assert!(last["error"].as_str().unwrap().contains("exit code: 1"));
    let (text, _) = env.ok(&["explain"]);
    assert!(text.contains("it failed: "), "{text}");
    let output = ["build", "--explain", "-o", "-", "context"];
    let error = env.fails(2, &output);
    assert!(error.contains("--explain writes to stdout"), "{error}");
}

#[test]
fn a_plan_changes_nothing() {
    if !ready() {
        return;
    }
    let env = project();
    let plan = |format: &str| {
        env.ok(&[
            "build",
            "--push",
            "-t",
            "localhost:1/app",
            format,
            "context",
        ])
        .0
    };
    let files = || {
        let store = env.store().to_str().unwrap();
        let layers = tool("find", &[store, "-type", "d", "-path", "*/layers/*"]);
        layers + &tool("find", &[store, "-path", "*/builds/*"])
    };
    let before = files();
    let text = plan("--plan");
    assert_eq!(text, plan("--plan"));
    assert!(text.contains("never built here"), "{text}");
    assert!(
        text.contains("DEPENDS     [4/4] RUN cat /out > /last"),
        "{text}"
    );
    assert_eq!(before, files());
    env.ok(&["build", "context"]);
    let json: Value = serde_json::from_str(&plan("--plan=json")).unwrap();
    let verdicts = json["steps"].as_array().unwrap().iter();
    let verdicts: Vec<&str> = verdicts
        .map(|step| step["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["hit", "local", "hit", "hit", "hit"]);
}

/// Builds in a second of its own, so that layers differ if a step wrote them; returns their
/// digests.
fn layers(env: &TestEnv, dockerfile: &str, args: &[&str]) -> Vec<String> {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    env.write("context/Dockerfile", dockerfile);
    let folder = env.path("layout");
    let _ = std::fs::remove_dir_all(&folder);
    let spec = format!("type=oci,tar=false,dest={}", folder.display());
    env.ok(&[&["build", "-o", &spec, "context"], args].concat());
    let digest_of = |value: &Value| value["digest"].as_str().unwrap().replace(':', "/");
    let read = |path: String| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap()
    };
    let index = read("index.json".to_owned());
    let manifest = read(format!("blobs/{}", digest_of(&index["manifests"][0])));
    manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(digest_of)
        .collect()
}

#[test]
fn the_earlier_layer_is_taken_where_a_step_made_the_same_again() {
    if !ready() {
        return;
    }
    let env = project();
    let text = DOCKERFILE.replace("cat /file >", "mkdir /d && ln -s x /d/l && cat /file >");
    let first = layers(&env, &text, &[]);
    let same = text.replace("mkdir /d &&", "mkdir -p /d &&");
    assert_eq!(layers(&env, &same, &[]), first);
    // Who wants everything anew gets everything anew: the times of the files at least.
    let anew = layers(&env, &same, &["--no-cache"]);
    assert!(anew[..2] == first[..2] && anew[2] != first[2], "{anew:?}");
    // Times set on purpose are no times of the run.
    let touched = text.replace("mkdir /d &&", "touch -d @1000000000 /t && mkdir /d &&");
    let touched = layers(&env, &touched, &[]);
    let again = text.replace("mkdir /d &&", "touch -d @1000000001 /t && mkdir /d &&");
    let again = layers(&env, &again, &[]);
    assert!(touched[2] != again[2] && touched[3] != again[3]);
}

#[test]
fn a_build_is_compared_with_what_another_machine_did() {
    if !ready() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("cache");
    let (one, two) = (project(), TestEnv::empty());
    let archive = one.path("busybox.tar");
    one.ok(&["save", "-o", archive.to_str().unwrap(), "busybox"]);
    two.ok(&["load", "-i", archive.to_str().unwrap()]);
    // So many files that their list does not stand with its record.
    let files = |env: &TestEnv| {
        env.write(
            "context/Dockerfile",
            &format!("{DOCKERFILE}COPY many /many\n"),
        );
        for number in 0..600_u64 {
            let text = format!("{}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            env.write(&format!("context/many/{text}"), &text);
        }
    };
    files(&one);
    files(&two);
    two.write("context/file", "1\n");
    let to = format!("type=local,dest={},mode=max", folder.display());
    one.ok(&[
        "build",
        "-o",
        "type=cacheonly",
        "context",
        "--cache-to",
        &to,
    ]);
    let changed = two.write("context/many/7", "7");
    two.ok(&["build", "-o", "type=cacheonly", "context"]);
    let from = format!("type=local,src={}", folder.display());
    let explain = ["explain", "--cache-from", &from];
    let (text, _) = two.ok(&explain);
    assert!(
        text.contains("compared with what other machines did"),
        "{text}"
    );
    let expected = "SAME        [2/5] COPY file /file\nSAME        [3/5] RUN cat /file > /out\n\
                    SAME        [4/5] RUN cat /out > /last\nOTHER       [5/5] COPY many /many\n              \
                    1 file added: many/7\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("SAME        [1/5] FROM"), "{text}");
    let nowhere = ["explain", "--cache-from", "type=local,src=/nowhere"];
    let (text, shown) = two.ok(&nowhere);
    assert!(text.contains("NEW         [2/5] COPY"), "{text}");
    assert!(shown.contains("/nowhere"), "{shown}");

    std::fs::remove_file(changed).unwrap();
    two.write(
        "context/Dockerfile",
        &format!("{DOCKERFILE}COPY many /many\nUSER 1\n").replace("cat /file", "cat /file /file"),
    );
    two.ok(&["build", "-o", "type=cacheonly", "context"]);
    let (text, _) = two.ok(&[&explain[..], &["--format", "json"]].concat());
    let json: Value = serde_json::from_str(&text).unwrap();
    let steps = json["build"]["steps"].as_array().unwrap();
    let of = |name: &str| {
        let mut steps = steps.iter();
        let step = steps.find(|step| step["name"].as_str().unwrap().contains(name));
        step.unwrap()["compared"].clone()
    };
    assert_eq!(of("COPY file")["change"], "none");
    assert_eq!(of("> /out")["change"], "changed");
    assert_eq!(of("> /out")["reason"]["kind"], "instruction");
    let shown = two.fails(2, &[&explain[..], &["^0", "^1"]].concat());
    assert!(shown.contains("give one"), "{shown}");
}
