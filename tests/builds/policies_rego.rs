//! Policies in Rego: what they know of sources, what they ask, and that nothing gets past them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::{TestEnv, ready, run};
use crate::git_server::GitServer;
use crate::policies::Sources;

/// Denies unless `allow` says otherwise.
const FRAME: &str = "package docker\ndefault allow := false\nallow if input.local\n\
decision := {\"allow\": allow, \"deny_msg\": deny_msg}\n\
deny_msg contains \"the rule says no\" if not allow\n";

/// Writes a policy that allows folders and what `rules` allow.
fn policy(env: &TestEnv, path: &str, rules: &str) {
    env.write(path, &format!("{FRAME}{rules}\n"));
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures");
    folder.join(name)
}

fn build(env: &TestEnv, more: &[&str]) {
    env.ok(&[&["build", "-o", "type=cacheonly"], more].concat());
}

fn denied(env: &TestEnv, more: &[&str]) -> String {
    env.fails(3, &[&["build", "-o", "type=cacheonly"], more].concat())
}

#[test]
fn the_policy_beside_the_dockerfile_judges() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let host = &sources.host;
    env.write("context/Dockerfile", &format!("FROM {host}/app/base:1\n"));
    // Denied for its name: its registry is not asked.
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if {\ninput.image.tag == \"2\"\n\"PATH=/bin\" in input.image.env\n}",
    );
    let shown = denied(&env, &["context"]);
    assert!(
        shown.contains("base:1\" not allowed by policy Dockerfile.rego: the rule says no"),
        "{shown}"
    );
    assert!(shown.contains("Dockerfile:1"), "{shown}");
    assert_eq!(sources.paths(), [""; 0]);
    // What the config says is found out where it counts.
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if { input.image.host != \"\"\n\"PATH=/bin\" in input.image.env }",
    );
    build(&env, &["context"]);
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if { input.image.host != \"\"\n\"PATH=/sbin\" in input.image.env }",
    );
    denied(&env, &["context"]);
    // Other Dockerfiles have others beside them, or none.
    env.write("other/Dockerfile.dev", &format!("FROM {host}/app/base:1\n"));
    let other = env.path("other/Dockerfile.dev");
    build(&env, &["-f", other.to_str().unwrap(), "context"]);
    policy(&env, "other/Dockerfile.dev.rego", "");
    denied(&env, &["-f", other.to_str().unwrap(), "context"]);
    build(&env, &["--policy", "disabled=true", "context"]);
}

#[test]
fn policies_are_named_on_the_command_line() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let image = format!("{}/app/base:1", sources.host);
    env.write("context/Dockerfile", &format!("FROM {image}\n"));
    policy(&env, "context/yes.rego", "allow if input.image");
    policy(&env, "context/no.rego", "");
    policy(&env, "outside.rego", "");
    build(&env, &["--policy", "filename=yes.rego", "context"]);
    // All have to allow.
    let both = [
        "--policy",
        "filename=yes.rego",
        "--policy",
        "filename=no.rego",
    ];
    let shown = denied(&env, &[&both[..], &["context"]].concat());
    assert!(shown.contains("policy no.rego"), "{shown}");
    let reset = [
        "--policy",
        "filename=no.rego",
        "--policy",
        "reset=true,filename=yes.rego",
    ];
    build(&env, &[&reset[..], &["context"]].concat());
    denied(
        &env,
        &["--policy", "filename=cwd://outside.rego", "context"],
    );
    let shown = denied(&env, &["--policy", "filename=outside.rego", "context"]);
    assert!(
        shown.contains("policy file outside.rego not found"),
        "{shown}"
    );
    let args = ["build", "--policy", "disabled=true,strict=true", "context"];
    let shown = env.fails(3, &args);
    assert!(shown.contains("cannot be combined"), "{shown}");
    env.fails(2, &["build", "--policy", "file=x", "context"]);
}

#[test]
fn policies_tell_as_much_as_is_wanted() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let image = format!("{}/app/base:1", sources.host);
    env.write("context/Dockerfile", &format!("FROM {image}\n"));
    policy(
        &env,
        "context/loud.rego",
        "allow if { input.image; print(\"seen\", input.image.repo) }",
    );
    let told = |level: &str| {
        let option = format!("filename=loud.rego,log-level={level}");
        let args = [
            "build",
            "--progress=plain",
            "-o",
            "type=cacheonly",
            "--policy",
            &option,
            "context",
        ];
        env.ok(&args).1
    };
    let shown = told("info");
    assert!(
        shown.contains("seen") && shown.contains("loud.rego: ALLOW"),
        "{shown}"
    );
    assert!(!shown.contains("fullRepo"), "{shown}");
    assert!(told("debug").contains("\"fullRepo\""));
    assert!(!told("warn").contains("loud.rego: ALLOW"));
    // Rights that there are none of, and policies that are none.
    env.write(
        "context/caps.rego",
        "package docker\ndecision := {\"allow\": true, \"caps\": {\"exec.proxy\": true}}\n",
    );
    let shown = denied(&env, &["--policy", "filename=caps.rego", "context"]);
    assert!(shown.contains("wants exec.proxy"), "{shown}");
    env.write("context/bad.rego", "package docker\nallow if {\n");
    let shown = denied(&env, &["--policy", "filename=bad.rego", "context"]);
    assert!(shown.contains("bad.rego:"), "{shown}");
}

