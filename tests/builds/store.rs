//! The store over time: what it takes, what goes, damage, a full disk, cache mounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::consumers::Registry;
use crate::env::{TestEnv, ready, run, tool};

const MB: u64 = 1 << 20;

/// Bytes that a tree takes on disk, by another program's count.
fn disk_bytes(path: &Path) -> u64 {
    let text = tool("du", &["-sB1", path.to_str().unwrap()]);
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn items(env: &TestEnv) -> Vec<Value> {
    let (text, _) = env.ok(&["du", "--format", "json"]);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn size_of(item: &Value) -> u64 {
    item["Size"].as_str().unwrap().parse().unwrap()
}

/// Sizes by description.
fn sizes(env: &TestEnv) -> BTreeMap<String, u64> {
    let items = items(env);
    let sizes = items.iter().map(|item| {
        (
            item["Description"].as_str().unwrap().to_owned(),
            size_of(item),
        )
    });
    sizes.collect()
}

fn context(env: &TestEnv, name: &str, dockerfile: &str) -> String {
    env.write(&format!("{name}/Dockerfile"), dockerfile);
    env.path(name).to_str().unwrap().to_owned()
}

fn random(megabytes: u64, file: &str) -> String {
    format!("RUN head -c {} /dev/urandom > {file}\n", megabytes * MB)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_du_says_is_what_prune_frees() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let kept = context(
        &env,
        "kept",
        &format!("FROM busybox\n{}", random(3, "/kept")),
    );
    env.ok(&["build", "-t", "kept", &kept]);
    let text = format!(
        "FROM busybox\n{}RUN --mount=type=cache,id=c,target=/c head -c {} /dev/zero > /c/x\nRUN true\n",
        random(5, "/loose"),
        2 * MB
    );
    let loose = context(&env, "loose", &text);
    env.ok(&["build", "-o", "type=cacheonly", &loose]);
    let sizes = sizes(&env);
    let of = |part: &str| {
        let found = sizes
            .iter()
            .find(|(description, _)| description.contains(part));
        *found.unwrap_or_else(|| panic!("no {part}: {sizes:?}")).1
    };
    assert!((5 * MB..6 * MB).contains(&of("> /loose")));
    assert!((2 * MB..3 * MB).contains(&of("cached mount c")));
    let all = items(&env);
    let shared: u64 = all
        .iter()
        .filter(|i| i["Shared"] == true)
        .map(size_of)
        .sum();
    assert!(shared >= 3 * MB, "layers of images are shared");

    // A filter takes only what it means.
    let (pruned, _) = env.ok(&["prune", "-f", "--filter", "type=exec.cachemount"]);
    assert!(pruned.contains("Total:"), "{pruned}");
    assert!(!sizes_have(&env, "cached mount c") && sizes_have(&env, "> /loose"));
    let wrong = env.fails(2, &["prune", "-f", "--filter", "colour=red"]);
    assert!(wrong.contains("colour"), "{wrong}");

    // Without --all what images have stays; the rest is freed, and it is what was said.
    let before = disk_bytes(env.store());
    let private: u64 = items(&env)
        .iter()
        .filter(|item| item["Shared"] == false && item["Type"] == "regular")
        .map(size_of)
        .sum();
    env.ok(&["prune", "-f"]);
    let freed = before - disk_bytes(env.store());
    assert!(
        freed.abs_diff(private) < MB / 2,
        "said {private}, freed {freed}"
    );
    assert!(sizes_have(&env, "> /kept") && !sizes_have(&env, "> /loose"));
    env.ok(&["build", &kept]);

    // With --all everything goes but the images, and they still build.
    env.ok(&["prune", "-af"]);
    let left: u64 = items(&env).iter().map(size_of).sum();
    assert!(left < MB, "{:?}", items(&env));
    let archive = env.path("kept.tar");
    env.ok(&["save", "-o", archive.to_str().unwrap(), "kept"]);
    env.ok(&["build", "-t", "again", &kept]);
}

fn sizes_have(env: &TestEnv, part: &str) -> bool {
    sizes(env)
        .keys()
        .any(|description| description.contains(part))
}

/// Starts a build under a cap.
fn build_capped(env: &TestEnv, context: &str) -> Command {
    let mut command = env.cooper(&["build", "-o", "type=cacheonly", context]);
    command.env("COOPER_GC_MAX_USED_SPACE", "24MB");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn builds_keep_the_store_under_its_cap_and_what_is_dear() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let dear = context(
        &env,
        "dear",
        &format!("FROM busybox\n{}", {
            format!("RUN sleep 2; head -c {} /dev/urandom > /dear\n", 2 * MB)
        }),
    );
    run(&mut build_capped(&env, &dear));
    for n in 0..8 {
        let text = format!(
            "FROM busybox\n{}RUN echo {n} > /end\n",
            random(5, &format!("/cheap{n}"))
        );
        let cheap = context(&env, &format!("cheap{n}"), &text);
        run(&mut build_capped(&env, &cheap));
    }
    let mut collect = env.cooper(&["gc"]);
    run(collect.env("COOPER_GC_MAX_USED_SPACE", "24MB"));
    let total: u64 = items(&env).iter().map(size_of).sum();
    assert!(total <= 24 * MB, "{total}");
    assert!(total >= 8 * MB, "no more goes than has to: {total}");
    assert!(sizes_have(&env, "> /dear"), "{:?}", sizes(&env));
    let (_, progress) = env.ok(&[
        "build",
        "--progress",
        "plain",
        "-o",
        "type=cacheonly",
        &dear,
    ]);
    assert!(!progress.contains("MISS RUN"), "{progress}");
}

#[test]
fn processes_that_build_and_collect_never_hurt_each_other() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let mut children = Vec::new();
    for n in 0..6 {
        let mut text = "FROM busybox\n".to_owned();
        for step in 0..4 {
            text.push_str(&random(3, &format!("/own{n}-{step}")));
        }
        text.push_str(&format!("RUN test $(ls /own{n}-* | wc -l) = 4\n"));
        let own = context(&env, &format!("own{n}"), &text);
        children.push(build_capped(&env, &own).spawn().unwrap());
        let mut collect = env.cooper(&["gc"]);
        collect.env("COOPER_GC_MAX_USED_SPACE", "8MB");
        children.push(
            collect
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        if n % 2 == 0 {
            let mut prune = env.cooper(&["prune", "-af"]);
            children.push(
                prune
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap(),
            );
        }
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let mut collect = env.cooper(&["gc"]);
    run(collect.env("COOPER_GC_MAX_USED_SPACE", "8MB"));
    let total: u64 = items(&env).iter().map(size_of).sum();
    assert!(total <= 8 * MB, "{total}");
    env.ok(&["cache", "verify"]);
}

/// A small disk, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(env: &TestEnv, megabytes: u64) -> Self {
        let path = env.path("small");
        fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m");
        tool(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()],
        );
        let copied = path.join("store");
        run(Command::new("cp").arg("-a").arg(env.store()).arg(&copied));
        Self(path)
    }

    fn build(&self, args: &[&str]) -> Output {
        self.cooper(&[&["build", "--progress", "plain"], args].concat())
    }

    fn cooper(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
        command.arg("--root").arg(self.0.join("store")).args(args);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_collected_and_pulling_loading_and_unpacking_go_on() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let env = TestEnv::busybox();
    let image = |megabytes: u64| {
        let name = format!("{}/big:{megabytes}", registry.host());
        let dockerfile = format!("FROM busybox\n{}", random(megabytes, "/big"));
        let folder = context(&env, &format!("big{megabytes}"), &dockerfile);
        env.ok(&["build", "--push", "-t", &name, &folder]);
        name
    };
    let (pulled, unpacked) = (image(60), image(30));
    let archive = env.path("big.tar").to_str().unwrap().to_owned();
    env.ok(&["save", "-o", &archive, &pulled]);
    let empty = TestEnv::busybox();
    let junk = format!("FROM busybox\n{}", random(50, "/junk"));
    let junk = context(&empty, "junk", &junk);
    // Each disk has room for the junk, or for the image, and not for both.
    let disk = || {
        let disk = SmallDisk::new(&empty, 100);
        let output = disk.build(&["-o", "type=cacheonly", &junk]);
        assert!(output.status.success(), "{}", text(&output));
        disk
    };
    {
        let disk = disk();
        let output = disk.cooper(&["pull", "--progress", "plain", &pulled]);
        let stderr = text(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("try once more to pull"), "{stderr}");
    }
    fs::remove_dir(empty.path("small")).unwrap();
    {
        let disk = disk();
        let output = disk.cooper(&["load", "--progress", "plain", "-i", &archive]);
        let stderr = text(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("try once more to load"), "{stderr}");
    }
    fs::remove_dir(empty.path("small")).unwrap();
    {
        // What comes through a pipe comes once.
        let disk = disk();
        let archive = fs::File::open(&archive).unwrap();
        let mut load = disk.command(&["load", "--progress", "plain"]);
        let output = load.stdin(archive).output().unwrap();
        let stderr = text(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("bytes and go on"), "{stderr}");
        let output = disk.cooper(&["cache", "verify"]);
        assert!(output.status.success(), "{}", text(&output));
    }
    fs::remove_dir(empty.path("small")).unwrap();
    {
        let disk = disk();
        let dockerfile = format!("FROM {unpacked}\n");
        let folder = context(&empty, "unpack", &dockerfile);
        let out = format!("type=local,dest={}", empty.path("out").display());
        let output = disk.build(&["-o", &out, &folder]);
        let stderr = text(&output);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("try once more to unpack"), "{stderr}");
        let size = fs::metadata(empty.path("out/big")).unwrap().len();
        assert_eq!(size, 30 * MB);
    }
}

