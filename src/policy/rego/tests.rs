//! Policies in Rego by example.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::oci::{ContainerConfig, Digest, ImageConfig};
use crate::policy::{AttestationFacts, CommitFacts, FileFacts, GitObject, ImageFacts, ObjectFacts};

const ALPINE: &str = "docker-image://docker.io/library/alpine:3.19";
const DIGEST: &str = "sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d";

/// Files by path.
struct Texts(BTreeMap<String, String>);

impl PolicyFiles for Texts {
    fn read(&self, path: &str) -> Result<Option<String>, String> {
        Ok(self.0.get(path).cloned())
    }
}

fn files(texts: &[(&str, &str)]) -> Arc<dyn PolicyFiles> {
    let texts = texts
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    Arc::new(Texts(texts.collect()))
}

fn policy(text: &str) -> RegoPolicy {
    let modules = vec![("policy.rego".to_owned(), format!("package docker\n{text}"))];
    RegoPolicy::read(modules, &files(&[])).unwrap()
}

fn source(identifier: &str) -> pb::SourceOp {
    pb::SourceOp {
        identifier: identifier.to_owned(),
        ..pb::SourceOp::default()
    }
}

fn round_with(
    policy: &RegoPolicy,
    source: &pb::SourceOp,
    facts: &Facts,
    files: &Arc<dyn PolicyFiles>,
) -> Result<Round, String> {
    let env = Env {
        args: [("A".to_owned(), "b".to_owned())].into(),
        filename: "Dockerfile".to_owned(),
        ..Env::default()
    };
    let case = Case {
        source,
        platform: &Platform::linux("amd64", ""),
        env: &env,
        facts,
        now_s: 1_700_000_000,
    };
    policy.judge(&case, files)
}

fn round(text: &str, identifier: &str, facts: &Facts) -> Round {
    round_with(&policy(text), &source(identifier), facts, &files(&[])).unwrap()
}

fn image_facts() -> Facts {
    Facts {
        image: Some(ImageFacts {
            digest: DIGEST.parse().unwrap(),
            config: ImageConfig {
                created: Some("2023-11-14T22:00:00.123456789Z".to_owned()),
                config: ContainerConfig {
                    labels: Some([("team".to_owned(), "a".to_owned())].into()),
                    user: "nobody".to_owned(),
                    env: vec!["PATH=/bin".to_owned()],
                    ..ContainerConfig::default()
                },
                ..ImageConfig::default()
            },
        }),
        ..Facts::default()
    }
}

fn commit_facts() -> Facts {
    Facts {
        commit: Some(CommitFacts {
            reference: "refs/tags/v1".to_owned(),
            object: "1".repeat(40),
            commit: "2".repeat(40),
        }),
        objects: Some(ObjectFacts {
            commit: GitObject {
                data: b"tree t\nauthor A <a@b> 0 +0000\n\nfix\n".to_vec(),
                signature: None,
            },
            tag: None,
        }),
        ..Facts::default()
    }
}

/// Says whether an expression holds for a source of which everything is known.
fn holds(expression: &str, identifier: &str, facts: &Facts) -> bool {
    let text =
        format!("default allow := false\nallow if {expression}\ndecision := {{\"allow\": allow}}");
    round(&text, identifier, facts).decision.is_allowed
}

#[test]
fn policies_see_images() {
    let facts = image_facts();
    for expression in [
        r#"input.image.ref == "docker.io/library/alpine:3.19""#,
        r#"input.image.host == "docker.io""#,
        r#"input.image.repo == "alpine""#,
        r#"input.image.fullRepo == "docker.io/library/alpine""#,
        r#"input.image.tag == "3.19""#,
        r#"input.image.platform == "linux/amd64""#,
        r#"input.image.arch == "amd64""#,
        r#"not input.image.isCanonical"#,
        &format!("input.image.checksum == {DIGEST:?}"),
        r#"input.image.labels.team == "a""#,
        r#"input.image.createdTime == "2023-11-14T22:00:00Z""#,
        r#"input.image.user == "nobody""#,
        r#""PATH=/bin" in input.image.env"#,
        r#"input.env.args.A == "b""#,
        r#"input.env.filename == "Dockerfile""#,
        "input.env.depth == 0",
        "not input.git",
        "time.now_ns() - time.parse_rfc3339_ns(input.image.createdTime) < time.parse_duration_ns(\"1h\")",
        r#"glob.match("alp*", [], input.image.repo)"#,
        r#"semver.compare("1.2.3", "1.10.0") == -1"#,
        r#"startswith(input.image.tag, "3.")"#,
        r#"regex.match(`^\d+\.\d+$`, input.image.tag)"#,
    ] {
        assert!(holds(expression, ALPINE, &facts), "{expression}");
    }
    let pinned = format!("{ALPINE}@{DIGEST}");
    assert!(holds("input.image.isCanonical", &pinned, &Facts::default()));
    assert!(!holds("input.image.labels.team == \"b\"", ALPINE, &facts));
}

