//! `--verify`: the same build once more.

use crate::env::{TestEnv, ready};

/// Builds with `--verify`; returns what is said, with the exit code expected.
fn verify(env: &TestEnv, code: i32, dockerfile: &str, args: &[&str]) -> String {
    env.write("context/Dockerfile", dockerfile);
    let mut all = vec!["build", "--verify", "-t", "app"];
    all.extend(args);
    all.push("context");
    match code {
        0 => env.ok(&all).1,
        code => env.fails(code, &all),
    }
}

#[test]
fn what_no_clock_enters_is_reproducible() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let text = "FROM busybox\nRUN date > /dev/null && mkdir /made && echo same > /made/file\n\
                COPY Dockerfile /\nWORKDIR /new\n";
    let epoch = ["--source-date-epoch=1000000000", "--rewrite-timestamp"];
    let said = verify(&env, 0, text, &epoch);
    assert!(said.contains("\nreproducible: sha256:"), "{said}");
    // What copies and WORKDIR make has no time of the clock even where no times are rewritten.
    let text = "FROM busybox\nWORKDIR /new/deep\nCOPY Dockerfile /etc/\nCOPY Dockerfile ./sub/\n\
                COPY . /made/all\nADD Dockerfile /var/added\n";
    let said = verify(&env, 0, text, &["--source-date-epoch=1000000000"]);
    assert!(said.contains("\nreproducible: sha256:"), "{said}");
    let both = ["--platform=linux/amd64,linux/arm64", "--timestamp=0"];
    let said = verify(&env, 0, "FROM scratch\nCOPY Dockerfile /\n", &both);
    assert!(said.contains("\nreproducible: sha256:"), "{said}");
}

#[test]
fn the_first_difference_is_named() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let rewrite = &["--source-date-epoch=1000000000", "--rewrite-timestamp"][..];
    for (text, args, parts) in [
        (
            "RUN echo same > /same && cat /proc/sys/kernel/random/uuid > /other",
            rewrite,
            &[
                "layer 2 of 2 (RUN ",
                "/other has other content (37 bytes both times)",
            ][..],
        ),
        (
            "RUN echo same > /same",
            &[],
            &[
                "layer 2 of 2 (RUN ",
                "/same was changed at 2",
                "--rewrite-timestamp",
            ],
        ),
        (
            "RUN mkdir /$(cat /proc/sys/kernel/random/uuid)",
            rewrite,
            &["the second time (and one more file)"],
        ),
        // A cache folder of an earlier build is no input of the second one.
        (
            "RUN --mount=type=cache,target=/cache touch /cache/x && ls /cache | wc -l > /n",
            rewrite,
            &["layer 2 of 2 (RUN ", "/n has other content"],
        ),
        (
            "COPY Dockerfile /",
            &[],
            &[
                "all layers are the same, but in the config",
                "created is \"2",
                "hint: ",
            ],
        ),
    ] {
        let dockerfile = format!("FROM busybox\n{text}\n");
        if text.contains("type=cache") {
            let warm = "FROM busybox\nRUN --mount=type=cache,target=/cache touch /cache/warm\n";
            env.write("context/Dockerfile", warm);
            env.ok(&["build", "context"]);
        }
        let error = verify(&env, 6, &dockerfile, args);
        for part in parts {
            assert!(error.contains(part), "{part}\n{error}");
        }
    }
    let error = env.fails(2, &["build", "--verify", "-o", "out", "context"]);
    assert!(error.contains("name an output that makes one"), "{error}");
}
