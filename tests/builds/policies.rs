//! Policies: sources that are denied are never asked for, others take the place of theirs.

use std::path::Path;

use serde_json::{Value, json};

use crate::env::{TestEnv, ready, run};
use crate::faulty_registry::Registry;
use crate::llb::Graph;

/// A registry with two images, and a web server with a file.
pub(crate) struct Sources {
    pub(crate) registry: Registry,
    pub(crate) host: String,
    /// Digest of the second image.
    pub(crate) second: String,
}

impl Sources {
    pub(crate) fn start() -> Self {
        let registry = Registry::start();
        registry.put_image("app/base", "1", &tar("one"));
        let second = registry.put_image("app/base", "2", &tar("two"));
        registry.put_file("data", b"data\n");
        registry.put_file("other", b"other\n");
        registry.clear_log();
        Self {
            host: registry.host(),
            second: second.to_string(),
            registry,
        }
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        let log = self.registry.log().into_iter();
        log.map(|request| request.path).collect()
    }
}

/// Makes a layer with one file.
fn tar(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &[][..]).unwrap();
    tar.into_inner().unwrap()
}

fn rule(action: &str, identifier: &str, updates: Value) -> Value {
    json!({"action": action, "selector": {"identifier": identifier}, "updates": updates})
}

fn policy(env: &TestEnv, rules: &[Value]) -> String {
    let text = json!({ "rules": rules }).to_string();
    let path = env.write("policy.json", &text);
    format!("--source-policy-file={}", path.display())
}

#[test]
fn what_a_rule_denies_is_never_asked_for() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let host = &sources.host;
    let dockerfile = format!("FROM {host}/app/base:1\nADD http://{host}/data /\n");
    env.write("context/Dockerfile", &dockerfile);
    let deny = |identifier: &str| {
        let option = policy(&env, &[rule("DENY", identifier, Value::Null)]);
        env.fails(3, &["build", &option, "-o", "type=cacheonly", "context"])
    };
    let shown = deny(&format!("docker-image://{host}/*"));
    assert!(
        shown.contains("base:1\" denied by policy: rule 1 ("),
        "{shown}"
    );
    assert!(shown.contains("Dockerfile:1"), "{shown}");
    assert_eq!(sources.paths(), [""; 0]);
    let shown = deny("http://*/data");
    assert!(
        shown.contains("/data\" denied by policy: rule 1 ("),
        "{shown}"
    );
    assert!(shown.contains("Dockerfile:2"), "{shown}");
    let paths = sources.paths();
    assert!(
        !paths.is_empty() && !paths.iter().any(|path| path.contains("data")),
        "{paths:?}"
    );
    // Not one layer was fetched: the whole definition is judged before anything of it is done.
    let blobs = paths.iter().filter(|path| path.contains("/blobs/"));
    assert_eq!(blobs.count(), 1, "{paths:?}");
}

#[test]
fn contexts_frontends_and_definitions_are_judged_too() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let url = format!("http://{}/data", sources.host);
    let denied = |args: &[&str], source: &str| {
        let option = policy(&env, &[rule("DENY", &format!("*{source}"), Value::Null)]);
        let args = [&["build", &option, "-o", "type=cacheonly"], args].concat();
        let shown = env.fails(3, &args);
        let expected = format!("{source}\" denied by policy");
        assert!(shown.contains(&expected), "{args:?}: {shown}");
    };
    env.write("context/file", "x");
    env.write("context/Dockerfile", "FROM scratch\nCOPY file /\n");
    denied(&[&url], "/data");
    denied(&["-f", &url, "context"], "/data");
    denied(&["context"], "local://context");
    denied(&["context"], "local://dockerfile");
    let image = format!("{}/app/base:1", sources.host);
    env.write(
        "foreign/Dockerfile",
        &format!("# syntax={image}\nFROM scratch\n"),
    );
    denied(&["foreign"], "app/base:1");
    let mut graph = Graph::default();
    let source = graph.source(&url, &[]);
    let path = env.path("graph.llb");
    std::fs::write(&path, graph.end((source, 0))).unwrap();
    denied(&["--llb", path.to_str().unwrap()], "/data");
    assert_eq!(sources.paths(), [""; 0]);
}

#[test]
fn what_takes_a_place_is_looked_up_built_and_told() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let (host, second) = (&sources.host, &sources.second);
    let dockerfile = format!("FROM {host}/app/base:1\nADD http://{host}/data /file\n");
    env.write("context/Dockerfile", &dockerfile);
    let image = format!("docker-image://{host}/app/base:2@{second}");
    let option = policy(
        &env,
        &[
            rule(
                "CONVERT",
                "docker-image://*/app/base:1*",
                json!({"identifier": image}),
            ),
            rule(
                "CONVERT",
                "http://*/data",
                json!({"identifier": "http://$1/other"}),
            ),
        ],
    );
    let out = env.path("out");
    let output = format!("type=local,dest={}", out.display());
    // As buildx finds it.
    let file = option.split_once('=').unwrap().1;
    let args = ["build", "--provenance=mode=max", "-o", &output, "context"];
    run(env
        .cooper(&args)
        .env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", file));
    assert!(out.join("two").exists() && !out.join("one").exists());
    assert_eq!(
        std::fs::read_to_string(out.join("file")).unwrap(),
        "other\n"
    );
    let paths = sources.paths();
    let is_old = |path: &String| path.ends_with("/manifests/1") || path.ends_with("/data");
    assert!(!paths.iter().any(is_old), "{paths:?}");
    check_materials(&out.join("provenance.json"), second, 2);
}

/// Checks that a build used an image, and how many sources there were.
pub(crate) fn check_materials(provenance: &Path, image: &str, count: usize) {
    let said: Value = serde_json::from_slice(&std::fs::read(provenance).unwrap()).unwrap();
    let materials = &said["predicate"]["buildDefinition"]["resolvedDependencies"];
    let materials = materials.as_array().unwrap();
    let urls: Vec<&str> = materials.iter().filter_map(|m| m["uri"].as_str()).collect();
    assert_eq!(urls.len(), count, "{materials:?}");
    assert!(!urls.iter().any(|url| url.ends_with("/data")), "{urls:?}");
    let hex = image.strip_prefix("sha256:").unwrap();
    assert!(
        materials.iter().any(|m| m["digest"]["sha256"] == hex),
        "{materials:?}"
    );
}

#[test]
fn downloads_are_pinned_by_rules() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let url = format!("http://{}/data", sources.host);
    env.write(
        "context/Dockerfile",
        &format!("FROM scratch\nADD {url} /\n"),
    );
    let checksum = format!("sha256:{}", "0".repeat(64));
    let pin = rule(
        "CONVERT",
        &url,
        json!({"attrs": {"http.checksum": checksum}}),
    );
    let option = policy(&env, &[pin]);
    let shown = env.fails(5, &["build", &option, "-o", "type=cacheonly", "context"]);
    assert!(shown.contains(&checksum), "{shown}");
}

#[test]
fn files_that_are_no_policies_are_refused() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    env.write("context/Dockerfile", "FROM scratch\n");
    let path = env.write(
        "policy.json",
        "{\"rules\": [{\"action\": \"FORBID\", \"selector\": {}}]}",
    );
    let option = format!("--source-policy-file={}", path.display());
    let shown = env.fails(3, &["build", &option, "context"]);
    assert!(
        shown.contains("policy.json is no source policy: rules[0].action cannot be \"FORBID\""),
        "{shown}"
    );
    let shown = env.fails(3, &["build", "--source-policy-file=none.json", "context"]);
    assert!(shown.contains("cannot read none.json"), "{shown}");
}
