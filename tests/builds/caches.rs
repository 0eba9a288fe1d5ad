//! Remote caches between machines that have nothing else in common: one store for each agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::consumers::Registry;
use crate::env::{TestEnv, ready};
use crate::faulty_registry::{Access, Chaos, Registry as FaultyRegistry};

/// A build with a stage of its own, a chain of steps, and files of the user.
const DOCKERFILE: &str = "FROM {host}/base:1 AS tools
RUN mkdir /tools && seq 1 20000 > /tools/table
FROM {host}/base:1
RUN echo first > /first
COPY --from=tools /tools /tools
COPY source /source
RUN cat /source /first > /out
ENV DONE=1
";

/// Writes the build context of an agent.
fn context(env: &TestEnv, host: &str, source: &str) -> String {
    env.write("app/Dockerfile", &DOCKERFILE.replace("{host}", host));
    env.write("app/source", source);
    env.path("app").to_str().unwrap().to_owned()
}

/// Starts a registry that holds the base image.
fn registry() -> Registry {
    let registry = Registry::start();
    let base = format!("{}/base:1", registry.host());
    let env = TestEnv::busybox();
    env.ok(&["tag", "busybox", &base]);
    env.ok(&["push", &base]);
    registry
}

/// Builds, and returns the digest of the image with what was shown.
fn build(env: &TestEnv, context: &str, more: &[&str]) -> (String, String) {
    let metadata = env.path("metadata.json");
    let mut args = vec!["build", "--progress", "plain", "--metadata-file"];
    args.extend([metadata.to_str().unwrap(), context]);
    args.extend(more);
    let (_, shown) = env.ok(&args);
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    (digest.to_owned(), shown)
}

/// Lists the steps that ran rather than being found.
fn ran(shown: &str) -> BTreeSet<String> {
    let name = |number: &str| {
        let prefix = format!("#{number} [");
        let mut lines = shown.lines().filter(|line| line.starts_with(&prefix));
        lines
            .next()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
    };
    let done = shown.lines().filter(|line| line.contains(" DONE "));
    let numbers = done.filter_map(|line| line.strip_prefix('#')?.split(' ').next());
    numbers
        .filter_map(name)
        .filter(|name| name.contains("] RUN ") || name.contains("] COPY "))
        .collect()
}

fn unpacked_layers(env: &TestEnv) -> usize {
    let Ok(entries) = fs::read_dir(env.store().join("layers")) else {
        return 0;
    };
    let layers = entries.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.join("meta.json").is_file()
    });
    layers.count()
}

/// Builds on one agent, again on an empty one, and with a change on another empty one.
fn shared_between_agents(to: &[&str], from: &[&str], host: &str) {
    let first = TestEnv::empty();
    let (expected, shown) = build(&first, &context(&first, host, "text\n"), to);
    assert_eq!(ran(&shown).len(), 5, "{shown}");

    let second = TestEnv::empty();
    let (digest, shown) = build(&second, &context(&second, host, "text\n"), from);
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
    assert_eq!(digest, expected, "{shown}");
    assert_eq!(unpacked_layers(&second), 0);

    let third = TestEnv::empty();
    let with_files = ["-o", "type=local,dest=out"];
    let changed = context(&third, host, "changed\n");
    let args: Vec<&str> = from.iter().chain(&with_files).copied().collect();
    let mut command = vec!["build", "--progress", "plain", &changed];
    command.extend(args);
    let (_, shown) = third.ok(&command);
    let ran = ran(&shown);
    assert_eq!(ran.len(), 2, "{shown}");
    assert!(
        ran.iter().any(|step| step.contains("COPY source")),
        "{ran:?}"
    );
    assert!(
        ran.iter().any(|step| step.contains("cat /source")),
        "{ran:?}"
    );
    let out = fs::read_to_string(third.path("out/out")).unwrap();
    assert_eq!(out, "changed\nfirst\n");
    let table = fs::read_to_string(third.path("out/tools/table")).unwrap();
    assert_eq!(table.lines().count(), 20_000);
}

