//! Warnings of a build: at its end, in the JSON stream, in the metadata file; and as errors.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::env::{TestEnv, ready, run};

const DOCKERFILE: &str = "FROM scratch as base\nLABEL a=$b \\\n  c=d\n";

const LISTED: &str = " 2 warnings found (use --debug to expand):
 - FromAsCasing: 'as' and 'FROM' differ in case (line 1)
     1 | FROM scratch as base
       |              ^^ write AS
 - UndefinedVar: the variable $b is not set here (line 2)
     2 | LABEL a=$b \\
       |          ^
";

fn env_with(dockerfile: &str) -> (TestEnv, String) {
    let env = TestEnv::busybox();
    env.write("context/Dockerfile", dockerfile);
    let context = env.path("context").to_str().unwrap().to_owned();
    (env, context)
}

fn stderr(command: &mut Command) -> String {
    String::from_utf8_lossy(&run(command).stderr).into_owned()
}

#[test]
fn are_listed_once_with_their_lines() {
    if !ready() {
        return;
    }
    let (env, context) = env_with(DOCKERFILE);
    for mode in ["plain", "tty"] {
        let shown = env.ok(&["build", "--progress", mode, &context]).1;
        assert_eq!(shown.matches(LISTED).count(), 1, "{mode}:\n{shown}");
        assert_eq!(shown.matches("UndefinedVar").count(), 1, "{mode}:\n{shown}");
    }
    let quiet = env.ok(&["build", "--quiet", &context]).1;
    assert_eq!(quiet, "");
    let debug = env.ok(&["--debug", "build", &context]).1;
    let link = "https://docs.docker.com/go/dockerfile/rule/undefined-var/";
    for part in [
        " 2 warnings found:\n",
        link,
        "   3 | >>>   c=d\n",
        "Variables are set",
    ] {
        assert!(debug.contains(part), "{part} is not in\n{debug}");
    }
}

#[test]
fn an_argument_nobody_declares_is_no_place_in_the_file() {
    if !ready() {
        return;
    }
    let (env, context) = env_with("ARG VERSION\nFROM scratch\nLABEL a=b\n");
    let shown = env.ok(&["build", "--build-arg", "VERSON=1", &context]).1;
    let line = "WARNING: the build argument VERSON is not used: no ARG declares it (did you mean";
    assert!(shown.contains(line), "{shown}");
    assert!(!shown.contains("warning found"), "{shown}");
}

#[test]
fn are_errors_where_the_file_says_so() {
    if !ready() {
        return;
    }
    let text = format!("# check=error=true;skip=FromAsCasing\n{DOCKERFILE}RUN must not run\n");
    let (env, context) = env_with(&text);
    let shown = env.fails(3, &["build", "--progress", "plain", &context]);
    assert!(shown.contains(" 1 warning found"), "{shown}");
    assert!(shown.contains("ERROR: the Dockerfile makes"), "{shown}");
    assert!(!shown.contains("must not run"), "{shown}");
    env.write("context/Dockerfile", &format!("{DOCKERFILE}BAD\n"));
    let shown = env.fails(3, &["build", &context]);
    assert!(shown.contains("FromAsCasing"), "{shown}");
    assert!(shown.contains("unknown instruction `BAD`"), "{shown}");
}

fn decoded(text: &Value) -> String {
    String::from_utf8(STANDARD.decode(text.as_str().unwrap()).unwrap()).unwrap()
}

/// Checks the JSON of the second warning.
fn check(warning: &Value) {
    let short = "UndefinedVar: the variable $b is not set here (line 2)";
    assert_eq!(decoded(&warning["short"]), short);
    let detail = decoded(&warning["detail"][0]);
    assert_eq!(detail, "Variables are set before they are used");
    let line = |line| json!({ "start": { "line": line }, "end": { "line": line } });
    assert_eq!(warning["range"], json!([line(2), line(3)]));
    assert_eq!(warning["level"], 1);
    assert_eq!(warning["sourceInfo"]["filename"], "Dockerfile");
    assert_eq!(decoded(&warning["sourceInfo"]["data"]), DOCKERFILE);
}

#[test]
fn are_in_the_json_stream_and_on_demand_in_the_metadata_file() {
    if !ready() {
        return;
    }
    let (env, context) = env_with(DOCKERFILE);
    let stream = env.ok(&["build", "--progress", "rawjson", &context]).1;
    let lines = stream.lines().map(|line| line.parse::<Value>().unwrap());
    let events: Vec<Value> = lines.collect();
    let warnings: Vec<&Value> = events
        .iter()
        .filter_map(|event| event.get("warnings"))
        .collect();
    assert_eq!(warnings.len(), 2, "{stream}");
    check(&warnings[1][0]);
    let vertex = &warnings[1][0]["vertex"];
    let is_known = |event: &Value| event["vertexes"][0]["digest"] == *vertex;
    assert!(events.iter().any(is_known), "{stream}");

    let file = env.path("metadata.json");
    let build = ["build", "--metadata-file", file.to_str().unwrap(), &context];
    for (value, expected) in [("", 0), ("0", 0), ("true", 2)] {
        stderr(env.cooper(&build).env("BUILDX_METADATA_WARNINGS", value));
        let metadata: Value = fs::read_to_string(&file).unwrap().parse().unwrap();
        match expected {
            0 => assert!(metadata.get("buildx.build.warnings").is_none()),
            _ => {
                let warnings = metadata["buildx.build.warnings"].as_array().unwrap();
                assert_eq!(warnings.len(), expected);
                check(&warnings[1]);
            }
        }
    }
}
