//! The same containers on other machines: this test runs others again, in a process whose
//! surroundings were changed, and kills executors to see what the next one makes of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cooper::executor::{Executor, ExecutorOptions};

use crate::sandbox::{Sandbox, can_run, sleepers};

/// Tests that must hold wherever containers run.
const EVERYWHERE: [&str; 12] = [
    "executor::output_and_exit_code_arrive",
    "executor::orphans_are_reaped_and_do_not_outlive_the_step",
    "executor::all_kinds_of_mounts",
    "executor::an_abandoned_run_is_killed",
    "executor::the_layer_holds_what_the_process_changed_and_nothing_else",
    "executor::limits_hold_and_running_out_of_memory_is_reported",
    "executor_security::a_process_has_what_docker_gives_it_and_no_more",
    "executor_security::devices_are_the_real_ones",
    "executor_security::disks_of_the_host_are_out_of_reach",
    "executor_security::namespaces_are_the_containers_own",
    "executor_security::parts_of_proc_and_sys_are_masked_or_read_only",
    "executor_security::an_insecure_step_has_everything",
];

/// Names the directory to work in, for the process that is to be killed.
const VICTIM: &str = "COOPER_TEST_VICTIM";

/// How long it sleeps: tells its processes from others.
const VICTIM_SLEEPS: &str = "73.737";

fn rerun(setup: &str, tests: &[&str]) {
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec"])
        .arg(format!("{setup}; exec \"$0\" \"$@\""))
        .arg(own)
        .args(["--exact", "--test-threads", "2"])
        .args(tests)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{setup}: {text}");
    assert!(text.contains(&format!("{} passed", tests.len())), "{text}");
}

#[test]
fn without_control_groups() {
    if can_run() {
        rerun("umount -l /sys/fs/cgroup", &EVERYWHERE);
    }
}

#[test]
fn with_control_groups_version_2() {
    if can_run() {
        rerun(
            "umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup",
            &EVERYWHERE,
        );
    }
}

#[test]
fn with_control_groups_that_cannot_be_written() {
    if can_run() {
        rerun(
            "for t in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mount -o remount,bind,ro $t; done",
            &EVERYWHERE,
        );
    }
}

#[test]
fn without_nftables() {
    if can_run() && Path::new("/usr/sbin/iptables").exists() {
        rerun(
            "mount --bind /bin/false $(readlink -f $(command -v nft || echo /bin/false))",
            &["executor_network::a_container_reaches_the_host_and_the_next_one_gets_its_network"],
        );
    }
}

#[test]
fn without_any_firewall_the_step_runs_in_the_network_of_the_host() {
    let Some(sandbox) = Sandbox::with(|options| {
        // A file where a directory is needed.
        let file = tempfile::NamedTempFile::new().unwrap();
        options.run_dir = file.into_temp_path().keep().unwrap();
    }) else {
        return;
    };
    let outcome = sandbox.sh("readlink /proc/self/ns/net", |_| {});
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(outcome.output(), own.display().to_string());
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
    assert!(outcome.warnings[0].starts_with("steps run in the network of the host"));
    let again = sandbox.sh("true", |_| {});
    assert!(again.warnings.is_empty(), "said twice");
}

/// Not a test of its own: what [`a_killed_executor_leaves_nothing`] kills.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "tests have no command line of their own"
)]
fn victim() {
    let Some(directory) = std::env::var_os(VICTIM) else {
        return;
    };
    let sandbox = Sandbox::with(|options| {
        options.state_dir = Path::new(&directory).join("state");
        options.run_dir = Path::new(&directory).join("run");
    });
    let time = VICTIM_SLEEPS;
    sandbox
        .unwrap()
        .sh(&format!("sleep {time} & sleep {time}"), |spec| {
            spec.mounts = vec![cooper::executor::ProcessMount {
                target: "/scratch".to_owned(),
                kind: cooper::executor::MountKind::DiscardedWrites {
                    lower: vec!["/etc".into()],
                    selector: String::new(),
                },
            }];
        });
}

#[test]
fn a_killed_executor_leaves_nothing() {
    if !can_run() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    // In a network of its own: it does not share the run directory of other tests, and two
    // directories for one network would undo each other's work.
    let mut victim = Command::new("unshare")
        .args(["-n", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "surroundings::victim"])
        .env(VICTIM, temp.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sleepers = || sleepers(VICTIM_SLEEPS);
    wait_until("both processes", || sleepers() == 2);
    let mut instances = std::fs::read_dir(temp.path().join("state/instances")).unwrap();
    let id = instances
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until("the end of both processes", || sleepers() == 0);

    let begin = Instant::now();
    let mut options = ExecutorOptions::new(temp.path().join("state"));
    options.run_dir = temp.path().join("run");
    options.helper = Some(PathBuf::from(env!("CARGO_BIN_EXE_cooper")));
    let executor = Executor::new(&options).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
    let count = |name: &str| std::fs::read_dir(temp.path().join(name)).unwrap().count();
    assert_eq!((count("state/steps"), count("state/instances")), (0, 1));
    drop(executor);
    let groups = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name"])
        .arg(format!("{id}-*"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(groups.stdout).unwrap(), "");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come");
}