#[test]
fn a_full_disk_is_collected_and_the_step_runs_once_more() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let disk = SmallDisk::new(&env, 96);
    let junk = context(
        &env,
        "junk",
        &format!("FROM busybox\n{}", random(50, "/junk")),
    );
    let output = disk.build(&["-o", "type=cacheonly", &junk]);
    assert!(output.status.success(), "{}", text(&output));

    // A step that does not fit beside the junk.
    let large = context(
        &env,
        "large",
        &format!("FROM busybox\n{}", random(55, "/large")),
    );
    let output = disk.build(&["-o", "type=cacheonly", &large]);
    let stderr = text(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("running the step once more"), "{stderr}");

    // An export that does not fit beside the layers it is made of and older ones.
    let image = context(
        &env,
        "image",
        &format!("FROM busybox\n{}", random(30, "/image")),
    );
    let output = disk.build(&["-t", "image", &image]);
    let stderr = text(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("once more"), "{stderr}");

    // What never fits fails, says so, and leaves nothing behind.
    let huge = context(
        &env,
        "huge",
        &format!("FROM busybox\n{}", random(200, "/huge")),
    );
    let output = disk.build(&["-o", "type=cacheonly", &huge]);
    let stderr = text(&output);
    assert!(
        !output.status.success() && stderr.contains("no space left"),
        "{stderr}"
    );
    let store = disk.0.join("store");
    for folder in ["ingest", "tmp"] {
        let left: Vec<_> = fs::read_dir(store.join(folder)).unwrap().collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let small = context(&env, "small-build", "FROM busybox\nRUN echo x > /x\n");
    let output = disk.build(&["-o", "type=cacheonly", &small]);
    assert!(output.status.success(), "{}", text(&output));
}