#[test]
fn policies_see_downloads_repositories_and_folders() {
    let file = Facts {
        file: Some(FileFacts {
            digest: DIGEST.parse().unwrap(),
            open: Arc::new(|| Ok(Box::new(Cursor::new(Vec::new())))),
        }),
        ..Facts::default()
    };
    let url = "https://me@example.com:8443/a%20b/c?x=1&x=2&y=%2f";
    for expression in [
        r#"input.http.schema == "https""#,
        r#"startswith(input.http.url, "https://example.com:8443/a")"#,
        r#"input.http.host == "example.com:8443""#,
        r#"input.http.path == "/a b/c""#,
        r#"input.http.query.x == ["1", "2"]"#,
        r#"input.http.query.y[0] == "/""#,
        &format!("input.http.checksum == {DIGEST:?}"),
        "not input.http.hasAuth",
    ] {
        assert!(holds(expression, url, &file), "{expression}");
    }
    let git = "git://github.com/o/r.git#v1:sub";
    let commit = "2".repeat(40);
    for expression in [
        r#"input.git.schema == "https""#,
        r#"input.git.host == "github.com""#,
        r#"input.git.remote == "https://github.com/o/r.git""#,
        r#"input.git.subDir == "sub""#,
        r#"input.git.ref == "refs/tags/v1""#,
        r#"input.git.tagName == "v1""#,
        "input.git.isAnnotatedTag",
        &format!("input.git.commitChecksum == {commit:?}"),
        r#"input.git.commit.author.email == "a@b""#,
        r#"input.git.commit.message == "fix""#,
        "not input.git.commit.pgpSignature",
    ] {
        assert!(holds(expression, git, &commit_facts()), "{expression}");
    }
    let by_commit = format!("git://github.com/o/r.git#{commit}");
    assert!(holds(
        "input.git.isCommitRef",
        &by_commit,
        &Facts::default()
    ));
    assert!(holds(
        "input.local.name == \"context\"",
        "local://context",
        &Facts::default()
    ));
    let unknown = round_with(
        &policy("decision := {\"allow\": true}"),
        &source("oci-layout://x@sha256:1"),
        &Facts::default(),
        &files(&[]),
    );
    assert!(
        unknown
            .unwrap_err()
            .contains("know nothing of sources like")
    );
}

#[test]
fn what_is_known_decides_without_questions() {
    let text = r#"
default allow := false
allow if {
    input.image.host == "docker.io"
    input.image.labels.team == "a"
}
deny_msg contains "not ours" if not allow
decision := {"allow": allow, "deny_msg": deny_msg}
"#;
    // Another host is denied whatever its labels are.
    let denied = round(text, "docker-image://evil.example/x:1", &Facts::default());
    assert!(
        denied.questions.is_empty() && !denied.decision.is_allowed,
        "{denied:?}"
    );
    assert_eq!(denied.decision.messages, ["not ours"]);
    let asking = round(text, ALPINE, &Facts::default());
    assert_eq!(asking.questions, [Question::Image].into());
    assert!(round(text, ALPINE, &image_facts()).decision.is_allowed);
}

