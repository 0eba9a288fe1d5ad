//! Outputs of whole builds: several at once, layers that become one, other bases, folders that
//! hold nothing else.

use std::fs;

use crate::consumers::Bundle;
use crate::env::{TestEnv, ready, tool};

/// Reads a document of an image.
fn inspect(env: &TestEnv, image: &str) -> serde_json::Value {
    let documents: serde_json::Value =
        serde_json::from_str(&env.ok(&["inspect", image]).0).unwrap();
    documents[0].clone()
}

fn layers(env: &TestEnv, image: &str) -> usize {
    inspect(env, image)["Manifest"]["layers"]
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn several_outputs_of_every_kind_come_of_one_build() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.write(
        "context/Dockerfile",
        "FROM busybox AS b\nRUN echo new > /new\nFROM scratch\nCOPY --from=b /new /\n",
    );
    env.ok(&[
        "build",
        "-t",
        "app",
        "-o",
        "type=image,compression=zstd",
        "-o",
        "type=oci,dest=o.tar",
        "-o",
        "type=oci,dest=stargz,tar=false,compression=estargz",
        "-o",
        "type=docker,dest=d.tar",
        "-o",
        "type=tar,dest=t.tar",
        "-o",
        "out",
        "-o",
        "type=cacheonly",
        "--metadata-file=m.json",
        "context",
    ]);
    assert_eq!(fs::read_to_string(env.path("out/new")).unwrap(), "new\n");
    let listed = tool("tar", &["-tf", env.path("t.tar").to_str().unwrap()]);
    assert_eq!(listed, "new\n");
    let at = |name: &str| env.path(name).display().to_string();
    let layer = |reference: String| {
        let text = tool("skopeo", &["inspect", "--raw", &reference]);
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["layers"][0].clone()
    };
    let kind = |reference| layer(reference)["mediaType"].as_str().unwrap().to_owned();
    let store = format!("oci:{}:app:latest", env.store().display());
    assert!(kind(store).ends_with("tar+zstd"));
    assert!(kind(format!("oci-archive:{}", at("o.tar"))).ends_with("tar+gzip"));
    let archive = format!("docker-archive:{}", at("d.tar"));
    assert!(tool("skopeo", &["inspect", &archive]).contains("\"Layers\""));
    let stargz = layer(format!("oci:{}", at("stargz")));
    let toc = &stargz["annotations"]["containerd.io/snapshot/stargz/toc.digest"];
    assert!(toc.as_str().unwrap().starts_with("sha256:"));
    // Tools that know nothing of eStargz unpack the file and nothing besides.
    let bundle = at("bundle");
    tool(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:latest", at("stargz")),
            &bundle,
        ],
    );
    let names = fs::read_dir(env.path("bundle/rootfs")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);
    let metadata = fs::read_to_string(env.path("m.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    for key in [
        "containerimage.digest",
        "containerimage.config.digest",
        "containerimage.descriptor",
    ] {
        assert!(!metadata[key].is_null(), "{key}: {metadata}");
    }
    assert_eq!(metadata["image.name"], "docker.io/library/app:latest");
}

#[test]
fn a_zstd_chunked_layer_is_a_zstd_layer_for_everybody() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    env.write("context/Dockerfile", "FROM scratch\nCOPY files /\n");
    env.write("context/files/etc/small", "small\n");
    env.write("context/files/empty", "");
    env.write("context/files/large", &"0123456789\n".repeat(300_000));
    env.ok(&[
        "build",
        "-o",
        "type=oci,dest=chunked,tar=false,compression=zstd:chunked",
        "-o",
        "type=oci,dest=zstd,tar=false,compression=zstd",
        "-o",
        "out",
        "context",
    ]);
    let manifest = |name: &str| {
        let reference = format!("oci:{}", env.path(name).display());
        let text = tool("skopeo", &["inspect", "--raw", &reference]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (chunked, zstd) = (manifest("chunked"), manifest("zstd"));
    let layer = &chunked["layers"][0];
    assert_eq!(layer["mediaType"], zstd["layers"][0]["mediaType"]);
    for key in ["manifest-checksum", "manifest-position"] {
        let annotation = &layer["annotations"][format!("io.github.containers.zstd-chunked.{key}")];
        assert!(annotation.is_string(), "{layer}");
    }
    // The same image but for the bytes of its blob.
    assert_eq!(chunked["config"], zstd["config"]);
    let storage = env.path("containers").display().to_string();
    let buildah = |args: &[&str]| {
        let store = [
            "--root",
            &storage,
            "--runroot",
            &storage,
            "--storage-driver",
            "vfs",
        ];
        tool("buildah", &[&store[..], args].concat())
            .trim()
            .to_owned()
    };
    let layout = format!("oci:{}", env.path("chunked").display());
    let stored = format!("containers-storage:[vfs@{storage}+{storage}]localhost/chunked:1");
    tool("skopeo", &["--insecure-policy", "copy", &layout, &stored]);
    let container = buildah(&["from", "localhost/chunked:1"]);
    let mounted = buildah(&["mount", &container]);
    let out = env.path("out").display().to_string();
    tool("diff", &["-r", &mounted, &out]);
    buildah(&["umount", &container]);
}

#[test]
fn layers_become_one_as_asked() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let steps = "RUN echo 1 > /one && echo 1 > /passing\nRUN rm /passing /bin/ash && echo 2 > /two\n\
                 COPY Dockerfile /three\nCMD [\"cat\", \"/one\", \"/two\"]\n";
    env.write("context/Dockerfile", &format!("FROM busybox\n{steps}"));
    env.ok(&["build", "-t", "plain", "context"]);
    env.ok(&["build", "-t", "new", "--squash", "context"]);
    env.ok(&["build", "-t", "all", "--squash-all", "context"]);
    let groups = steps.replacen("RUN", "LABEL cooper.layer=a\nRUN", 1);
    let groups = groups.replace("COPY", "LABEL cooper.layer=\nCOPY");
    env.write("context/grouped", &format!("FROM busybox\n{groups}"));
    env.ok(&["build", "-t", "grouped", "-f", "context/grouped", "context"]);
    let counts = ["plain", "new", "all", "grouped"].map(|image| layers(&env, image));
    assert_eq!(counts, [4, 2, 1, 3]);
    let base = inspect(&env, "busybox")["Manifest"]["layers"][0]["digest"].clone();
    assert_eq!(
        inspect(&env, "new")["Manifest"]["layers"][0]["digest"],
        base
    );
    assert_ne!(
        inspect(&env, "all")["Manifest"]["layers"][0]["digest"],
        base
    );
    assert!(inspect(&env, "grouped")["Config"]["Labels"]["cooper.layer"].is_null());
    for image in ["new", "all", "grouped"] {
        let bundle = Bundle::of(&env, &format!("{image}:latest"));
        let root = bundle.rootfs();
        assert!(
            !root.join("passing").exists() && !root.join("bin/ash").exists(),
            "{image}"
        );
        assert!(
            root.join("three").exists() && root.join("bin/busybox").exists(),
            "{image}"
        );
        assert_eq!(bundle.output(), "1\n2\n", "{image}");
        // The history still tells every step.
        let history = env.ok(&["history", "--format=json", image]).0;
        assert!(
            history.contains("/one") && history.contains("/passing /bin/ash"),
            "{image}"
        );
    }
    // The same again, also where nothing is left of the first time.
    let first = inspect(&env, "new")["Manifest"].clone();
    env.ok(&["build", "-t", "again", "--squash", "context"]);
    assert_eq!(inspect(&env, "again")["Manifest"], first);
}

