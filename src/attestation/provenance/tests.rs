//! Provenance of a small graph in every version and mode.

use serde_json::Value;

use super::*;
use crate::llb::mount::SecretMount;
use crate::llb::source_map::{Location, Range, SourceFile};
use crate::llb::state::{About, Builder, Exec, FileAction, FileOp, Source};
use crate::llb::{Definition, GitSource, OutputRef, caps, pb};
use crate::oci::{Digest, Platform, media_type};

/// An image, a step with a secret on it, and a copy out of the folder.
fn definition() -> Definition {
    let file = SourceFile {
        filename: "Dockerfile".to_owned(),
        language: "Dockerfile".to_owned(),
        text: "FROM a\nRUN curl https://me:hunter2@h/x\n".to_owned(),
    };
    let mut builder = Builder::new(Platform::linux("amd64", ""), vec![file]);
    let image = Source::new(
        "docker-image://docker.io/library/a:latest",
        caps::SOURCE_IMAGE,
    );
    let image = builder.source(image, About::default());
    let local = Source::new("local://context", caps::SOURCE_LOCAL).with("local.session", "s");
    let local = builder.source(local, About::default());
    let exec = Exec {
        root: Some(image),
        args: vec!["curl https://me:hunter2@h/x".to_owned()],
        cwd: "/".to_owned(),
        secrets: vec![SecretMount {
            id: "token".to_owned(),
            target: None,
            env: Some("TOKEN".to_owned()),
            uid: 0,
            gid: 0,
            mode: 0o400,
            optional: true,
        }],
        ..Exec::default()
    };
    let range = Range {
        start_line: 2,
        start_column: 0,
        end_line: 2,
        end_column: 9,
    };
    let about = About {
        locations: vec![Location {
            file: 0,
            ranges: vec![range],
        }],
        ..About::default()
    };
    let ran = builder.exec(exec, about);
    let copy = pb::file_action::Action::Copy(pb::FileActionCopy {
        src: "/x".to_owned(),
        dest: "/".to_owned(),
        ..pb::FileActionCopy::default()
    });
    let file = FileOp {
        base: Some(ran),
        actions: vec![FileAction {
            source: Some(local),
            owner: None,
            action: copy,
        }],
    };
    let copied = builder.file(file, About::default());
    builder.finish(Some(copied))
}

fn provenance(options: ProvenanceOptions) -> Provenance {
    let definition = definition();
    let loaded = definition.load().unwrap();
    let mut capture = Capture {
        frontend: "dockerfile.v0".to_owned(),
        ..Capture::default()
    };
    for (key, value) in [
        ("target", "x"),
        ("build-arg:PROXY", "http://me:hunter2@proxy/"),
        ("label:l", "v"),
    ] {
        capture.args.insert(key.to_owned(), value.to_owned());
    }
    capture.config.path = "Dockerfile".to_owned();
    capture.vcs.insert(
        "source".to_owned(),
        "https://me:hunter2@git/r.git".to_owned(),
    );
    capture.read(&loaded.vertices);
    capture.add(Material::new("pkg:docker/a@latest", &Digest::of(b"a")));
    capture.add(Material::new("https://me:hunter2@h/f", &Digest::of(b"f")));
    let git = GitSource::read(&pb::SourceOp {
        identifier: "git://h/r.git#main".to_owned(),
        ..pb::SourceOp::default()
    });
    capture.add(Material::commit(&git, &"c".repeat(40)));
    capture.add(Material::new("pkg:docker/a@latest", &Digest::of(b"a")));
    let result = loaded.results[0].clone().unwrap();
    let base = OutputRef {
        vertex: loaded.vertices[0].digest.clone(),
        index: 0,
    };
    Provenance {
        options,
        capture,
        invocation: Invocation {
            id: "run".to_owned(),
            started: "2024-01-01T00:00:00Z".to_owned(),
            finished: "2024-01-01T00:00:01Z".to_owned(),
            finished_s: 1_704_067_201,
            platform: "linux/amd64".to_owned(),
            environment: BTreeMap::new(),
        },
        steps: Steps::of(&definition),
        layers: [(base, 1), (result, 2)].into(),
    }
}

