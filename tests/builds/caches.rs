//! Remote caches between machines that have nothing else in common: one store for each agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::consumers::Registry;
use crate::env::{TestEnv, ready};
use crate::faulty_registry::{Access, Action, Chaos, Registry as FaultyRegistry};

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

#[test]
fn a_cache_goes_on_in_the_form_in_which_it_came() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    // Even the layers of the base image have other blobs there than in their registry.
    let form = "compression=zstd,force-compression=true";
    let to = format!("type=registry,ref={host}/app:zstd,mode=max,format=buildkit,{form}");
    let first = TestEnv::empty();
    build(
        &first,
        &context(&first, &host, "text\n"),
        &["--cache-to", &to],
    );
    let from = format!("type=registry,ref={host}/app:zstd");
    let to = format!("type=registry,ref={host}/other:zstd,mode=max,format=buildkit");
    let second = TestEnv::empty();
    let passed_on = ["--cache-from", &from, "--cache-to", &to];
    let (_, shown) = build(&second, &context(&second, &host, "text\n"), &passed_on);
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
    let from = format!("type=registry,ref={host}/other:zstd");
    let third = TestEnv::empty();
    let (_, shown) = build(
        &third,
        &context(&third, &host, "text\n"),
        &["--cache-from", &from],
    );
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

/// Builds without a cache of others, into a folder; returns the steps that ran.
fn files_of(env: &TestEnv, folder: &str) -> (BTreeSet<String>, String) {
    let output = ["-o", "type=local,dest=out"];
    let args = [&["build", "--progress", "plain", folder], &output[..]].concat();
    let (_, shown) = env.ok(&args);
    let out = fs::read_to_string(env.path("out/out")).unwrap();
    assert_eq!(out, "text\nfirst\n");
    (ran(&shown), shown)
}

#[test]
fn what_was_found_elsewhere_is_known_here_from_then_on() {
    if !ready() {
        return;
    }
    let registry = FaultyRegistry::start();
    push_base(&registry);
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/app:cache");
    let image = format!("{host}/app:image");
    let push = ["--push", "-t", &image];
    let first = TestEnv::empty();
    let folder = context(&first, &host, "text\n");
    build(
        &first,
        &folder,
        &[&["--cache-to", &cache], &push[..]].concat(),
    );
    let imported = || {
        let env = TestEnv::empty();
        let folder = context(&env, &host, "text\n");
        let more = [&["--cache-from", &cache], &push[..]].concat();
        let (digest, shown) = build(&env, &folder, &more);
        assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
        assert_eq!(unpacked_layers(&env), 0);
        (env, folder, digest)
    };

    // Nobody is asked for the index, and layers stay where they are until they are needed.
    let (env, folder, digest) = imported();
    registry.clear_log();
    let (again, shown) = build(&env, &folder, &push);
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
    assert_eq!((again, unpacked_layers(&env)), (digest, 0));
    let requests = registry.requests();
    assert!(
        !requests.iter().any(|line| line.contains("manifests/cache")),
        "{requests:?}"
    );
    env.ok(&["cache", "verify"]);
    assert_eq!(files_of(&env, &folder).0, BTreeSet::new());

    // What is pruned has to be had anew.
    let (env, folder, _) = imported();
    env.ok(&["prune", "-a", "-f"]);
    assert_eq!(files_of(&env, &folder).0.len(), 5);

    // A layer that is lost takes its steps with it, and no more than that.
    let (env, folder, _) = imported();
    let gone = Action::Status(404, Vec::new(), String::new());
    registry.fail("GET", "/app/blobs/", 100, gone);
    let (steps, shown) = files_of(&env, &folder);
    assert!(shown.contains("instead"), "{shown}");
    assert!(!steps.is_empty(), "{shown}");
}

#[test]
fn layers_of_a_folder_that_is_not_named_any_more_are_made_anew() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    let from = format!("type=local,src={}", cache.display());
    let first = TestEnv::empty();
    let folder = context(&first, &host, "text\n");
    build(&first, &folder, &["--cache-to", &to]);
    let second = TestEnv::empty();
    let folder = context(&second, &host, "text\n");
    let only = ["--cache-from", &from, "-o", "type=cacheonly"];
    let (_, shown) = second.ok(&[&["build", "--progress", "plain", &folder], &only[..]].concat());
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
    // The folder is named again: what is known here is taken from there.
    let (_, shown) = build(&second, &folder, &["--cache-from", &from]);
    assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
    // The image's blobs are here now.
    let (steps, _) = files_of(&second, &folder);
    assert_eq!(steps, BTreeSet::new());
    let third = TestEnv::empty();
    let folder = context(&third, &host, "text\n");
    third.ok(&[&["build", &folder], &only[..]].concat());
    assert_eq!(files_of(&third, &folder).0.len(), 5);
}

/// A group of two layers between two that stay as they are.
const GROUPED: &str = "FROM {host}/base:1
RUN echo 1 > /one
LABEL cooper.layer=pair
RUN echo 2 > /two && echo passing > /passing
RUN rm /passing && echo 3 > /three
LABEL cooper.layer=
RUN echo 4 > /four
";