#[test]
fn a_registry_is_a_cache() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    for mode in ["min", "max"] {
        let to = format!("type=registry,ref={host}/app:cache-{mode},mode={mode}");
        let from = format!("type=registry,ref={host}/app:cache-{mode}");
        shared_between_agents(&["--cache-to", &to], &["--cache-from", &from], &host);
    }
}

#[test]
fn a_folder_is_a_cache() {
    if !ready() {
        return;
    }
    let registry = registry();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let to = format!("type=local,dest={},mode=max", folder.display());
    let from = format!("type=local,src={}", folder.display());
    shared_between_agents(
        &["--cache-to", &to],
        &["--cache-from", &from],
        &registry.host(),
    );
}

#[test]
fn an_image_is_a_cache() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    let image = format!("{host}/app:inline");
    let to = ["--cache-to", "type=inline", "--push", "-t", &image];
    // As typed for docker: the name of the image alone. Its config differs without the records.
    let from = ["--cache-from", &image, "--cache-to", "type=inline"];
    shared_between_agents(&to, &from, &host);
    let argument = [
        "--build-arg",
        "BUILDKIT_INLINE_CACHE=1",
        "--push",
        "-t",
        &image,
    ];
    let from = [
        "--cache-from",
        &image,
        "--build-arg",
        "BUILDKIT_INLINE_CACHE=1",
    ];
    shared_between_agents(&argument, &from, &host);
}

#[test]
fn caches_in_buildkits_format_are_caches() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    for manifest in [true, false] {
        let to = format!(
            "type=registry,ref={host}/app:buildkit,mode=max,format=buildkit,image-manifest={manifest}"
        );
        let from = format!("type=registry,ref={host}/app:buildkit");
        shared_between_agents(&["--cache-to", &to], &["--cache-from", &from], &host);
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let to = format!(
        "type=local,dest={},mode=max,format=buildkit",
        folder.display()
    );
    let from = format!("type=local,src={}", folder.display());
    shared_between_agents(&["--cache-to", &to], &["--cache-from", &from], &host);
    let image = format!("{host}/app:inline");
    let inline = ["--cache-to", "type=inline,format=buildkit"];
    let to = [&inline[..], &["--push", "-t", &image]].concat();
    let (first, second) = (TestEnv::empty(), TestEnv::empty());
    build(&first, &context(&first, &host, "text\n"), &to);
    let from = context(&second, &host, "text\n");
    let (_, shown) = build(&second, &from, &["--cache-from", &image]);
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
}

/// Takes the blobs of all layers out of a folder.
fn lose_blobs(folder: &Path) {
    for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
}

#[test]
fn a_cache_with_lost_layers_costs_the_steps_and_no_more() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let to = format!("type=local,dest={},mode=max", folder.display());
    let from = format!("type=local,src={}", folder.display());
    let first = TestEnv::empty();
    build(
        &first,
        &context(&first, &host, "text\n"),
        &["--cache-to", &to],
    );
    lose_blobs(&folder);
    for source in ["text\n", "changed\n"] {
        let second = TestEnv::empty();
        let files = ["--cache-from", &from, "-o", "type=local,dest=out"];
        let context = context(&second, &host, source);
        let mut args = vec!["build", "--progress", "plain", &context];
        args.extend(files);
        let (_, shown) = second.ok(&args);
        assert!(shown.contains("instead"), "{shown}");
        let out = fs::read_to_string(second.path("out/out")).unwrap();
        assert_eq!(out, format!("{source}first\n"));
    }
}

#[test]
fn a_cache_that_does_not_answer_is_a_warning() {
    if !ready() {
        return;
    }
    let registry = registry();
    let env = TestEnv::empty();
    let context = context(&env, &registry.host(), "text\n");
    let nowhere = "type=registry,ref=127.0.0.1:1/app:cache,timeout=2s";
    let args = ["--cache-from", nowhere, "--cache-to", nowhere];
    let (_, shown) = build(&env, &context, &args);
    assert_eq!(ran(&shown).len(), 5, "{shown}");
    let warnings = shown
        .lines()
        .filter(|line| line.to_lowercase().contains("warning"));
    let warnings: Vec<&str> = warnings
        .filter(|line| line.contains("127.0.0.1:1"))
        .collect();
    assert!(!warnings.is_empty(), "{shown}");
    let wanted = format!("{nowhere},ignore-error=false");
    let args = ["build", &context, "--cache-to", &wanted];
    let shown = env.fails(5, &args);
    assert!(shown.contains("exporting cache to registry"), "{shown}");
}

