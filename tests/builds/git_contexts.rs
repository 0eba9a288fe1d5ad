//! Repositories behind HTTP that want a login: as build contexts, and as sources of `ADD`.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::env::{TestEnv, ready, run};
use crate::git_server::GitServer;

/// The token that the server wants, as `GIT_AUTH_TOKEN` travels.
const TOKEN: &str = "s3cret";

/// A private repository with a Dockerfile, and a server that wants a token.
fn served(env: &TestEnv) -> GitServer {
    let folder = env.path("repositories");
    fs::create_dir_all(folder.join("r.git")).unwrap();
    fs::write(
        folder.join("r.git/Dockerfile"),
        "FROM scratch\nCOPY file /\n",
    )
    .unwrap();
    fs::write(folder.join("r.git/file"), "private").unwrap();
    let script = "git init --quiet --initial-branch=main && git add -A && \
                  git -c user.name=a -c user.email=a@b commit --quiet -m one";
    let mut shell = Command::new("sh");
    run(shell.args(["-c", script]).current_dir(folder.join("r.git")));
    let login = format!(
        "Basic {}",
        STANDARD.encode(format!("x-access-token:{TOKEN}"))
    );
    GitServer::start(&folder, Some(&login))
}

/// Builds with secrets; returns the file that comes out, or what is said.
fn built(env: &TestEnv, context: &str, secrets: &[String]) -> Result<String, String> {
    let out = env.path("out");
    let _ = fs::remove_dir_all(&out);
    let mut args = vec!["build", "--no-cache", "-o", "out"];
    args.extend(secrets.iter().map(String::as_str));
    args.push(context);
    let output = env.cooper(&args).output().unwrap();
    match output.status.success() {
        true => Ok(fs::read_to_string(out.join("file")).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn private_repositories_are_read_with_secrets() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let server = served(&env);
    let (url, host) = (server.smart("r.git"), server.host());
    env.write(
        "add/Dockerfile",
        &format!("FROM scratch\nADD {url}#main /\n"),
    );
    env.write("token", TOKEN);
    env.write("wrong", "guessed");
    let basic = STANDARD.encode(format!("x-access-token:{TOKEN}"));
    env.write("header", &format!("Basic {basic}"));
    let secret = |id: &str, file: &str| {
        let path = env.path(file);
        format!("--secret=id={id},src={}", path.display())
    };
    let context = format!("{url}#main");
    let for_host = |id: &str| format!("{id}.{host}");
    let ways = [
        vec![secret("GIT_AUTH_TOKEN", "token")],
        vec![secret("GIT_AUTH_HEADER", "header")],
        vec![secret(&for_host("GIT_AUTH_TOKEN"), "token")],
        vec![secret(&for_host("GIT_AUTH_HEADER"), "header")],
        // What is for the host comes first, and a header before a token.
        vec![
            secret(&for_host("GIT_AUTH_TOKEN"), "token"),
            secret("GIT_AUTH_TOKEN", "wrong"),
            secret("GIT_AUTH_HEADER", "wrong"),
        ],
        vec![
            secret("GIT_AUTH_HEADER", "header"),
            secret("GIT_AUTH_TOKEN", "wrong"),
        ],
    ];
    for secrets in &ways {
        for context in [context.as_str(), "add"] {
            let built = built(&env, context, secrets);
            assert_eq!(built.as_deref(), Ok("private"), "{context} {secrets:?}");
        }
    }
    for secrets in [
        vec![],
        vec![secret("GIT_AUTH_TOKEN", "wrong")],
        vec![secret("GIT_AUTH_TOKEN.elsewhere.example", "token")],
    ] {
        for context in [context.as_str(), "add"] {
            let said = built(&env, context, &secrets).unwrap_err();
            assert!(said.contains("GIT_AUTH_TOKEN"), "{context}: {said}");
            assert!(
                !said.contains(&basic) && !said.contains("guessed"),
                "{said}"
            );
        }
    }
}
