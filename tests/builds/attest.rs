//! What is said about whole builds: provenance, SBOM, statements of one's own.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::env::{TestEnv, ready, run};

/// Reads the statements that an image carries.
fn statements(env: &TestEnv, image: &str) -> Vec<Value> {
    let (text, _) = env.ok(&["inspect", "--attestations", image]);
    serde_json::from_str(&text).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const DOCKERFILE: &str = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM busybox AS tools\n\
ARG BUILDKIT_SBOM_SCAN_STAGE=true\nARG WHO=nobody\n\
RUN --mount=type=secret,id=token,env=TOKEN test ${#TOKEN} -eq 7 && \
mkdir -p /lib/apk/db && printf 'P:musl\\nV:1.2\\nA:x86_64\\nL:MIT\\n' > /lib/apk/db/installed\n\
FROM busybox\nCOPY --from=tools /lib/apk /lib/apk\nCOPY x-1.dist-info /py/x-1.dist-info\n";

/// A build context whose base and files are known.
fn prepare(env: &TestEnv) {
    env.write("context/Dockerfile", DOCKERFILE);
    let metadata = "Name: x\nVersion: 1\nLicense: MIT\n";
    env.write("context/x-1.dist-info/METADATA", metadata);
    env.write("token", "hunter2");
}

#[test]
fn nothing_is_said_unless_asked_for() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.write("context/Dockerfile", "FROM busybox\nENV A=b\n");
    env.ok(&["build", "-t", "plain", "context"]);
    assert!(statements(&env, "plain").is_empty());
    let (text, _) = env.ok(&["inspect", "plain"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let kind = value[0]["Descriptor"]["mediaType"].as_str().unwrap();
    assert!(kind.contains("manifest"), "{kind}");
}

#[test]
fn an_image_says_how_it_was_built_and_what_is_in_it() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    prepare(&env);
    let vex = env.write("vex.json", "{\"statements\": []}");
    let custom = format!("type=custom,predicate-type=openvex,file={}", vex.display());
    let metadata = env.path("metadata.json");
    let token = format!("id=token,src={}", env.path("token").display());
    let args = [
        "build",
        "--provenance=mode=max,builder-id=https://ci/1",
        "--sbom",
        "--attest",
        &custom,
        "--secret",
        &token,
        "--build-arg",
        "WHO=me",
        "--metadata-file",
        metadata.to_str().unwrap(),
        "-t",
        "app:1",
        "context",
    ];
    run(env.cooper(&args).env("BUILDX_METADATA_PROVENANCE", "min"));
    let said = statements(&env, "app:1");
    let kinds: Vec<&str> = said
        .iter()
        .map(|statement| statement["predicateType"].as_str().unwrap())
        .collect();
    let spdx = "https://spdx.dev/Document";
    assert_eq!(
        kinds,
        [
            spdx,
            spdx,
            spdx,
            "https://slsa.dev/provenance/v1",
            "https://openvex.dev/ns/v0.2.0"
        ]
    );
    let text = serde_json::to_string(&said).unwrap();
    assert!(!text.contains("hunter2"), "the secret got out");
    check_sboms(&said);
    check_provenance(&said[3]["predicate"]);
    // The metadata file has the version that BuildKit's clients know.
    let told = &json(&metadata)["buildx.build.provenance"];
    assert_eq!(told["buildType"], "https://mobyproject.org/buildkit@v1");
    assert!(told.get("buildConfig").is_none());
}

/// The result, the stage and the context; each with what is in it.
fn check_sboms(said: &[Value]) {
    let urls = |statement: &Value| {
        let packages = statement["predicate"]["packages"]
            .as_array()
            .unwrap()
            .iter();
        let urls = packages.filter_map(|package| {
            let url = package["externalRefs"][0]["referenceLocator"].as_str();
            url.map(str::to_owned)
        });
        urls.collect::<Vec<_>>()
    };
    let musl = "pkg:apk/alpine/musl@1.2?arch=x86_64";
    assert_eq!(urls(&said[0]), [musl, "pkg:pypi/x@1"]);
    assert_eq!(urls(&said[1]), [musl]);
    assert_eq!(urls(&said[2]), ["pkg:pypi/x@1"]);
    let files = said[0]["predicate"]["files"].as_array().unwrap().iter();
    let layers: Vec<&str> = files
        .map(|file| file["comment"].as_str().unwrap())
        .collect();
    assert_ne!(layers[0], layers[1]);
}

/// Where everything came from.
fn check_provenance(provenance: &Value) {
    let definition = &provenance["buildDefinition"];
    let materials = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(materials.len(), 1);
    assert_eq!(
        materials[0]["uri"],
        "pkg:docker/busybox@latest?platform=linux%2Famd64"
    );
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:WHO"], "me");
    assert_eq!(request["secrets"][0]["id"], "token");
    assert_eq!(provenance["runDetails"]["builder"]["id"], "https://ci/1");
}

#[test]
fn the_same_tree_and_epoch_give_the_same_sbom() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    prepare(&env);
    let token = format!("id=token,src={}", env.path("token").display());
    let build = |out: &str, no_cache: &str| {
        let out = env.path(out);
        let spec = format!("type=local,dest={}", out.display());
        let args = [
            "build",
            "--sbom",
            "--attest",
            "type=provenance,inline-only=true",
            "--source-date-epoch=1000000000",
            "--secret",
            &token,
            no_cache,
            "-o",
            &spec,
            "context",
        ];
        env.ok(&args);
        assert!(!out.join("provenance.json").exists());
        let sbom = json(&out.join("sbom.spdx.json"));
        assert_eq!(
            sbom["predicate"]["creationInfo"]["created"],
            "2001-09-09T01:46:40Z"
        );
        assert!(out.join("sbom-tools.spdx.json").exists());
        assert!(out.join("sbom-context.spdx.json").exists());
        sbom["predicate"].clone()
    };
    assert_eq!(build("one", "--no-cache=false"), build("two", "--no-cache"));
}

#[test]
fn wrong_attestations_are_refused_before_anything_is_built() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.write("context/Dockerfile", "FROM busybox\n");
    for (args, error) in [
        (
            &["--attest", "type=vex"][..],
            "unknown attestation type \"vex\"",
        ),
        (&["--provenance=mode=all"], "invalid mode \"all\""),
        (
            &["--sign", "key=none", "--push=false"],
            "--sign signs what is pushed",
        ),
    ] {
        let mut all = vec!["build"];
        all.extend(args);
        all.push("context");
        let said = env.fails(2, &all);
        assert!(said.contains(error), "{said}");
    }
    let strict = "--provenance=complete-materials=true";
    let said = env.fails(3, &["build", strict, "context"]);
    assert!(
        said.contains("provenance materials are incomplete"),
        "{said}"
    );
}
