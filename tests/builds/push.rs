//! Builds that push: layers leave while the build goes on, jobs join, `cooper push` goes on.

use std::time::Duration;

use cooper::oci::{Digest, Index};

use crate::env::{TestEnv, ready};
use crate::faulty_registry::{Action, Logged, Registry};

/// The second step ends only when the layer of the first is in the registry.
#[test]
fn a_layer_is_pushed_while_the_next_step_runs() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let registry = Registry::start();
    let dockerfile = format!(
        "FROM busybox\nRUN head -c 300000 /dev/urandom > /large\n\
         RUN n=0; until wget -q -O /dev/null {}/arrived; do \
             n=$((n+1)); [ $n -lt 600 ] || exit 7; sleep 0.1; done\n",
        registry.url()
    );
    env.write("context/Dockerfile", &dockerfile);
    let name = format!("{}/app:1", registry.host());
    std::thread::scope(|scope| {
        let building = scope.spawn(|| {
            let args = ["build", "--network=host", "--push", "-t", &name, "context"];
            env.ok(&args)
        });
        while !building.is_finished() {
            let log = registry.log();
            if log.iter().any(is_random_layer) {
                registry.put_file("arrived", b"yes");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        building.join().unwrap();
    });
    assert!(registry.manifest("app", "1").is_some());
    // It was sent once.
    let log = registry.log();
    let sent: Vec<&Logged> = log.iter().filter(|l| is_random_layer(l)).collect();
    assert_eq!(sent.len(), 1, "{sent:?}");
}

/// Knows the layer of 300,000 random bytes by its size.
fn is_random_layer(request: &Logged) -> bool {
    request.method == "PUT" && (300_000..310_000).contains(&request.body_bytes)
}

/// Nothing leaves that no manifest names: of layers that become one, only that one does.
#[test]
fn layers_that_become_one_do_not_leave_alone() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let steps = "RUN echo 1 > /one\nRUN echo 2 > /two\nRUN echo 3 > /three\n";
    let grouped = steps.replacen("RUN", "LABEL cooper.layer=pair\nRUN", 1);
    let grouped = grouped.replace("RUN echo 3", "LABEL cooper.layer=\nRUN echo 3");
    // The base, the layers that are left, and the config.
    for (text, args, expected) in [
        (&steps.to_owned(), &[][..], 5),
        (&grouped, &[], 4),
        (&steps.to_owned(), &["--squash"], 3),
    ] {
        let registry = Registry::start();
        env.write("context/Dockerfile", &format!("FROM busybox\n{text}"));
        let name = format!("{}/app:1", registry.host());
        env.ok(&[&["build", "--push", "-t", &name, "context"], args].concat());
        assert_eq!(registry.blobs("app"), expected, "{args:?} {text}");
    }
}

#[test]
fn jobs_of_two_platforms_end_with_one_index() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    let dockerfile = "FROM scratch\nCOPY Dockerfile /\n";
    std::thread::scope(|scope| {
        for platform in ["linux/amd64", "linux/arm64", "linux/s390x"] {
            let name = &name;
            scope.spawn(move || {
                // A machine of its own.
                let env = TestEnv::busybox();
                env.write("context/Dockerfile", dockerfile);
                let platform = format!("--platform={platform}");
                env.ok(&[
                    "build",
                    &platform,
                    "--push",
                    "--join=42",
                    "-t",
                    name,
                    "context",
                ]);
            });
        }
    });
    let index: Index = serde_json::from_slice(&registry.manifest("app", "1").unwrap()).unwrap();
    let platforms = index.manifests.iter().map(|m| m.platform.as_ref().unwrap());
    let platforms: Vec<String> = platforms.map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64", "linux/s390x"]);
    // An image that is in the store joins later, too.
    let env = TestEnv::busybox();
    env.write("context/Dockerfile", dockerfile);
    env.ok(&["build", "--platform=linux/riscv64", "-t", &name, "context"]);
    let (pushed, _) = env.ok(&["push", "--join=42", &name]);
    let bytes = registry.manifest("app", "1").unwrap();
    assert!(pushed.contains(&Digest::of(&bytes).to_string()), "{pushed}");
    let index: Index = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(index.manifests.len(), 4);
}

#[test]
fn a_push_that_failed_leaves_the_image_and_is_finished_later() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let registry = Registry::start();
    env.write(
        "context/Dockerfile",
        "FROM busybox\nRUN head -c 3000 /dev/urandom > /x\n",
    );
    let name = format!("{}/app:1", registry.host());
    let denied = r#"{"errors":[{"code":"DENIED","message":"the quota is used up"}]}"#;
    let denied = Action::Status(403, Vec::new(), denied.to_owned());
    registry.fail("PUT", "/manifests/", 1, denied);
    let said = env.fails(5, &["build", "--push", "-t", &name, "context"]);
    assert!(said.contains("the quota is used up"), "{said}");
    assert!(registry.manifest("app", "1").is_none());
    registry.clear_log();
    env.ok(&["push", &name]);
    assert!(registry.manifest("app", "1").is_some());
    assert_eq!(registry.uploaded_bytes(), 0);
}