#[test]
fn images_are_pinned_by_policies() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let (host, second) = (&sources.host, &sources.second);
    env.write("context/Dockerfile", &format!("FROM {host}/app/base:1\n"));
    env.write(
        "context/pins.json",
        &format!("{{\"{host}/app/base\": \"{second}\"}}"),
    );
    let pin = "allow if pin_image(input.image, load_json(\"pins.json\")[input.image.repo])";
    policy(&env, "context/Dockerfile.rego", pin);
    let out = env.path("out");
    let output = format!("type=local,dest={}", out.display());
    env.ok(&["build", "--provenance=mode=max", "-o", &output, "context"]);
    assert!(out.join("two").exists() && !out.join("one").exists());
    let paths = sources.paths();
    assert!(
        !paths.iter().any(|path| path.ends_with("/manifests/1")),
        "{paths:?}"
    );
    crate::policies::check_materials(&out.join("provenance.json"), second, 1);
    // Of several digests none is the right one.
    let two = format!(
        "allow if {{ pin_image(input.image, \"{second}\"); pin_image(input.image, \"sha256:{}\") }}",
        "1".repeat(64)
    );
    policy(&env, "context/Dockerfile.rego", &two);
    let shown = denied(&env, &["context"]);
    assert!(shown.contains("several digests"), "{shown}");
}

#[test]
fn downloads_are_verified_by_policies() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let data = std::fs::read(fixture("data.txt")).unwrap();
    sources.registry.put_file("data", &data);
    let dockerfile = format!("FROM scratch\nADD http://{}/data /\n", sources.host);
    env.write("context/Dockerfile", &dockerfile);
    for name in ["ed.asc", "ed.pub.asc", "rsa.pub.asc"] {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        env.write(&format!("context/{name}"), &text);
    }
    let verify = |keys: &str| {
        let rule =
            format!("allow if verify_http_pgp_signature(input.http, \"ed.asc\", \"{keys}\")");
        policy(&env, "context/Dockerfile.rego", &rule);
    };
    verify("ed.pub.asc");
    build(&env, &["context"]);
    verify("rsa.pub.asc");
    let shown = denied(&env, &["--progress=plain", "context"]);
    assert!(shown.contains("which is none of the given keys"), "{shown}");
    let digest = cooper::oci::Digest::of(&data);
    policy(
        &env,
        "context/Dockerfile.rego",
        &format!("allow if input.http.checksum == \"{digest}\""),
    );
    build(&env, &["context"]);
    sources.registry.put_file("data", b"other");
    denied(&env, &["--no-cache", "context"]);
    // Who wants signatures that nobody here can verify is told so.
    let rule = "allow if artifact_attestation(input.http, \"b.json\").signer";
    policy(&env, "context/Dockerfile.rego", rule);
    let shown = denied(&env, &["--progress=plain", "context"]);
    assert!(
        shown.contains("attestations of Sigstore cannot be verified here"),
        "{shown}"
    );
}

#[test]
fn commits_are_verified_by_policies() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let repository = env.path("origin/r.git");
    std::fs::create_dir_all(&repository).unwrap();
    let git = |args: &[&str]| run(Command::new("git").args(args).current_dir(&repository));
    git(&["init", "--quiet", "--bare"]);
    let bundle = fixture("signed.bundle");
    git(&[
        "fetch",
        "--quiet",
        bundle.to_str().unwrap(),
        "+refs/*:refs/*",
    ]);
    let server = GitServer::start(&env.path("origin"), None);
    for name in ["ed.pub.asc", "rsa.pub.asc", "sshed.pub"] {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        env.write(&format!("context/{name}"), &text);
    }
    let url = server.smart("r.git");
    let from = |reference: &str| {
        let dockerfile = format!("FROM scratch\nADD {url}#{reference} /src\n");
        env.write("context/Dockerfile", &dockerfile);
    };
    let verify = |object: &str, keys: &str| {
        let rule = format!("allow if verify_git_signature(input.git.{object}, \"{keys}\")");
        policy(&env, "context/Dockerfile.rego", &rule);
    };
    for (reference, object, keys, is_allowed) in [
        ("pgp", "commit", "ed.pub.asc", true),
        ("ssh", "commit", "sshed.pub", true),
        ("main", "commit", "ed.pub.asc", false),
        ("pgp", "commit", "sshed.pub", false),
        ("v-pgp", "tag", "rsa.pub.asc", true),
        ("v-pgp", "tag", "ed.pub.asc", false),
        ("v-pgp", "commit", "ed.pub.asc", true),
        ("v-plain", "tag", "ed.pub.asc", false),
    ] {
        from(reference);
        verify(object, keys);
        match is_allowed {
            true => build(&env, &["context"]),
            false => drop(denied(&env, &["context"])),
        }
    }
    from("pgp");
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if { input.git.branch == \"pgp\"; input.git.commit.pgpSignature.keyID }",
    );
    build(&env, &["context"]);
    // For its name alone nobody asks the server.
    server.take_log();
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if input.git.host == \"github.com\"",
    );
    denied(&env, &["context"]);
    assert!(server.take_log().is_empty());
}

