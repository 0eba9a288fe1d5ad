//! Several platforms in one build: the index in the store, base images for each platform,
//! folders, programs of other processors.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::env::{TestEnv, ready, run, which};

const BOTH: &str = "--platform=linux/arm64,linux/amd64";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Builds an image for two platforms that says what it is for.
fn build_base(env: &TestEnv) {
    let text =
        "FROM scratch\nARG TARGETARCH\nCOPY <<END /arch\n$TARGETARCH\nEND\nLABEL a=$TARGETARCH\n";
    env.write("base/Dockerfile", text);
    env.ok(&["build", "-q", BOTH, "-t", "both", "base"]);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn an_index_is_one_image_of_the_store() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    build_base(&env);
    let files = ["--iidfile", "id", "--metadata-file", "metadata.json"];
    let args = [
        "build", "-q", BOTH, "-t", "both", files[0], files[1], files[2], files[3], "base",
    ];
    let (shown, _) = env.ok(&args);
    let metadata = json(&read(&env.path("metadata.json")));
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert_eq!(read(&env.path("id")), digest);
    assert_eq!(shown.trim(), digest);
    let descriptor = &metadata["containerimage.descriptor"];
    assert_eq!(
        descriptor["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert!(metadata.get("containerimage.config.digest").is_none());

    let listed = env.ok(&["images", "--format", "json", "both"]).0;
    assert_eq!(json(&listed)["digest"], digest);
    assert_eq!(
        json(&listed)["platforms"],
        serde_json::json!(["linux/arm64", "linux/amd64"])
    );
    for arch in ["arm64", "amd64"] {
        let platform = format!("--platform=linux/{arch}");
        let image = &json(&env.ok(&["inspect", &platform, "both"]).0)[0];
        assert_eq!(image["Architecture"], arch);
        assert_eq!(image["Config"]["Labels"]["a"], arch);
        assert_eq!(
            image["RepoDigests"][0],
            format!("docker.io/library/both@{digest}")
        );
        let history = env.ok(&["history", "--no-trunc", &platform, "both"]).0;
        assert!(history.contains(&format!("LABEL a={arch}")), "{history}");
    }
    let error = env.fails(3, &["inspect", "--platform=linux/386", "both"]);
    assert!(
        error.contains("it has one for linux/arm64, linux/amd64"),
        "{error}"
    );

    // One archive holds both, or the one that is asked for; also after a clean-up.
    env.ok(&["prune", "--all", "--force"]);
    for (platform, count) in [(None, 2), (Some("--platform=linux/arm64"), 1)] {
        let archive = env.path("both.tar");
        let path = archive.to_str().unwrap();
        let mut args = vec!["save", "--format", "oci", "-o", path, "both"];
        args.extend(platform);
        env.ok(&args);
        let listed = run(Command::new("tar").arg("-tf").arg(&archive)).stdout;
        let blobs = String::from_utf8(listed).unwrap();
        let blobs = blobs
            .lines()
            .filter(|line| line.starts_with("blobs/sha256/") && line.len() > 20);
        // Manifest, config and layer of each, and the index.
        assert_eq!(blobs.count(), 3 * count + usize::from(platform.is_none()));
    }
    env.ok(&["tag", "both", "again"]);
    let removed = env.ok(&["rmi", "both"]).0;
    assert!(!removed.contains("Deleted"), "{removed}");
    let removed = env.ok(&["rmi", "again"]).0;
    let deleted = format!("Deleted: {digest}");
    assert!(removed.contains(&deleted), "{removed}");
}

#[test]
fn each_platform_gets_its_own_base_image() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    build_base(&env);
    let text = "FROM --platform=linux/amd64 both AS fixed\nFROM both\nCOPY --from=fixed /arch /fixed\n\
                COPY --from=both /arch /copied\n";
    env.write("context/Dockerfile", text);
    env.ok(&["build", "-q", BOTH, "-o", "out", "context"]);
    for arch in ["arm64", "amd64"] {
        let folder = env.path("out").join(format!("linux_{arch}"));
        for (file, expected) in [("arch", arch), ("copied", arch), ("fixed", "amd64")] {
            assert_eq!(read(&folder.join(file)).trim(), expected, "{arch} {file}");
        }
    }
    // An image that runs on a newer variant serves it; one for nothing known is refused.
    env.ok(&[
        "build",
        "-q",
        "--platform=linux/arm64/v9",
        "-o",
        "newer",
        "context",
    ]);
    assert_eq!(read(&env.path("newer/arch")).trim(), "arm64");
    let error = env.fails(5, &["build", "--platform=linux/s390x", "context"]);
    assert!(error.contains("cannot resolve both"), "{error}");
    // One platform is a plain image unless an index is asked for.
    for (argument, is_index) in [("A=1", false), ("BUILDKIT_MULTI_PLATFORM=1", true)] {
        let args = [
            "build",
            "-q",
            "--build-arg",
            argument,
            "--metadata-file",
            "one.json",
            "base",
        ];
        env.ok(&args);
        let metadata = json(&read(&env.path("one.json")));
        let media_type = metadata["containerimage.descriptor"]["mediaType"]
            .as_str()
            .unwrap();
        assert_eq!(media_type.contains("index"), is_index, "{argument}");
    }
}

/// A program that ends at once, for a processor that is not this one; whether the kernel knows
/// an emulator for it.
fn foreign() -> (&'static str, Vec<u8>, bool) {
    let (name, machine) = if cfg!(target_arch = "s390x") {
        ("arm64", [183, 0])
    } else {
        ("s390x", [0, 22])
    };
    let order = if name == "s390x" { 2 } else { 1 };
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header[5] = order;
    header.resize(64, 0);
    let (kind, machine_at) = if order == 2 { (17, 18) } else { (16, 18) };
    header[kind] = 2;
    header[machine_at..machine_at + 2].copy_from_slice(&machine);
    let table = fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten();
    let mut names = table.flatten().map(|entry| entry.file_name());
    let is_known = names.any(|entry| entry.to_string_lossy().contains("s390x"));
    (name, header, is_known)
}

#[test]
fn a_program_of_another_processor_is_explained() {
    if !ready() {
        return;
    }
    let (name, program, is_known) = foreign();
    if is_known {
        eprintln!("skipped: this machine has an emulator for {name}");
        return;
    }
    let env = TestEnv::busybox();
    env.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY --chmod=755 program /\nRUN [\"/program\"]\n",
    );
    fs::write(env.path("context/program"), program).unwrap();
    let error = env.fails(4, &["build", "context"]);
    for part in [
        "exec format error",
        &format!("linux/{name}"),
        "qemu-user-static",
        "Dockerfile:3",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
}

/// A program for arm64 that makes the folder `/made`. The mark in its header tells it from
/// every other program.
fn arm64_program(mark: &[u8; 8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    // mkdirat(AT_FDCWD, "/made", 0755); exit(0)
    let code: [u32; 8] = [
        0x9280_0c60,
        0x1000_00e1,
        0xd280_3da2,
        0xd280_0448,
        0xd400_0001,
        0xd280_0000,
        0xd280_0ba8,
        0xd400_0001,
    ];
    let mut body: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    body.extend(b"/made\0");
    let size = (64 + 56 + body.len()) as u64;
    let mut program = b"\x7fELF\x02\x01\x01\0".to_vec();
    program.extend(mark);
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u32| value.to_le_bytes().to_vec();
    let long = |value: u64| value.to_le_bytes().to_vec();
    for part in [
        // Header: an executable for arm64, version, entry, program headers, sizes of headers.
        half(2),
        half(183),
        word(1),
        long(BASE + 120),
        long(64),
        long(0),
        word(0),
        half(64),
        half(56),
        half(1),
        half(0),
        half(0),
        half(0),
        // The one segment: readable and executable, all of the file.
        word(1),
        word(5),
        long(0),
        long(BASE),
        long(BASE),
        long(size),
        long(size),
        long(0x1000),
    ] {
        program.extend(part);
    }
    program.extend(body);
    program
}

/// The emulator is registered for a program with a mark of this test's own, so the machine runs
/// everything else as before.
#[test]
fn steps_of_another_platform_are_emulated() {
    if !ready() {
        return;
    }
    if cfg!(target_arch = "aarch64") {
        eprintln!("skipped: programs for arm64 need no emulator here");
        return;
    }
    let Some(emulator) = which("qemu-aarch64-static") else {
        assert!(
            std::env::var_os("REQUIRE_EMULATION").is_none(),
            "a step for arm64 needs qemu-aarch64-static"
        );
        eprintln!("skipped: qemu-aarch64-static is not installed");
        return;
    };
    let env = TestEnv::busybox();
    let mark = format!("{:08x}", std::process::id());
    let text = "FROM scratch\nCOPY --chmod=755 program /\nRUN --network=none [\"/program\"]\n";
    env.write("context/Dockerfile", text);
    let program = arm64_program(mark.as_bytes().try_into().unwrap());
    fs::write(env.path("context/program"), program).unwrap();
    let script = r#"
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        magic='\x7fELF\x02\x01\x01\x00'$MARK'\x02\x00\xb7\x00'
        printf '%s' ":cooper-$MARK:M::$magic::$EMULATOR:F" > /proc/sys/fs/binfmt_misc/register
        trap 'echo -1 > /proc/sys/fs/binfmt_misc/cooper-$MARK' EXIT
        "$@"
    "#;
    let build = env.cooper(&["build", "--platform=linux/arm64", "-o", "out", "context"]);
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            script,
            "sh",
        ])
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(env.path(""))
        .env("MARK", &mark)
        .env("EMULATOR", emulator);
    run(&mut command);
    assert!(env.path("out/made").is_dir());
}