fn written(options: ProvenanceOptions) -> Value {
    let layers: Vec<Descriptor> = [b"one", b"two"]
        .iter()
        .map(|bytes| Descriptor::of(media_type::OCI_LAYER_GZIP, *bytes))
        .collect();
    let text = provenance(options).write(&layers).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn keys(value: &Value) -> String {
    let keys = value.as_object().unwrap().keys();
    keys.map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[test]
fn version_1_tells_everything_in_its_larger_mode() {
    let value = written(ProvenanceOptions {
        reproducible: true,
        builder_id: "https://ci/7".to_owned(),
        ..ProvenanceOptions::default()
    });
    assert_eq!(keys(&value), "buildDefinition runDetails");
    let definition = &value["buildDefinition"];
    assert_eq!(
        keys(definition),
        "buildType resolvedDependencies externalParameters internalParameters"
    );
    let uris: Vec<&str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|material| material["uri"].as_str().unwrap())
        .collect();
    assert_eq!(
        uris,
        [
            "pkg:docker/a@latest",
            "https://h/r.git#main",
            "https://xxxxx:xxxxx@h/f",
        ]
    );
    assert_eq!(
        definition["resolvedDependencies"][1]["digest"]["sha1"],
        "c".repeat(40)
    );
    let request = &definition["externalParameters"]["request"];
    assert_eq!(keys(request), "frontend args secrets locals");
    assert_eq!(
        request["args"]["build-arg:PROXY"],
        "http://xxxxx:xxxxx@proxy/"
    );
    assert_eq!(request["secrets"][0]["id"], "token");
    assert_eq!(request["secrets"][0]["optional"], true);
    assert_eq!(request["locals"][0]["name"], "context");
    let run = &value["runDetails"];
    assert_eq!(run["builder"]["id"], "https://ci/7");
    assert_eq!(
        keys(&run["metadata"]),
        "invocationId startedOn finishedOn buildkit_metadata buildkit_completeness \
         buildkit_reproducible"
    );
    let complete = &run["metadata"]["buildkit_completeness"];
    assert_eq!(complete["request"], true);
    assert_eq!(complete["resolvedDependencies"], false);
}

#[test]
fn steps_are_numbered_from_the_inputs_and_know_their_lines_and_layers() {
    let value = written(ProvenanceOptions::default());
    let config = &value["buildDefinition"]["internalParameters"]["buildConfig"];
    let steps = config["llbDefinition"].as_array().unwrap();
    let shown: Vec<String> = steps
        .iter()
        .map(|step| {
            let inputs = step["inputs"].as_array().map_or(0, Vec::len);
            format!(
                "{} {} {inputs}",
                step["id"].as_str().unwrap(),
                keys(&step["op"]["Op"])
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "step0 source 0",
            "step1 exec 1",
            "step2 source 0",
            "step3 file 2",
            "step4  1"
        ]
    );
    assert_eq!(steps[3]["inputs"][0], "step1:0");
    assert!(steps[2]["op"]["Op"]["source"].get("attrs").is_none());
    assert_eq!(config["digestMapping"].as_object().unwrap().len(), 5);
    let metadata = &value["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(keys(metadata), "vcs source layers");
    assert_eq!(metadata["vcs"]["source"], "https://xxxxx:xxxxx@git/r.git");
    let place = &metadata["source"]["locations"]["step1"]["locations"][0]["ranges"][0];
    assert_eq!(place["start"]["line"], 2);
    assert_eq!(metadata["source"]["infos"][0]["filename"], "Dockerfile");
    let layers = &metadata["layers"];
    assert_eq!(keys(layers), "step0:0 step3:0");
    assert_eq!(layers["step0:0"][0].as_array().unwrap().len(), 1);
    assert_eq!(layers["step3:0"][0].as_array().unwrap().len(), 2);
}

#[test]
fn the_smaller_mode_keeps_arguments_and_secrets_to_itself() {
    for version in [SlsaVersion::V1, SlsaVersion::V02] {
        let value = written(ProvenanceOptions {
            mode: Mode::Min,
            version,
            ..ProvenanceOptions::default()
        });
        let text = value.to_string();
        for hidden in [
            "PROXY",
            "label:l",
            "token",
            "llbDefinition",
            "infos",
            "step",
        ] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        let (request, complete) = match version {
            SlsaVersion::V1 => (
                &value["buildDefinition"]["externalParameters"]["request"],
                &value["runDetails"]["metadata"]["buildkit_completeness"]["request"],
            ),
            SlsaVersion::V02 => (
                &value["invocation"]["parameters"],
                &value["metadata"]["completeness"]["parameters"],
            ),
        };
        assert_eq!(request["args"]["target"], "x");
        assert_eq!(*complete, false);
    }
}

#[test]
fn version_02_has_its_own_members() {
    let value = written(ProvenanceOptions {
        version: SlsaVersion::V02,
        ..ProvenanceOptions::default()
    });
    assert_eq!(
        keys(&value),
        "builder buildType materials invocation buildConfig metadata"
    );
    assert_eq!(value["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(
        value["invocation"]["configSource"]["entryPoint"],
        "Dockerfile"
    );
    assert_eq!(
        value["invocation"]["environment"]["platform"],
        "linux/amd64"
    );
    assert_eq!(
        keys(&value["metadata"]),
        "buildInvocationID buildStartedOn buildFinishedOn completeness reproducible \
         https://mobyproject.org/buildkit@v1#metadata"
    );
    let report = provenance(ProvenanceOptions::default()).report(Reported::Min, &[]);
    assert_eq!(keys(&report), "builder buildType materials invocation");
}

#[test]
fn a_build_without_folders_and_networks_is_hermetic() {
    let mut capture = Capture::default();
    assert!(capture.is_hermetic());
    let exec = |network: pb::NetMode| crate::llb::Vertex {
        digest: crate::llb::VertexDigest(Digest::of(b"")),
        op: pb::op::Op::Exec(pb::ExecOp {
            network: network.into(),
            ..pb::ExecOp::default()
        }),
        inputs: Vec::new(),
        platform: Platform::host(),
        metadata: crate::llb::Metadata::default(),
    };
    capture.read(&[exec(pb::NetMode::None)]);
    assert!(capture.is_hermetic());
    capture.read(&[exec(pb::NetMode::Unset)]);
    assert!(capture.is_complete() && !capture.is_hermetic());
}