#[test]
fn whatever_could_deny_is_found_out_before_a_source_is_allowed() {
    for (text, identifier, question) in [
        (
            "deny if { key := \"labels\"; input.image[key].bad }",
            ALPINE,
            Question::Image,
        ),
        (
            "deny if input.git.commit.message == \"x\"",
            "git://h/r.git",
            Question::Objects,
        ),
        (
            "deny if input.git.branch == \"x\"",
            "git://h/r.git",
            Question::Commit,
        ),
        (
            "deny if input.http.checksum == \"x\"",
            "https://h/f",
            Question::File,
        ),
        (
            "deny if docker_github_builder(input.image, \"o/r\")",
            ALPINE,
            Question::Attestations,
        ),
        (
            "deny if input.image.hasProvenance",
            ALPINE,
            Question::Attestations,
        ),
    ] {
        let text =
            format!("default deny := false\n{text}\ndecision := {{\"allow\": deny == false}}");
        let round = round(&text, identifier, &Facts::default());
        assert!(round.questions.contains(&question), "{text}: {round:?}");
    }
    // Comments ask nothing.
    let silent = round(
        "# labels\ndecision := {\"allow\": true}",
        ALPINE,
        &Facts::default(),
    );
    assert_eq!(silent.questions, BTreeSet::new());
}

#[test]
fn provenance_is_read() {
    let statement = json!({
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "t",
                "externalParameters": {
                    "configSource": {"uri": "https://h/r.git#main", "digest": {"sha1": "1"}, "path": "Dockerfile"},
                    "request": {"frontend": "dockerfile.v0", "args": {"build-arg:X": "y", "target": "z"}},
                },
                "resolvedDependencies": [
                    {"uri": "pkg:docker/alpine@3.19?platform=linux%2Farm64", "digest": {"sha256": "2".repeat(64)}},
                    {"uri": "https://h/r.git#main", "digest": {"sha1": "1"}},
                    {"uri": "https://h/file", "digest": {"sha256": "3".repeat(64)}},
                    {"uri": "strange:thing"},
                ],
            },
            "runDetails": {
                "builder": {"id": "https://ci"},
                "metadata": {"startedOn": "2024-01-01T00:00:00.5Z", "buildkit_hermetic": true},
            },
        },
    });
    let facts = Facts {
        attestations: Some(AttestationFacts {
            is_attested: true,
            provenance: Some(statement.to_string().into_bytes()),
        }),
        ..image_facts()
    };
    for expression in [
        "input.image.hasProvenance",
        "input.image.provenance.builderID == \"https://ci\"",
        "input.image.provenance.configSource.path == \"Dockerfile\"",
        "input.image.provenance.buildArgs == {\"X\": \"y\"}",
        "input.image.provenance.rawArgs.target == \"z\"",
        "input.image.provenance.startedOn == \"2024-01-01T00:00:00Z\"",
        "input.image.provenance.hermetic",
        "input.image.provenance.reproducible == false",
        "input.image.provenance.completeness.materials == false",
        "count(input.image.provenance.materials) == 3",
        "input.image.provenance.materials[0].image.arch == \"arm64\"",
        "input.image.provenance.materials[0].image.isCanonical",
        "input.image.provenance.materials[1].git.remote == \"https://h/r.git\"",
        "input.image.provenance.materials[2].http.host == \"h\"",
        "input.image.provenance.materials[2].env.depth == 1",
    ] {
        assert!(holds(expression, ALPINE, &facts), "{expression}");
    }
}

#[test]
fn functions_read_pin_and_verify() {
    let files = files(&[("pins.json", &format!("{{\"alpine\": {DIGEST:?}}}"))]);
    let text = r#"
pins := load_json("pins.json")
decision := {"allow": pin_image(input.image, pins[input.image.repo])}
"#;
    let judge = |text: &str, identifier: &str, facts: &Facts| {
        round_with(&policy(text), &source(identifier), facts, &files).unwrap()
    };
    let pinned = judge(text, ALPINE, &Facts::default());
    assert!(pinned.decision.is_allowed);
    let digest: Digest = DIGEST.parse().unwrap();
    assert_eq!(pinned.decision.pins, [digest].into());
    let done = judge(text, &format!("{ALPINE}@{DIGEST}"), &Facts::default());
    assert!(
        done.decision.is_allowed && done.decision.pins.is_empty(),
        "{done:?}"
    );
    // What fails has no value, and says why.
    for (text, identifier, facts, note) in [
        (
            "load_json(\"none.json\")",
            ALPINE,
            Facts::default(),
            "there is no file none.json",
        ),
        (
            "pin_image({}, \"sha256:1\")",
            ALPINE,
            Facts::default(),
            "has to be input.image",
        ),
        (
            "verify_git_signature(input.git.commit, \"pins.json\")",
            "git://h/r.git#v1",
            commit_facts(),
            "the object is not signed",
        ),
        (
            "artifact_attestation(input.http, \"b.json\")",
            "https://h/f",
            Facts::default(),
            "Sigstore",
        ),
    ] {
        let text = format!("default ok := false\nok if {text}\ndecision := {{\"allow\": ok}}");
        let round = judge(&text, identifier, &facts);
        assert!(!round.decision.is_allowed, "{text}");
        assert!(
            round.notes.iter().any(|n| n.contains(note)),
            "{text}: {:?}",
            round.notes
        );
    }
    let asking = "default ok := false\nok if verify_git_signature(input.git, \"k\")\ndecision := {\"allow\": ok}";
    let round = judge(asking, "git://h/r.git", &Facts::default());
    assert!(round.questions.contains(&Question::Objects));
}