/// Changes a byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Looks for damage: the exit code, and what was found and done in words.
fn findings(env: &TestEnv, args: &[&str]) -> (Option<i32>, Vec<String>) {
    let args = [&["cache", "verify", "--format", "json"], args].concat();
    let output = env.cooper(&args).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let short = |line: &str| {
        let found: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| found[key].as_str().unwrap().to_owned();
        format!("{} {}", word("kind"), word("remedy"))
    };
    (output.status.code(), lines.lines().map(short).collect())
}

#[test]
fn verify_finds_and_mends_damage() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let text = format!(
        "FROM busybox\n{}RUN echo second > /second\n",
        random(1, "/first")
    );
    let app = context(&env, "app", &text);
    env.ok(&["build", "-t", "app", &app]);
    let (said, _) = env.ok(&["cache", "verify"]);
    assert!(said.contains("as it was written"), "{said}");

    let layers = fs::read_dir(env.store().join("layers")).unwrap();
    let files: Vec<PathBuf> = layers.map(|e| e.unwrap().path().join("fs")).collect();
    let file = |name: &str| {
        files
            .iter()
            .map(|fs| fs.join(name))
            .find(|f| f.exists())
            .unwrap()
    };
    flip(&file("first"), 0);
    let inspected: Value = serde_json::from_str(&env.ok(&["inspect", "app"]).0).unwrap();
    let blob = inspected[0]["Manifest"]["layers"][2]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    flip(&env.store().join("blobs/sha256").join(&blob[7..]), 0);

    let verify = |args: &[&str]| findings(&env, args);
    let dry = verify(&["--dry-run"]);
    assert_eq!(
        dry,
        (
            Some(1),
            vec!["blob found".to_owned(), "layer found".to_owned()]
        )
    );
    let mended = verify(&[]);
    assert_eq!(
        mended,
        (
            Some(1),
            vec!["blob mended".to_owned(), "layer mended".to_owned()]
        )
    );
    assert_eq!(verify(&[]), (Some(0), Vec::new()));

    // A layer that is gone takes its record along, and the step runs again.
    let gone = file("second")
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    fs::remove_dir_all(&gone).unwrap();
    assert_eq!(verify(&[]), (Some(1), vec!["record dropped".to_owned()]));
    env.ok(&["build", "-t", "app", &app]);
    assert_eq!(verify(&[]), (Some(0), Vec::new()));
}

