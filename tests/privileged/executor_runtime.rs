//! Steps through external OCI runtimes, as far as they are installed.

use std::path::Path;
use std::time::{Duration, Instant};

use cooper::executor::{
    ExecutorError, MountKind, NetworkMode, ProcessMount, ProcessSpec, Resources,
};
use tokio_util::sync::CancellationToken;

use crate::sandbox::{Sandbox, chain, runtime};

/// A sandbox for each runtime that is here.
fn sandboxes() -> Vec<(&'static str, Sandbox)> {
    let mut all = Vec::new();
    for name in ["runc", "crun"] {
        let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists());
        let Some(path) = found else {
            println!("SKIPPED: no {name}");
            continue;
        };
        let sandbox = Sandbox::with(|options| options.runtime = Some(path));
        all.extend(sandbox.map(|sandbox| (name, sandbox)));
    }
    all
}

fn none(spec: &mut ProcessSpec) {
    spec.network = NetworkMode::None;
}

#[test]
fn a_runtime_runs_steps_as_we_do() {
    for (name, sandbox) in sandboxes() {
        let source = sandbox.temp.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "bound").unwrap();
        let mount = |target: &str, kind| ProcessMount {
            target: target.to_owned(),
            kind,
        };
        let outcome = sandbox.sh(
            "echo $(id) $HOME $(pwd) $(hostname); cat /mnt/file /run/secrets/s /etc/hosts;
             grep -E '^(CapBnd|Seccomp:)' /proc/self/status; echo x > /var/lib/x; echo err >&2; exit 3",
            |spec| {
                none(spec);
                spec.user = "app:root".to_owned();
                spec.cwd = "/tmp".to_owned();
                spec.mounts = vec![
                    mount("/mnt", MountKind::Bind {
                        source: source.clone(),
                        selector: String::new(),
                        readonly: true,
                    }),
                    mount("/run/secrets/s", MountKind::Secret {
                        data: b"hush\n".to_vec(),
                        mode: 0o444,
                        uid: 0,
                        gid: 0,
                    }),
                ];
            },
        );
        let code = outcome
            .result
            .as_ref()
            .map_err(|error| chain(error))
            .map(|exit| exit.code);
        assert_eq!(code, Ok(3), "{name}: {}", outcome.stderr);
        // Where the runtime cannot forbid devices, a container cannot make any.
        let bounding = match outcome.warnings.is_empty() {
            true => "00000000a80425fb",
            false => "00000000a00425fb",
        };
        let expected = format!(
            "uid=1000(app) gid=0(root) groups=0(root) /home/app /tmp buildkitsandbox\n\
             boundhush\n127.0.0.1\tlocalhost buildkitsandbox\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             CapBnd:\t{bounding}\nSeccomp:\t2\n"
        );
        assert_eq!(outcome.stdout, expected, "{name}");
        // The user may not write there: nothing was changed, and no mount point is left.
        assert_eq!(outcome.changes(), [""; 0], "{name}");
        assert!(
            outcome.stderr.ends_with("err\n"),
            "{name}: {}",
            outcome.stderr
        );
        let outcome = sandbox.sh("echo x > /var/lib/x", none);
        assert_eq!(outcome.code(), 0, "{name}");
        assert_eq!(outcome.changes(), ["var", "var/lib", "var/lib/x"], "{name}");
        let left = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(
            !left.contains(sandbox.temp.path().to_str().unwrap()),
            "{name}"
        );
    }
}

#[test]
fn what_cannot_start_is_told_from_a_failing_runtime() {
    for (name, sandbox) in sandboxes() {
        let mut spec = ProcessSpec::new(sandbox.overlay(), ["nonesuch"]);
        none(&mut spec);
        let error = sandbox.run(&spec).result.unwrap_err();
        assert_eq!(error.exit_code(), Some(127), "{name}: {error}");
    }
    let broken = Sandbox::with(|options| options.runtime = Some("/bin/false".into()));
    let Some(sandbox) = broken else { return };
    let outcome = sandbox.sh("true", none);
    assert_eq!(outcome.code(), 1);
    let broken = Sandbox::with(|options| options.runtime = Some("/nonesuch".into()));
    let Some(sandbox) = broken else { return };
    let error = chain(&sandbox.sh("true", none).result.unwrap_err());
    assert_eq!(
        error,
        "cannot start /nonesuch: No such file or directory (os error 2)"
    );
}

#[test]
fn a_cancelled_step_leaves_nothing() {
    for (name, sandbox) in sandboxes() {
        let mut spec = sandbox.script("trap '' TERM; echo up; while :; do sleep 0.05; done");
        none(&mut spec);
        let time = runtime().block_on(async {
            let cancel = CancellationToken::new();
            let killer = cancel.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                killer.cancel();
            });
            let begin = Instant::now();
            let outcome = sandbox.start(&spec, &cancel).await;
            assert!(
                matches!(outcome.result, Err(ExecutorError::Cancelled)),
                "{name}: {outcome:?}"
            );
            begin.elapsed()
        });
        assert!(time < Duration::from_secs(8), "{name}: {time:?}");
        let state = sandbox.temp.path().join("state/runtime");
        let left = std::fs::read_dir(state).map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "{name}");
    }
}

#[test]
fn limits_and_networks_are_those_of_the_step() {
    for (name, sandbox) in sandboxes() {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let outcome = sandbox.sh("readlink /proc/self/ns/net; ls /sys/class/net", |_| {});
        assert!(
            outcome.output().ends_with("eth0\nlo"),
            "{name}: {outcome:?}"
        );
        assert!(!outcome.stdout.contains(own.to_str().unwrap()));
        // Said once, with the first step.
        if !outcome.warnings.is_empty() {
            println!("{name}: {:?}", outcome.warnings);
            continue;
        }
        let outcome = sandbox.sh(
            "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?",
            |spec| {
                none(spec);
                spec.resources = Resources {
                    memory_bytes: 32 << 20,
                    memory_swap_bytes: 32 << 20,
                    ..Resources::default()
                };
            },
        );
        let exit = outcome.result.unwrap();
        let limit = exit.oom.and_then(|oom| oom.limit_bytes);
        assert_eq!((exit.code, limit), (137, Some(32 << 20)), "{name}");
    }
}