#[test]
fn modules_import_others() {
    let files = files(&[
        (
            "lib/names.rego",
            "package anything # here\nimport data.lib.more\ngood := more.names\n",
        ),
        ("lib/more.rego", "package x\nnames := {\"alpine\"}\n"),
    ]);
    let text = "package docker\nimport data.lib.names as list\ndecision := {\"allow\": input.image.repo in list.good}\n";
    let modules = vec![("policy.rego".to_owned(), text.to_owned())];
    let policy = RegoPolicy::read(modules, &files).unwrap();
    let judged = round_with(&policy, &source(ALPINE), &Facts::default(), &files).unwrap();
    assert!(judged.decision.is_allowed);
    let modules = vec![(
        "p.rego".to_owned(),
        "package docker\nimport data.none\n".to_owned(),
    )];
    let error = RegoPolicy::read(modules, &files).unwrap_err();
    assert_eq!(error, "p.rego imports data.none: there is no none.rego");
    // What is there already is not looked for.
    let modules = [
        ("p.rego", "package docker\ndecision := {}\n"),
        ("p_test.rego", "package p_test\nimport data.docker\n"),
    ];
    let modules = modules.map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert!(RegoPolicy::read(modules.to_vec(), &files).is_ok());
}

#[test]
fn policies_print_and_fail() {
    let printed = round(
        "decision := {\"allow\": true} if print(\"seen\", input.image.repo)",
        ALPINE,
        &Facts::default(),
    );
    assert!(
        printed.notes.iter().any(|n| n.contains("seen alpine")),
        "{:?}",
        printed.notes
    );
    let judge = |text: &str| {
        round_with(
            &policy(text),
            &source(ALPINE),
            &Facts::default(),
            &files(&[]),
        )
    };
    let error = judge("decision := {\"allow\": true} if input.image.repo == \"x\"").unwrap_err();
    assert!(
        error.contains("leaves `decision` of package docker undefined"),
        "{error}"
    );
    assert!(
        judge("decision := true")
            .unwrap_err()
            .contains("not an object")
    );
    assert!(judge("decision := {\"allow\": none(1)}").is_err());
    assert!(judge("decision := {\"allow\": http.send({}).x}").is_err());
    let read = |text: &str| {
        let text = format!("package docker\n{text}\n");
        RegoPolicy::read(vec![("p.rego".to_owned(), text)], &files(&[]))
    };
    let nested = |depth: usize| format!("x := {}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&nested(NESTING_MAX)).is_ok());
    let error = read(&nested(NESTING_MAX + 1)).unwrap_err();
    assert!(error.contains("more than 16 others"), "{error}");
    let error = read("f(x) := f(x)").unwrap_err();
    assert!(error.contains("f calls itself"), "{error}");
    // Rules are found out when they are evaluated.
    assert!(judge("a if b\nb if a\ndecision := {\"allow\": a}").is_err());
    let bad = RegoPolicy::read(
        vec![("p.rego".to_owned(), "package docker\nallow {".to_owned())],
        &files(&[]),
    );
    let error = bad.unwrap_err();
    assert!(error.contains("p.rego:2"), "{error}");
}

#[test]
fn decisions_may_be_made_of_parts() {
    for text in [
        "decision[\"allow\"] := true",
        "decision.allow := true\ndecision.deny_msg contains \"x\" if input.git",
        "default decision := {}\ndecision := {\"allow\": true} if input.image",
    ] {
        let decision = round(text, ALPINE, &Facts::default()).decision;
        assert!(decision.is_allowed, "{text}");
    }
    let marked = "\u{feff}package docker\ndecision := {\"allow\": true}".to_owned();
    assert!(RegoPolicy::read(vec![("p.rego".to_owned(), marked)], &files(&[])).is_ok());
}

#[test]
fn functions_that_fail_have_no_value() {
    for expression in [
        "not to_number(input.image.repo)",
        "not json.unmarshal(\"x\")",
        "not startswith(1, \"a\")",
        "not 1 / (count([]) + 0)",
        "x == 7",
    ] {
        let text = format!(
            "default allow := false\nallow if {expression}\ndefault x := 7\nx := to_number(\"a\")\ndecision := {{\"allow\": allow}}"
        );
        let round = round(&text, ALPINE, &Facts::default());
        assert!(round.decision.is_allowed, "{expression}: {round:?}");
    }
}

#[test]
fn what_a_negation_is_about_has_to_be_there() {
    for (expression, expected) in [
        ("not startswith(input.git.remote, \"x\")", false),
        ("not input.git.host in {\"x\"}", false),
        ("not input.git.size > 1", false),
        ("not input.git.host != \"x\"", false),
        ("not count(input.git.tags) == 0", false),
        ("not (input.git.size > 1)", false),
        ("not [input.git.host] == [\"x\"]", false),
        ("not input.git.host == \"x\"", true),
        ("not input.git.remote", true),
        ("not startswith(input.image.repo, \"x\")", true),
        ("not startswith(input.image.repo, \"al\")", false),
        ("not input.image.host in {\"x\"}", true),
        ("not input.image.host in {\"docker.io\"}", false),
        ("not count(input.image.repo) > 6", true),
        ("not input.image.repo != \"alpine\"", true),
        ("not count(input.image.repo) == 6", false),
        (
            "not of_git with input as {\"git\": {\"remote\": \"y\"}}",
            true,
        ),
        (
            "{ some prefix in [\"x\", \"al\"]; not startswith(input.image.repo, prefix) }",
            true,
        ),
        (
            "{ every prefix in [\"x\", \"al\"] { not startswith(input.image.repo, prefix) } }",
            false,
        ),
        (
            "{ not startswith(\n\tinput.image.repo, # why\n\t\"x\"); true }",
            true,
        ),
        ("{ prefix := \"x\"; not of_image(prefix) }", true),
        ("{ prefix := \"al\"; not of_image(prefix) }", false),
    ] {
        let text = format!(
            "default allow := false\nallow if {expression}\ndecision := {{\"allow\": allow}}\n\
             of_git if startswith(input.git.remote, \"x\")\n\
             of_image(prefix) if startswith(input.image.repo, prefix)"
        );
        let round = round(&text, ALPINE, &Facts::default());
        assert_eq!(
            round.decision.is_allowed, expected,
            "{expression}: {round:?}"
        );
    }
}

#[test]
fn policies_without_an_end_are_stopped() {
    let text = "decision := {\"allow\": count([1 | some i in numbers.range(0, 3000); some j in numbers.range(0, 30000); i == j]) > 0}";
    let mut policy = policy(text);
    policy
        .engine
        .set_execution_timer_config(ExecutionTimerConfig {
            limit: Duration::from_millis(50),
            check_interval: TIME_CHECK_STEPS,
        });
    let error = round_with(&policy, &source(ALPINE), &Facts::default(), &files(&[])).unwrap_err();
    assert!(error.contains("time"), "{error}");
}

#[test]
fn tests_of_policies_are_run() {
    let policy = "package docker\ndefault allow := false\nallow if input.image.repo == \"a\"\ndecision := {\"allow\": allow}\n";
    let tests = "package docker\n\ntest_a if decision.allow with input as {\"image\": {\"repo\": \"a\"}}\n\ntest_b if decision.allow with input as {\"image\": {\"repo\": \"b\"}}\n\nother if test_a\n";
    let modules = [("p.rego", policy), ("p_test.rego", tests)];
    let modules = modules.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let files = files(&[]);
    let policy = RegoPolicy::read(modules.to_vec(), &files).unwrap();
    let ran = |run: &str| {
        let outcomes = policy.test(run, &files).unwrap().into_iter();
        outcomes
            .map(|outcome| (outcome.name, outcome.is_passed))
            .collect::<Vec<_>>()
    };
    let expected = [("test_a".to_owned(), true), ("test_b".to_owned(), false)];
    assert_eq!(ran(""), expected);
    assert_eq!(ran("_b"), expected[1..]);
}

#[test]
fn rights_are_asked_for() {
    let env = Env::default();
    let rights = |text: &str| policy(text).rights(&env, &files(&[]));
    assert!(rights("decision := {\"allow\": true}").unwrap().is_empty());
    let wanting = "decision := {\"caps\": {\"exec.proxy\": true}} if input.env.capsRequest\ndecision := {\"allow\": true} if not input.env.capsRequest";
    assert_eq!(rights(wanting).unwrap().len(), 1);
    assert!(rights("decision := {\"allow\": true} if input.image").is_err());
}

#[test]
fn the_default_policy_wants_dockers_builders_to_sign() {
    let policy = RegoPolicy::read(vec![default_policy()], &files(&[])).unwrap();
    let known = Facts {
        attestations: Some(AttestationFacts::default()),
        ..Facts::default()
    };
    for (name, is_allowed) in [
        ("docker.io/library/alpine:latest", true),
        ("docker.io/docker/dockerfile:1", false),
        ("docker.io/docker/dockerfile:1.20", true),
        ("docker.io/docker/dockerfile:1.21", false),
        ("docker.io/docker/dockerfile:1.21.0-labs", false),
        ("docker.io/docker/dockerfile:latest", false),
        ("docker.io/docker/dockerfile-upstream:master", false),
        ("docker.io/docker/buildkit-syft-scanner:1.9.0", true),
        ("docker.io/docker/buildkit-syft-scanner:1.10", false),
        ("docker.io/moby/buildkit:v0.26.3", true),
        ("docker.io/moby/buildkit:v0.27.0-rootless", false),
        ("docker.io/moby/buildkit:buildx-stable-1", false),
        ("docker.io/moby/buildkit:buildx-stable-1-gpu", false),
        ("docker.io/moby/buildkit:buildx-stable-1-x", true),
        ("docker.io/moby/buildkit:0.27.0", true),
        ("docker.io/docker/dockerfile:1.21.0-x", true),
        ("docker.io/moby/buildkit:master-cache", true),
    ] {
        let source = source(&format!("docker-image://{name}"));
        let round = round_with(&policy, &source, &known, &files(&[])).unwrap();
        assert_eq!(round.decision.is_allowed, is_allowed, "{name}: {round:?}");
    }
    let local = round_with(
        &policy,
        &source("local://context"),
        &Facts::default(),
        &files(&[]),
    );
    assert!(local.unwrap().decision.is_allowed);
}

/// Lines of an example in the documentation that say what it decides: `# ALLOW local://context`.
#[test]
fn the_examples_of_the_documentation_decide_as_they_say() {
    let page = include_str!("../../../docs/policies.md");
    let mut count = 0;
    for example in page.split("```rego\n").skip(1) {
        let text = example.split("```").next().unwrap();
        let policy = RegoPolicy::read(
            vec![("example.rego".to_owned(), text.to_owned())],
            &files(&[("pins.json", &format!("{{\"alpine\": {DIGEST:?}}}"))]),
        )
        .unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
            let Some((word, identifier)) = line.split_once(' ') else {
                continue;
            };
            let expected = match word {
                "ALLOW" => true,
                "DENY" => false,
                _ => continue,
            };
            let files = files(&[("pins.json", &format!("{{\"alpine\": {DIGEST:?}}}"))]);
            let facts = Facts {
                commit: commit_facts().commit,
                ..image_facts()
            };
            let round = round_with(&policy, &source(identifier), &facts, &files).unwrap();
            assert_eq!(round.decision.is_allowed, expected, "{line}: {round:?}");
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} cases");
}