#[test]
fn an_image_moves_to_another_base() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let base = |version: &str| {
        let text = format!(
            "FROM busybox\nRUN mkdir -p /etc && echo ID=test > /etc/os-release && \
             echo {version} > /etc/version\nENV BASE={version}\n"
        );
        env.write("base/Dockerfile", &text);
        env.ok(&["build", "-t", &format!("base:{version}"), "base"]);
    };
    base("1");
    base("2");
    env.write(
        "context/Dockerfile",
        "FROM base:1\nCOPY Dockerfile /app\nENV OWN=1\nCMD cat /etc/version; echo $BASE $OWN\n",
    );
    env.ok(&["build", "-t", "app", "--annotate-base", "context"]);
    let annotations = inspect(&env, "app")["Manifest"]["annotations"].clone();
    assert_eq!(annotations["org.opencontainers.image.base.name"], "base:1");
    env.ok(&["rebase", "app", "--new-base", "base:2", "-t", "moved"]);
    assert_eq!(Bundle::of(&env, "moved:latest").output(), "2\n2 1\n");
    assert_eq!(Bundle::of(&env, "app:latest").output(), "1\n1 1\n");
    let annotations = inspect(&env, "moved")["Manifest"]["annotations"].clone();
    assert_eq!(annotations["org.opencontainers.image.base.name"], "base:2");
    // And it is what a build on the new base gives, layer by layer.
    env.write(
        "context/built",
        "FROM base:2\nCOPY Dockerfile /app\nENV OWN=1\nCMD cat /etc/version; echo $BASE $OWN\n",
    );
    env.ok(&["build", "-t", "built", "-f", "context/built", "context"]);
    let of = |image: &str| inspect(&env, image)["Manifest"]["layers"].clone();
    assert_eq!(of("moved"), of("built"));
    env.write(
        "context/Dockerfile",
        "FROM base:1\nRUN echo mine >> /etc/version\n",
    );
    env.ok(&["build", "-t", "mine", "context"]);
    let said = env.fails(3, &["rebase", "mine", "-t", "x"]);
    assert!(said.contains("does not say what it was built on"), "{said}");
    let both = [
        "rebase",
        "mine",
        "--old-base=base:1",
        "--new-base=base:2",
        "-t",
        "x",
    ];
    let said = env.fails(3, &both);
    assert!(
        said.contains("what the new base has changed: /etc/version"),
        "{said}"
    );
    env.ok(&[&both[..], &["--force"]].concat());
    let said = env.fails(
        3,
        &[
            "rebase",
            "mine",
            "--old-base=base:2",
            "--new-base=base:1",
            "-t",
            "x",
        ],
    );
    assert!(said.contains("not those of the old base"), "{said}");
}

#[test]
fn files_are_removed_where_that_is_allowed() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY Dockerfile /file\n",
    );
    env.write("out/stale", "old");
    env.ok(&["build", "-o", "type=local,dest=out,mode=delete", "context"]);
    assert!(env.path("out/file").exists() && !env.path("out/stale").exists());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("stale"), "old").unwrap();
    let output = format!("type=local,dest={},mode=delete", elsewhere.path().display());
    let said = env.fails(2, &["build", "-o", &output, "context"]);
    assert!(
        said.contains("requires --allow=buildx.local.delete"),
        "{said}"
    );
    assert!(elsewhere.path().join("stale").exists());
    env.ok(&[
        "build",
        "-o",
        &output,
        "--allow=buildx.local.delete",
        "context",
    ]);
    assert!(!elsewhere.path().join("stale").exists());
}
