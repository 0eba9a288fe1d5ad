//! Base images whose layers are read piece by piece: what moves, what comes of it, what fails.

use std::fs;

use cooper::oci::Manifest;

use crate::env::{TestEnv, ready, run, tool};
use crate::faulty_registry::{Action, Registry};

/// Bytes of the file that nobody reads.
const LARGE: usize = 20_000_000;

/// Pushes a base image of eStargz layers; returns its name.
fn push_base(registry: &Registry, form: &str) -> String {
    let env = TestEnv::busybox();
    let dockerfile = format!(
        "FROM busybox\n\
         RUN head -c {LARGE} /dev/urandom > /large; mkdir -p /data/sub; echo small > /data/small; \
             ln /data/small /data/sub/hard; ln -s small /data/link; chmod 4751 /data/small\n\
         RUN rm -r /data/sub; echo more > /data/more\n"
    );
    env.write("context/Dockerfile", &dockerfile);
    let name = format!("{}/base:1", registry.host());
    let output = format!("type=image,name={name},push=true,{form},force-compression=true");
    env.ok(&["build", "-o", &output, "context"]);
    registry.clear_log();
    name
}

fn manifest(registry: &Registry, repository: &str) -> Manifest {
    serde_json::from_slice(&registry.manifest(repository, "1").unwrap()).unwrap()
}

/// Adds up the bytes of blobs of `base` that were asked for; whole ones count as wholes.
fn bytes_read(registry: &Registry) -> u64 {
    let layers = manifest(registry, "base").layers;
    let log = registry.log();
    let reads = log.iter().filter(|request| request.method == "GET");
    let sizes = reads.filter_map(|request| {
        let layer = |digest: &str| request.path.ends_with(digest);
        let layer = layers.iter().find(|l| layer(&l.digest.to_string()))?;
        let range = request.header("range");
        let range = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
        Some(match range {
            Some((first, last)) => last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap(),
            None => layer.size,
        })
    });
    sizes.sum()
}

/// A build on `base` that reads little, writes over it and copies from it.
fn dockerfile(base: &str) -> String {
    format!(
        "FROM {base} AS other\nFROM {base}\n\
         RUN cat /data/small /data/link > /read; ls -lR /data | grep -v :.*: > /listed\n\
         RUN echo more >> /data/small; rm /data/more\n\
         COPY --from=other /data /copied\n"
    )
}