#[test]
fn layers_of_a_cache_become_one_where_a_label_says_so() {
    if !ready() {
        return;
    }
    let registry = registry();
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/app:cache");
    let image = format!("{host}/app:grouped");
    let archive = ["-o", "type=oci,dest=image.tar"];
    let push = ["--push", "-t", &image];
    let squash = ["--squash", "--push", "-t", &image];
    let context = |env: &TestEnv| {
        env.write("app/Dockerfile", &GROUPED.replace("{host}", &host));
        env.path("app").to_str().unwrap().to_owned()
    };
    let first = TestEnv::empty();
    let folder = context(&first);
    build(&first, &folder, &["--cache-to", &cache]);
    // The base, /one, the pair, and what the pair became: what lies above is not unpacked.
    for (output, count) in [(&archive[..], 5), (&push, 5), (&squash, 6)] {
        let (expected, shown) = build(&first, &folder, output);
        assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
        let second = TestEnv::empty();
        let more = [&["--cache-from", &cache], output].concat();
        let (digest, shown) = build(&second, &context(&second), &more);
        assert_eq!(ran(&shown), BTreeSet::new(), "{shown}");
        assert_eq!(digest, expected, "{output:?}");
        assert_eq!(unpacked_layers(&second), count, "{output:?}");
    }
}

/// Reads the digests of the layers of a manifest.
fn layers_of(manifest: &[u8]) -> Vec<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns text that does not compress well.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let words = (0..20_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{:08x}", state >> 32)
    });
    words.collect::<Vec<_>>().join("\n") + "\n"
}

/// A registry of a CI: tokens are good for 30 seconds and 20 requests. By its clock two seconds
/// pass with every request, so tokens end in the middle of everything.
fn ci_registry() -> FaultyRegistry {
    let registry = FaultyRegistry::start_with(Access::Bearer {
        login: None,
        refresh: None,
        uses: 20,
        expires_in: Some(30),
        realm: None,
    });
    registry.expire_tokens_after(Duration::from_secs(30));
    registry.pass_time_with_requests(Duration::from_secs(2));
    push_base(&registry);
    registry
}

/// Puts the base image into a registry.
fn push_base(registry: &FaultyRegistry) {
    let base = format!("{}/base:1", registry.host());
    let env = TestEnv::busybox();
    env.ok(&["tag", "busybox", &base]);
    env.ok(&["push", &base]);
}

/// Builds on an agent that has nothing, with the cache and the image in the registry; returns
/// the digest of the image and how many steps ran.
fn agent(registry: &FaultyRegistry, name: &str, source: &str) -> (String, usize) {
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/app:cache");
    let (max, image) = (format!("{cache},mode=max"), format!("{host}/app:{name}"));
    let env = TestEnv::empty();
    let folder = context(&env, &host, source);
    let caches = ["--cache-from", &cache, "--cache-to", &max];
    let push = ["--push", "-t", &image];
    let (digest, shown) = build(&env, &folder, &[&caches[..], &push[..]].concat());
    (digest, ran(&shown).len())
}

#[test]
fn three_agents_of_a_ci_with_a_bad_registry() {
    if !ready() {
        return;
    }
    let registry = ci_registry();
    let (first, steps) = agent(&registry, "a", &noise(1));
    assert_eq!(steps, 5);
    registry.clear_log();
    let before = registry.blob_bytes("app");
    let (second, steps) = agent(&registry, "b", &noise(2));
    assert_eq!(steps, 2);
    assert_ne!(first, second);
    let (sent, kept) = (registry.uploaded_bytes(), registry.blob_bytes("app"));
    assert!(
        sent <= kept - before,
        "{sent} bytes were sent, nothing twice"
    );
    let refused = registry.log().into_iter().filter(|l| l.path == "/token");
    assert!(refused.count() > 1, "tokens end while an agent works");

    // Everything is in the registry: nothing moves but the manifest and its config.
    registry.clear_log();
    let (again, steps) = agent(&registry, "again", &noise(2));
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

    let mut faults = 0;
    for seed in 1..=3 {
        registry.set_chaos(Some(Chaos::new(seed, 50)));
        // One agent finds everything, another one has a change of its own.
        for (source, expected) in [(2, 0), (100 + seed, 2)] {
            registry.clear_log();
            let before = registry.blob_bytes("app");
            let name = format!("c{seed}-{source}");
            let (third, steps) = agent(&registry, &name, &noise(source));
            assert_eq!(steps, expected, "{name}");
            assert_eq!(third == second, source == 2, "{name}");
            let (sent, kept) = (registry.uploaded_bytes(), registry.blob_bytes("app"));
            let new = kept - before;
            assert!(
                sent <= new + new / 20,
                "{name}: {sent} bytes were sent for {new}"
            );
        }
        faults += registry.chaos_faults();
        let name = format!("c{seed}-2");
        let image = registry.manifest("app", &name);
        assert_eq!(image, registry.manifest("app", "b"));
    }
    assert!(faults > 0, "nothing went wrong");
    // What an agent built under these conditions is what it would have been otherwise.
    registry.set_chaos(None);
    let (calm, steps) = agent(&registry, "calm", &noise(103));
    assert_eq!(steps, 0);
    assert_eq!(
        registry.manifest("app", "calm"),
        registry.manifest("app", "c3-103"),
        "{calm}"
    );
}