#[test]
fn what_was_done_is_exported_although_the_build_failed() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/app:cache");
    let max = format!("{cache},mode=max");
    let dockerfile = DOCKERFILE.replace("{host}", &host);
    let first = TestEnv::empty();
    let folder = context(&first, &host, "text\n");
    first.write(
        "app/Dockerfile",
        &dockerfile.replace("> /out", "> /out && false"),
    );
    first.fails(1, &["build", &folder, "--cache-to", &max]);
    let second = TestEnv::empty();
    let folder = context(&second, &host, "text\n");
    let (_, shown) = build(&second, &folder, &["--cache-from", &cache]);
    assert_eq!(ran(&shown).len(), 1, "{shown}");
}

/// Reads the digests of the layers of a manifest.
fn layers_of(manifest: &[u8]) -> Vec<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn three_agents_of_a_ci_with_a_bad_registry() {
    if !ready() {
        return;
    }
    // Tokens end all the time.
    let registry = FaultyRegistry::start_with(Access::Bearer {
        login: None,
        refresh: None,
        uses: 20,
        expires_in: None,
        realm: None,
    });
    let host = registry.host();
    let base = format!("{host}/base:1");
    let env = TestEnv::busybox();
    env.ok(&["tag", "busybox", &base]);
    env.ok(&["push", &base]);
    registry.clear_log();

    let cache = format!("type=registry,ref={host}/app:cache");
    let max = format!("{cache},mode=max");
    let image = |name: &str| format!("{host}/app:{name}");
    let agent = |name: &str, source: &str| {
        let env = TestEnv::empty();
        let folder = context(&env, &host, source);
        let image = image(name);
        let caches = ["--cache-from", &cache, "--cache-to", &max];
        let push = ["--push", "-t", &image];
        let (digest, shown) = build(&env, &folder, &[&caches[..], &push[..]].concat());
        (digest, ran(&shown).len())
    };
    let (first, steps) = agent("a", "text\n");
    assert_eq!(steps, 5);
    let (second, steps) = agent("b", "changed\n");
    assert_eq!(steps, 2);
    assert_ne!(first, second);
    // Both builds sent what the registry has, and nothing twice.
    let (sent, kept) = (registry.uploaded_bytes(), registry.blob_bytes("app"));
    assert!(sent <= kept, "{sent} bytes were sent for {kept}");

    // Everything is in the registry: nothing moves but the manifest and its config.
    registry.clear_log();
    let (again, steps) = agent("again", "changed\n");
    assert_eq!((again, steps), (second.clone(), 0));
    let manifest = registry.manifest("app", "again").unwrap();
    let layers = layers_of(&manifest);
    let log = registry.log();
    let read = log.iter().filter(|entry| entry.method == "GET");
    let read: Vec<&str> = read.map(|entry| entry.path.as_str()).collect();
    assert!(
        !read
            .iter()
            .any(|path| layers.iter().any(|l| path.ends_with(l.as_str()))),
        "{read:?}"
    );
    assert_eq!(registry.uploaded_bytes(), 0);

    for seed in 1..=3 {
        registry.set_chaos(Some(Chaos::new(seed, 50)));
        registry.clear_log();
        let before = registry.blob_bytes("app");
        let (third, steps) = agent(&format!("c{seed}"), "changed\n");
        assert_eq!(steps, 0, "seed {seed}");
        assert_eq!(third, second, "seed {seed}");
        let (sent, kept) = (registry.uploaded_bytes(), registry.blob_bytes("app"));
        let new = kept - before;
        assert!(
            sent <= new + new / 20,
            "seed {seed}: {sent} bytes were sent for {new}"
        );
        assert_eq!(
            registry.manifest("app", &format!("c{seed}")),
            registry.manifest("app", "b")
        );
    }
}
