//! Credential helpers: the programs `docker-credential-<name>`, asked over stdin and stdout.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;

use super::{Credential, Error};

/// Longest time a helper may take; some ask a person.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What helpers print when they know nothing (docker-credential-helpers).
const NOT_FOUND: &str = "credentials not found";
/// The user name that marks the secret as an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks the helper `docker-credential-<name>` about `server`.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credential>, Error> {
    ask(&program_of(name, server)?, server)
}

/// Has a helper keep a user name and password.
pub(super) fn store(name: &str, server: &str, username: &str, secret: &str) -> Result<(), Error> {
    let program = program_of(name, server)?;
    let entry = serde_json::json!({
        "ServerURL": server, "Username": username, "Secret": secret,
    });
    tell(&program, "store", server, &entry.to_string())
}

/// Has a helper forget what it keeps; knowing nothing is no failure.
pub(super) fn erase(name: &str, server: &str) -> Result<(), Error> {
    tell(&program_of(name, server)?, "erase", server, server)
}

fn program_of(name: &str, server: &str) -> Result<String, Error> {
    let program = format!("docker-credential-{name}");
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match name.bytes().all(allowed) {
        true => Ok(program),
        false => Err(failed(&program, server, "its name is malformed".to_owned())),
    }
}

fn tell(program: &str, action: &str, server: &str, input: &str) -> Result<(), Error> {
    match run(program, action, input) {
        Ok((true, _)) => Ok(()),
        Ok((false, output)) => {
            let text = String::from_utf8_lossy(&output);
            match text.to_lowercase().contains(NOT_FOUND) {
                true => Ok(()),
                false => Err(failed(program, server, first_line(&text))),
            }
        }
        Err(error) => Err(unusable(program, server, &error)),
    }
}

fn unusable(program: &str, server: &str, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it is not installed".to_owned(),
        _ => error.to_string(),
    };
    failed(program, server, reason)
}

fn ask(program: &str, server: &str) -> Result<Option<Credential>, Error> {
    let failed = |reason: String| failed(program, server, reason);
    let answer = run(program, "get", server);
    let (success, output) = answer.map_err(|error| unusable(program, server, &error))?;
    if !success {
        let text = String::from_utf8_lossy(&output);
        if text.to_lowercase().contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(first_line(&text)));
    }
    // The answer holds the secret, so the parser's message is not shown.
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| failed("its answer is not JSON".to_owned()))?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == TOKEN_USER => {
            Some(Credential::IdentityToken(secret))
        }
        Answer { username, secret } => Some(Credential::Basic {
            username,
            password: secret,
        }),
    })
}

fn failed(program: &str, server: &str, reason: String) -> Error {
    Error::Helper {
        program: program.to_owned(),
        registry: server.to_owned(),
        reason,
    }
}

/// Runs a helper; returns whether it succeeded and what it printed.
fn run(program: &str, action: &str, text: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input answers all the same.
        let _ = input.write_all(text.as_bytes());
    }
    let output = read_in_time(&mut child);
    if output.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok((status.success(), output?))
}

fn read_in_time(child: &mut Child) -> io::Result<Vec<u8>> {
    let Some(stdout) = child.stdout.take() else {
        return Ok(Vec::new());
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let result = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut output);
        // Nobody listens after the time limit.
        let _ = sender.send(result.map(|_| output));
    });
    receiver.recv_timeout(HELPER_TIMEOUT).unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", HELPER_TIMEOUT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    })
}

fn first_line(text: &str) -> String {
    match text.trim().lines().next() {
        Some(line) => line.chars().take(200).collect(),
        None => "it failed without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_misnamed_helper_is_an_error_that_names_it() {
        for (name, reason) in [
            ("cooper-test-absent", "it is not installed"),
            ("../x", "its name is malformed"),
        ] {
            let error = get(name, "r.example").unwrap_err().to_string();
            assert!(
                error.contains(&format!("docker-credential-{name}")) && error.contains(reason),
                "{error}"
            );
        }
    }

    #[test]
    fn answers_of_every_kind_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let basic = Some(Credential::Basic {
            username: "u".to_owned(),
            password: "r.example".to_owned(),
        });
        for (name, script, expected) in [
            (
                "login",
                r#"read s; echo "{\"Username\":\"u\",\"Secret\":\"$s\"}""#,
                Ok(basic),
            ),
            (
                "token",
                r#"echo '{"Username":"<token>","Secret":"t"}'"#,
                Ok(Some(Credential::IdentityToken("t".to_owned()))),
            ),
            (
                "none",
                "echo credentials not found in native keychain; exit 1",
                Ok(None),
            ),
            (
                "trouble",
                "echo keychain is locked; exit 1",
                Err("keychain is locked"),
            ),
            ("silent", "exit 3", Err("without a message")),
            (
                "garbage",
                "echo secret-garbage",
                Err("its answer is not JSON"),
            ),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, executable).unwrap();
            match (ask(path.to_str().unwrap(), "r.example"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(error), Err(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part) && !text.contains("secret"), "{text}");
                }
                (found, expected) => panic!("{name}: {found:?} {expected:?}"),
            }
        }
    }
}
