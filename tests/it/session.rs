//! What the client lends, with the real programs where there are any.

use std::path::Path;
use std::process::{Command, Output};

use cooper::session::{SshAgents, SshSpec};

fn ssh_add(socket: &Path, argument: &str) -> Output {
    Command::new("ssh-add")
        .arg(argument)
        .env("SSH_AUTH_SOCK", socket)
        .output()
        .unwrap()
}

#[test]
fn a_key_is_lent_but_cannot_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "lent", "-f"])
        .arg(&key)
        .output();
    if let Err(error) = made {
        println!("skipped: ssh-keygen cannot be started: {error}");
        return;
    }
    let spec: SshSpec = format!("default={}", key.display()).parse().unwrap();
    let agents = SshAgents::load(&[spec], &|_| None).unwrap();
    let forwarded = agents.forward("default", dir.path()).unwrap();
    let listed = || {
        let output = ssh_add(forwarded.socket(), "-l");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(listed().contains("lent (ED25519)"), "{}", listed());
    assert!(!ssh_add(forwarded.socket(), "-D").status.success());
    assert!(listed().contains("lent (ED25519)"));
    // A second agent stands behind another socket, and a socket can be lent on.
    let spec: SshSpec = format!("on={}", forwarded.socket().display())
        .parse()
        .unwrap();
    let again = SshAgents::load(&[spec], &|_| None).unwrap();
    let second = again.forward("on", dir.path()).unwrap();
    let output = ssh_add(second.socket(), "-l");
    assert!(String::from_utf8(output.stdout).unwrap().contains("lent"));
    drop(second);
    let socket = forwarded.socket().to_owned();
    drop(forwarded);
    assert!(!socket.exists());
}