#[test]
fn cache_mounts_are_listed_moved_and_removed_by_id() {
    if !ready() {
        return;
    }
    let (env, other) = (TestEnv::busybox(), TestEnv::busybox());
    let fill = "FROM busybox\nRUN --mount=type=cache,target=/root/.cache \
                echo kept > /root/.cache/file && mkdir -p /root/.cache/sub\n";
    let use_it =
        "FROM busybox\nRUN --mount=type=cache,target=/root/.cache cat /root/.cache/file > /out\n";
    env.ok(&["build", &context(&env, "fill", fill)]);
    let (list, _) = env.ok(&["cache", "mounts", "ls"]);
    assert!(list.contains("/root/.cache"), "{list}");
    let tar = env.path("cache.tar");
    let tar = tar.to_str().unwrap();
    env.ok(&["cache", "mounts", "export", "/root/.cache", "-o", tar]);
    assert!(tool("tar", &["-tf", tar]).contains("sub/"));

    other.ok(&["cache", "mounts", "import", "/root/.cache", "-i", tar]);
    other.ok(&[
        "build",
        "-o",
        "type=local,dest=out",
        &context(&other, "use", use_it),
    ]);
    assert_eq!(fs::read_to_string(other.path("out/out")).unwrap(), "kept\n");

    let (removed, _) = other.ok(&["cache", "mounts", "rm", "/root/.cache"]);
    assert!(removed.contains("cached mount /root/.cache"), "{removed}");
    assert_eq!(
        other
            .ok(&["cache", "mounts", "ls", "--format", "json"])
            .0
            .trim(),
        ""
    );
    other.fails(3, &["cache", "mounts", "rm", "/root/.cache"]);
    other.ok(&["cache", "mounts", "rm", "--force", "/root/.cache"]);
}