#[test]
fn only_what_is_read_moves_and_it_moves_once() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let dockerfile = dockerfile(&push_base(&registry, "compression=estargz"));
    let env = TestEnv::empty();
    env.write("context/Dockerfile", &dockerfile);
    let name = format!("{}/app:1", registry.host());
    let build = [
        "--snapshotter=stargz",
        "build",
        "--push",
        "-t",
        &name,
        "context",
    ];
    env.ok(&build);
    let moved = bytes_read(&registry);
    // The shell is the largest part.
    assert!((1000..4_000_000).contains(&moved), "{moved}");
    let app = manifest(&registry, "app");
    let below = manifest(&registry, "base").layers;
    let digests = |layers: &[cooper::oci::Descriptor]| -> Vec<String> {
        layers
            .iter()
            .map(|layer| layer.digest.to_string())
            .collect()
    };
    assert_eq!(digests(&app.layers[..below.len()]), digests(&below));
    assert_eq!(app.layers.len(), below.len() + 3);
    // The same steps with other results, and what was read before.
    registry.clear_log();
    env.write(
        "context/Dockerfile",
        &dockerfile.replace("/listed\n", "/again\n"),
    );
    env.ok(&build);
    assert_eq!(bytes_read(&registry), 0);
    let left = fs::read_dir(env.store().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn what_needs_all_bytes_has_them() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let dockerfile = dockerfile(&push_base(&registry, "compression=zstd:chunked"));
    let (lazy, whole) = (TestEnv::empty(), TestEnv::empty());
    for env in [&lazy, &whole] {
        env.write("context/Dockerfile", &dockerfile);
    }
    // A cache in another compression has the layers of the base, too.
    let to = "--cache-to=type=local,dest=cache,mode=max,compression=gzip,force-compression=true";
    let args = [
        "--snapshotter=stargz",
        "build",
        to,
        "-o",
        "type=cacheonly",
        "context",
    ];
    let (_, said) = lazy.ok(&args);
    assert!(said.contains("reading on demand"), "{said}");
    assert!(!said.contains("WARNING"), "{said}");
    assert!(lazy.path("cache/index.json").exists());
    // Files are those of a usual build.
    let out = |env: &TestEnv, args: &[&str]| {
        let to = ["build", "-o", "type=tar,dest=out.tar", "context"];
        env.ok(&[args, &to[..]].concat());
        let listed = tool("tar", &["-tvf", env.path("out.tar").to_str().unwrap()]);
        // What steps wrote is as old as the steps.
        let lines = listed.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!(
                "{} {} {} {}",
                words[0],
                words[1],
                words[2],
                words[5..].join(" ")
            )
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(out(&lazy, &["--snapshotter=stargz"]), out(&whole, &[]));
    let text = |env: &TestEnv, file: &str| {
        let archive = env.path("out.tar");
        tool("tar", &["-xOf", archive.to_str().unwrap(), file])
    };
    assert_eq!(text(&lazy, "read"), "small\nsmall\n");
    for file in ["read", "listed", "data/small", "copied/more"] {
        assert_eq!(text(&lazy, file), text(&whole, file), "{file}");
    }
}

#[test]
fn a_layer_without_a_table_is_fetched_and_so_is_one_that_gives_no_parts() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    for (form, parts, warning) in [
        ("compression=gzip", true, None),
        ("compression=estargz", false, Some("does not give parts")),
    ] {
        let base = push_base(&registry, form);
        if !parts {
            registry.fail("GET", "/blobs/", usize::MAX, Action::IgnoreRange);
        }
        let env = TestEnv::empty();
        let dockerfile = format!("FROM {base}\nRUN cat /data/small\n");
        env.write("context/Dockerfile", &dockerfile);
        let args = ["--snapshotter=stargz", "build", "-t", "x", "context"];
        let (_, said) = env.ok(&args);
        let warned = said.contains("fetched whole instead");
        assert_eq!(warned, warning.is_some(), "{said}");
        assert!(said.contains(warning.unwrap_or("")), "{said}");
        assert!(bytes_read(&registry) > LARGE as u64);
        registry.clear_faults();
    }
}

#[test]
fn a_step_that_could_not_read_fails_even_if_it_does_not_care() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let base = push_base(&registry, "compression=estargz");
    let large = manifest(&registry, "base").layers[1].clone();
    let env = TestEnv::empty();
    let ready_to_fail = "RUN cat /data/small > /shell-is-here\n";
    let dockerfile = format!("FROM {base}\n{ready_to_fail}");
    env.write("context/Dockerfile", &dockerfile);
    let args = [
        "--snapshotter=stargz",
        "build",
        "-o",
        "type=cacheonly",
        "context",
    ];
    env.ok(&args);
    env.write(
        "context/Dockerfile",
        &format!("{dockerfile}RUN cat /large | wc -c > /count; true\n"),
    );
    registry.fail("GET", "/blobs/", usize::MAX, Action::WrongBytes);
    let said = env.fails(5, &args);
    assert!(said.contains("cannot read /large"), "{said}");
    assert!(said.contains(&large.digest.to_string()), "{said}");
    // What failed was not kept as a result.
    registry.clear_faults();
    let (_, said) = env.ok(&args);
    assert!(said.contains("1 HIT") || said.contains("2 HIT"), "{said}");
}

#[test]
fn the_switch_is_checked() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    env.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let build = ["build", "-t", "x", "context"];
    for kind in ["auto", "overlayfs", "native", "stargz"] {
        let mut command = env.cooper(&build);
        run(command.env("COOPER_SNAPSHOTTER", kind));
    }
    let mut wrong = env.cooper(&build);
    let output = wrong.env("COOPER_SNAPSHOTTER", "zfs").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("COOPER_SNAPSHOTTER"),
        "{said}"
    );
}