#[test]
fn a_context_from_elsewhere_brings_its_policy() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let put = |rules: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let policy = format!("{FRAME}{rules}\n");
        for (name, text) in [
            ("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n"),
            ("Dockerfile.rego", &policy),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        sources
            .registry
            .put_file("context.tar", &tar.into_inner().unwrap());
    };
    let url = format!("http://{}/context.tar", sources.host);
    put("allow if input.http.path == \"/context.tar\"");
    build(&env, &[&url]);
    put("allow if input.http.path == \"/other.tar\"");
    let shown = denied(&env, &["--no-cache", &url]);
    assert!(
        shown.contains("context.tar\" not allowed by policy"),
        "{shown}"
    );
}

#[test]
fn provenance_of_base_images_counts() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let host = &sources.host;
    let base = format!("{host}/app/attested:1");
    env.write("base/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    env.ok(&[
        "build",
        "--provenance=mode=max,builder-id=https://ci/1",
        "--push",
        "-t",
        &base,
        "base",
    ]);
    policy(
        &env,
        "context/Dockerfile.rego",
        "allow if input.image.provenance.builderID == \"https://ci/1\"",
    );
    env.write("context/Dockerfile", &format!("FROM {base}\n"));
    // A machine that never saw it.
    let other = TestEnv::empty();
    let context = env.path("context");
    build(&other, &[context.to_str().unwrap()]);
    env.write("context/Dockerfile", &format!("FROM {host}/app/base:1\n"));
    let shown = denied(&other, &[context.to_str().unwrap()]);
    assert!(shown.contains("app/base:1"), "{shown}");
}

#[test]
fn the_default_policy_is_opt_in() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    env.write("context/Dockerfile", "FROM docker/dockerfile:1.21\n");
    let args = ["build", "--pull=never", "context"];
    let shown = env.fails(3, &args);
    assert!(shown.contains("not in the local store"), "{shown}");
    let output = env
        .cooper(&args)
        .env("BUILDX_DEFAULT_POLICY", "1")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        shown.contains("cannot find out what the policy asks"),
        "{shown}"
    );
}

#[test]
fn policies_are_evaluated_and_tested_without_a_build() {
    if !ready() {
        return;
    }
    let (env, sources) = (TestEnv::empty(), Sources::start());
    let (host, second) = (&sources.host, &sources.second);
    let image = format!("docker-image://{host}/app/base:1");
    policy(&env, "Dockerfile.rego", "allow if input.image.tag == \"1\"");
    assert_eq!(env.ok(&["policy", "eval", &image]).0, "ALLOW\n");
    let other = format!("docker-image://{host}/app/base:2");
    let shown = env.fails(3, &["policy", "eval", &other]);
    assert!(shown.contains("the rule says no"), "{shown}");
    policy(
        &env,
        "pin.rego",
        &format!("allow if pin_image(input.image, \"{second}\")"),
    );
    let (pinned, _) = env.ok(&["policy", "eval", "-f", "pin", &image]);
    assert_eq!(pinned, format!("CONVERT {image}@{second}\n"));
    let (input, _) = env.ok(&["policy", "eval", "--print", "--fields=image.env", &other]);
    let input: serde_json::Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input["image"]["checksum"], second.as_str());
    assert_eq!(input["image"]["env"][0], "PATH=/bin");
    let (input, _) = env.ok(&["policy", "eval", "--print", &other]);
    assert!(
        !input.contains("PATH=/bin") && input.contains("\"tag\": \"2\""),
        "{input}"
    );
    let with =
        |tag: &str| format!("decision.allow with input as {{\"image\": {{\"tag\": \"{tag}\"}}}}");
    let good = format!("package docker\ntest_one if {}\n", with("1"));
    env.write("Dockerfile_test.rego", &good);
    let (shown, _) = env.ok(&["policy", "test", "."]);
    assert_eq!(shown, "test_one: PASS (allow=true)\n");
    let bad = format!("{good}test_two if {}\n", with("2"));
    env.write("Dockerfile_test.rego", &bad);
    let shown = env.fails(3, &["policy", "test", "Dockerfile_test.rego"]);
    assert!(shown.contains("1 of 2 tests failed"), "{shown}");
    env.ok(&["policy", "test", "--run=one", "."]);
}