#[test]
fn a_new_cache_mount_belongs_to_the_user_of_its_step() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let show = |id: &str, options: &str| {
        format!(
            "RUN --mount=type=cache,id={id},target=/c{options} stat -c '%u:%g %a' /c >> /tmp/owners\n"
        )
    };
    let text = format!(
        "FROM busybox\nRUN mkdir -p /tmp && chmod 1777 /tmp\n{}USER 1234:5678\n{}{}{}",
        show("root", ""),
        show("user", ""),
        show("told", ",uid=7,mode=0700"),
        show("root", ""),
    );
    // The file must be writable for both users.
    let text = text.replace(
        "chmod 1777 /tmp",
        "chmod 1777 /tmp && touch /tmp/owners && chmod 666 /tmp/owners",
    );
    env.ok(&[
        "build",
        "-o",
        "type=local,dest=out",
        &context(&env, "owners", &text),
    ]);
    let owners = fs::read_to_string(env.path("out/tmp/owners")).unwrap();
    assert_eq!(owners, "0:0 755\n1234:5678 755\n7:0 700\n0:0 755\n");
}

/// Builds with two cache mounts that come from a remote cache, and puts what was in them into
/// the folder that is returned.
fn take_mounts(env: &TestEnv, remote: &str, options: &str) -> (PathBuf, String) {
    let text = "FROM busybox\nRUN --mount=type=cache,id=deps,target=/c \
                --mount=type=cache,id=other,target=/o \
                cp /c/small /small; wc -c < /c/large > /size; ls /o > /other\n";
    let from = format!("--cache-from=type=local,src={remote},{options}");
    let out = env.path("out");
    let dest = format!("type=local,dest={}", out.display());
    let used = context(env, "use", text);
    let (_, said) = env.ok(&[
        "build",
        "--no-cache",
        "--progress",
        "plain",
        "-o",
        &dest,
        &from,
        &used,
    ]);
    (out, said)
}

#[test]
fn cache_mounts_travel_with_the_remote_cache() {
    if !ready() {
        return;
    }
    let (one, two) = (TestEnv::busybox(), TestEnv::busybox());
    let remote = one.path("remote");
    let remote = remote.to_str().unwrap();
    let fill = "FROM busybox\nRUN --mount=type=cache,id=deps,target=/c \
                --mount=type=cache,id=other,target=/o \
                head -c 3000000 /dev/urandom > /c/large; echo kept > /c/small; echo o > /o/file\n";
    let fill = context(&one, "fill", fill);
    let to = format!("--cache-to=type=local,dest={remote},mode=max,mounts=deps,mounts-key=main");
    let give = |context: &str| {
        let (_, said) = one.ok(&[
            "build",
            "--progress",
            "plain",
            "-o",
            "type=cacheonly",
            &to,
            context,
        ]);
        assert!(!said.contains("WARN"), "{said}");
        said
    };
    let said = give(&fill);
    assert!(said.contains("exporting cache mount deps"), "{said}");
    assert!(
        !said.contains("exporting cache mount other"),
        "only what was named: {said}"
    );

    let options = "mounts=true,mounts-key=branch,mounts-fallback=ma";
    let (out, said) = take_mounts(&two, remote, options);
    assert_eq!(
        fs::read_to_string(out.join("small")).unwrap(),
        "kept\n",
        "{said}"
    );
    assert_eq!(fs::read_to_string(out.join("size")).unwrap(), "3000000\n");
    assert_eq!(fs::read_to_string(out.join("other")).unwrap(), "");
    assert!(said.contains("restore the cache mount deps"), "{said}");

    // A cached build used no mount and moves none; a damaged remote costs a warning.
    assert!(!give(&fill).contains("exporting cache mount"));
    let three = TestEnv::busybox();
    for entry in fs::read_dir(one.path("remote/blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().len() > 1_000_000 {
            flip(&entry.path(), 500_000);
        }
    }
    let text = "FROM busybox\nRUN --mount=type=cache,id=deps,target=/c ls /c > /list\n";
    let from = format!("--cache-from=type=local,src={remote},mounts=true");
    let listed = context(&three, "list", text);
    let (_, said) = three.ok(&[
        "build",
        "--progress",
        "plain",
        "-o",
        "type=local,dest=out",
        &from,
        &listed,
    ]);
    assert!(said.contains("cache mount deps"), "{said}");
    assert_eq!(
        fs::read_to_string(three.path("out/list")).unwrap(),
        "",
        "{said}"
    );
}
