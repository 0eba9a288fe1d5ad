//! Networks of containers, and what is left of them on the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use cooper::executor::{Executor, ExecutorOptions, NetworkMode};

use crate::sandbox::{Sandbox, runtime};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// An address of this machine that is not the loopback device's.
fn own_address() -> Option<Ipv4Addr> {
    // Connecting a UDP socket sends nothing; it only chooses the address to send from.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.200:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

#[test]
fn without_a_network_there_is_only_the_loopback_device() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "ls /sys/class/net; ping -c1 -W1 127.0.0.1 >/dev/null && echo up; wc -c < /etc/resolv.conf",
        |spec| spec.network = NetworkMode::None,
    );
    assert_eq!(outcome.output(), "lo\nup\n0");
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh("readlink /proc/self/ns/net", |spec| {
        spec.network = NetworkMode::Host;
    });
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(outcome.output(), own.display().to_string());
}

#[test]
fn a_container_reaches_the_host_and_the_next_one_gets_its_network() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let Some(address) = own_address() else {
        println!("SKIPPED: this machine has no address but the loopback device's");
        return;
    };
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let answer = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let script = format!(
        "readlink /proc/self/ns/net; ls /sys/class/net; wget -q -O - http://{address}:{port}/"
    );
    let first = sandbox.sh(&script, |_| {});
    assert!(first.output().ends_with("\neth0\nlo\nhello"), "{first:?}");
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!first.stdout.contains(&own.display().to_string()));
    // The kernel clears closed connections away a moment later.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let second = sandbox.sh(&script, |_| {});
    assert_eq!(
        second.output(),
        first.output(),
        "the network was not used again"
    );
    server.join().unwrap();
}

#[test]
fn containers_do_not_reach_each_other() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    runtime().block_on(async {
        let cancel = tokio_util::sync::CancellationToken::new();
        let server = sandbox.script(
            "ip -4 addr show eth0 | awk '/inet/ {sub(\"/.*\", \"\", $2); print $2}' > /etc/shared;
             nc -l -p 99 -e echo reached & sleep 1.5",
        );
        let mut server = server;
        let shared = sandbox.temp.path().join("shared");
        std::fs::write(&shared, "").unwrap();
        let mount = cooper::executor::ProcessMount {
            target: "/etc/shared".to_owned(),
            kind: cooper::executor::MountKind::Bind {
                source: shared,
                selector: String::new(),
                readonly: false,
            },
        };
        server.mounts.push(mount.clone());
        let mut client = sandbox.script(
            "while ! test -s /etc/shared; do sleep 0.05; done; sleep 0.3; cat /etc/shared;
             nc -w 1 $(cat /etc/shared) 99 || echo refused",
        );
        client.mounts.push(mount);
        let both = tokio::join!(
            sandbox.start(&server, &cancel),
            sandbox.start(&client, &cancel)
        );
        let output = both.1.output();
        assert!(
            output.starts_with("10.") || output.starts_with("172."),
            "{output}"
        );
        assert!(output.ends_with("refused"), "{output}");
    });
}

/// Everything about networks in one place, so that the checks of the host's state do not meet
/// those of other tests: those run in a network namespace of their own.
#[test]
fn nothing_is_left_on_the_host() {
    if !crate::sandbox::can_run() {
        return;
    }
    let worker = std::thread::spawn(|| {
        cooper::sys::ns::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        cooper::sys::netlink::raise_loopback().unwrap();
        // A new namespace begins with what the host has, which other tests change.
        std::fs::write(FORWARDING, "0").unwrap();
        let temp = tempfile::tempdir().unwrap();
        let run_dir = temp.path().join("run");
        let options = |name: &str| {
            let mut options = ExecutorOptions::new(temp.path().join(name));
            options.run_dir = run_dir.clone();
            options.helper = Some(PathBuf::from(env!("CARGO_BIN_EXE_cooper")));
            options
        };
        assert_eq!((forwarding(), rules()), ("0".to_owned(), String::new()));
        let first = Executor::new(&options("one")).unwrap();
        let second = Executor::new(&options("two")).unwrap();
        // Made ready by threads of ours, which inherit the namespace.
        first.warm_up(2);
        second.warm_up(1);
        let ready = || {
            let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            devices
                .lines()
                .filter(|line| line.trim_start().starts_with("cpr"))
                .count()
        };
        wait_until("two networks", || ready() == 2);
        assert_eq!(forwarding(), "1");
        assert!(rules().contains("table ip cooper"));
        drop(first);
        assert_eq!(forwarding(), "1");
        drop(second);
        assert_eq!((forwarding(), rules()), ("0".to_owned(), String::new()));
        wait_until("no network", || ready() == 0);
        assert_eq!(files(&run_dir), ["lock"]);

        // A process that was killed: its lock is gone, its state is not.
        let directory = std::fs::read_dir(&run_dir)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let third = Executor::new(&options("three")).unwrap();
        third.warm_up(1);
        wait_until("a network", || ready() == 1);
        let state = std::fs::read(directory.join("state.json")).unwrap();
        drop(third);
        std::fs::write(directory.join("state.json"), state).unwrap();
        std::fs::write(FORWARDING, "1").unwrap();
        std::fs::write(directory.join("users/7"), "").unwrap();
        drop(Executor::new(&options("four")).unwrap());
        assert_eq!(
            (forwarding(), files(&run_dir)),
            ("0".to_owned(), vec!["lock".to_owned()])
        );
    });
    worker.join().unwrap();
}

fn forwarding() -> String {
    let text = std::fs::read_to_string(FORWARDING).unwrap();
    text.trim().to_owned()
}

fn rules() -> String {
    let output = std::process::Command::new("nft")
        .args(["list", "ruleset"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn files(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            names.extend(files(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} did not come");
}
