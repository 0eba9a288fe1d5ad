//! Walks `tests/fixtures/call`: questions asked with the binary, and the answers.
//!
//! Each folder holds `commands.txt` (`name: arguments`, run in order in a copy of the folder) and
//! for each command `name.txt`: exit code, stdout, stderr.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs a command and returns exit code, stdout and stderr.
fn run(folder: &Path, store: &Path, arguments: &str) -> (i32, String, String) {
    let escaped = arguments.replace("\\ ", "\0");
    let words = escaped
        .split_whitespace()
        .map(|word| word.replace('\0', " "));
    let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
        .arg("build")
        .arg("--root")
        .arg(store)
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("HOME", store)
        .env("BUILDKIT_PROGRESS", "quiet")
        .output()
        .unwrap();
    let folder = folder.canonicalize().unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace(folder.to_str().unwrap(), "FOLDER")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    };
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// Holds a log to what SARIF 2.1.0 requires.
fn check_sarif(text: &str) {
    let log: Value = serde_json::from_str(text).unwrap();
    assert_eq!(log["version"], "2.1.0");
    for run in log["runs"].as_array().unwrap() {
        let driver = &run["tool"]["driver"];
        assert_eq!(driver["name"], "cooper");
        let rules = driver["rules"].as_array().unwrap();
        for rule in rules {
            assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
        }
        for result in run["results"].as_array().unwrap() {
            assert!(result["message"]["text"].is_string(), "{result}");
            assert!(["warning", "error"].contains(&result["level"].as_str().unwrap()));
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            for location in result["locations"].as_array().unwrap() {
                let place = &location["physicalLocation"];
                assert!(place["artifactLocation"]["uri"].is_string());
                if let Some(region) = place.get("region") {
                    let at = |key: &str| region[key].as_u64().unwrap();
                    let (start, end) = (
                        (at("startLine"), at("startColumn")),
                        (at("endLine"), at("endColumn")),
                    );
                    assert!(start.0 >= 1 && start.1 >= 1 && start <= end, "{region}");
                }
            }
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a switch for developers is in the environment"
)]
fn updates_expectations() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
}

#[test]
fn questions_are_answered() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/call");
    let mut folders: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 5, "fixtures are missing");
    let mut wrong = Vec::new();
    for folder in folders {
        let temp = tempfile::tempdir().unwrap();
        let (case, store) = (temp.path().join("case"), temp.path().join("store"));
        copy(&folder, &case);
        fs::create_dir(&store).unwrap();
        for line in fs::read_to_string(folder.join("commands.txt"))
            .unwrap()
            .lines()
        {
            let (name, arguments) = line.split_once(": ").unwrap();
            let (code, stdout, stderr) = run(&case, &store, arguments);
            if name.contains("sarif") {
                check_sarif(&stdout);
            } else if name.contains("json") || name.contains("gitlab") {
                serde_json::from_str::<Value>(&stdout).unwrap();
            }
            let found = format!("exit code {code}\n=== stdout\n{stdout}=== stderr\n{stderr}");
            let path = folder.join(format!("{name}.txt"));
            if updates_expectations() {
                fs::write(&path, &found).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != found {
                wrong.push(format!("{}\n{found}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mending_keeps_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let temp = tempfile::tempdir().unwrap();
    let (case, store) = (temp.path().join("case"), temp.path().join("store"));
    for dir in [&case, &store] {
        fs::create_dir(dir).unwrap();
    }
    let file = case.join("real");
    fs::write(&file, "FROM scratch as a\nCOPY a b\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real", case.join("Dockerfile")).unwrap();
    let (code, stdout, stderr) = run(&case, &store, "--check --fix .");
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "FROM scratch AS a\nCOPY a b\n"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let link = fs::symlink_metadata(case.join("Dockerfile")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(&case).unwrap().count(), 2);
}
