//! `cooper login` and `logout` against a real registry with passwords, and pushes with what they
//! kept.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::registry_real::{RealRegistry, skip};

/// A registry that knows `me` with the password `right`; `None` where it cannot be started.
fn registry(dir: &Path) -> Option<RealRegistry> {
    let made = Command::new("htpasswd")
        .args(["-Bbn", "me", "right"])
        .output();
    let text = match made {
        Ok(output) if output.status.success() => output.stdout,
        other => {
            skip(&format!("htpasswd cannot be run: {other:?}"));
            return None;
        }
    };
    let path = dir.join("htpasswd");
    std::fs::write(&path, text).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        path.display()
    );
    RealRegistry::start_with("", &auth)
}

fn cooper(home: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cooper"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("PATH", format!("{}:/usr/bin:/bin", home.display()))
        .env("COOPER_ROOT", home.join("store"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    format!(
        "{:?} {}",
        output.status.code(),
        String::from_utf8_lossy(&both)
    )
}

#[test]
fn a_password_is_checked_kept_used_and_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let Some(registry) = registry(home.path()) else {
        return;
    };
    let host = registry.host();
    let run = |arguments: &[&str], input: &str| cooper(home.path(), arguments, input);
    let refused = run(&["login", "-u", "me", "--password-stdin", &host], "wrong\n");
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    assert!(
        text(&refused).contains("the credentials were refused"),
        "{}",
        text(&refused)
    );
    let config = home.path().join(".docker/config.json");
    assert!(!config.exists());

    let taken = run(&["login", "-u", "me", "--password-stdin", &host], "right\n");
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken));
    assert_eq!(String::from_utf8_lossy(&taken.stdout), "Login Succeeded\n");
    let kept = std::fs::read_to_string(&config).unwrap();
    assert!(
        kept.contains(&host) && !text(&taken).contains("right"),
        "{kept}"
    );

    // The image is an index without anything in it: it needs no base image.
    let name = format!("{host}/app:1");
    assert!(run(&["manifest", "create", &name], "").status.success());
    let pushed = run(&["manifest", "push", &name], "");
    assert_eq!(pushed.status.code(), Some(0), "{}", text(&pushed));
    let raw = run(&["imagetools", "inspect", "--raw", &name], "");
    assert!(
        String::from_utf8_lossy(&raw.stdout).contains("\"manifests\": []"),
        "{}",
        text(&raw)
    );

    let left = run(&["logout", &host], "");
    assert!(text(&left).contains(&format!("Removing login credentials for {host}")));
    let left = run(&["logout", &host], "");
    assert!(text(&left).contains(&format!("Not logged in to {host}")));
    let refused = run(&["imagetools", "inspect", &name], "");
    assert_eq!(refused.status.code(), Some(5), "{}", text(&refused));
    // Typed for one command.
    let typed = ["imagetools", "inspect", "--creds", "me:right", &name];
    let typed = run(&typed, "");
    assert!(text(&typed).contains("MediaType:"), "{}", text(&typed));
}

#[test]
fn a_helper_keeps_what_it_is_given() {
    let home = tempfile::tempdir().unwrap();
    let Some(registry) = registry(home.path()) else {
        return;
    };
    let host = registry.host();
    let script = format!(
        "#!/bin/sh\ncat > {0}/said-$1\n[ $1 = get ] && cat {0}/said-store || exit 0\n",
        home.path().display()
    );
    let helper = home.path().join("docker-credential-test");
    std::fs::write(&helper, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, executable).unwrap();
    let auth = home.path().join("auth.json");
    std::fs::write(&auth, r#"{"credsStore": "test"}"#).unwrap();
    let authfile = auth.to_str().unwrap();
    let run = |arguments: &[&str], input: &str| cooper(home.path(), arguments, input);
    let login = [
        "login",
        "--authfile",
        authfile,
        "-u",
        "me",
        "--password-stdin",
        &host,
    ];
    let taken = run(&login, "right");
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken));
    let said = std::fs::read_to_string(home.path().join("said-store")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["ServerURL"], host);
    assert_eq!(said["Secret"], "right");
    assert!(!std::fs::read_to_string(&auth).unwrap().contains("right"));

    let name = format!("{host}/app:1");
    assert!(run(&["manifest", "create", &name], "").status.success());
    let pushed = run(&["manifest", "push", "--authfile", authfile, &name], "");
    assert_eq!(pushed.status.code(), Some(0), "{}", text(&pushed));
    let left = run(&["logout", "--authfile", authfile, &host], "");
    assert_eq!(left.status.code(), Some(0), "{}", text(&left));
    let said = std::fs::read_to_string(home.path().join("said-erase")).unwrap();
    assert_eq!(said, host);
}
