//! Build contexts and base images, as far as the corpus cannot show them.

use crate::env::{TestEnv, ready};

/// An image in the store whose registry nobody can reach.
const UNREACHABLE: &str = "127.0.0.1:1/app/base:1";

#[test]
fn pulling_asks_the_registry_when_it_should() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.ok(&["tag", "busybox", UNREACHABLE]);
    env.write("context/Dockerfile", &format!("FROM {UNREACHABLE}\n"));
    let context = env.path("context");
    let context = context.to_str().unwrap();
    for pull in ["missing", "false", "newer", "never"] {
        let pull = format!("--pull={pull}");
        env.ok(&["build", "-o", "type=cacheonly", &pull, context]);
    }
    let shown = env.fails(5, &["build", "--pull=always", context]);
    assert!(shown.contains("cannot reach 127.0.0.1:1"), "{shown}");
    env.write("absent/Dockerfile", "FROM 127.0.0.1:1/app/absent\n");
    let absent = env.path("absent");
    let shown = env.fails(3, &["build", "--pull=never", absent.to_str().unwrap()]);
    assert!(shown.contains("is not in the local store"), "{shown}");
}

#[test]
fn a_password_in_the_url_of_a_context_is_not_shown() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let url = "http://me:hunter2@127.0.0.1:1/repo.git";
    let shown = env.fails(5, &["build", "--progress", "plain", url]);
    assert!(shown.contains("127.0.0.1:1/repo.git"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
