//! Containers and images that mean harm. Each test says which hole it stands for.

use std::os::unix::fs::symlink;
use std::path::Path;

use cooper::executor::{MountKind, NetworkMode, ProcessMount, ProcessSpec};
use cooper::snapshot::RootMount;

use crate::sandbox::{Sandbox, chain};

fn none(spec: &mut ProcessSpec) {
    spec.network = NetworkMode::None;
}

/// What every process of a container must be held to.
#[test]
fn a_process_has_what_docker_gives_it_and_no_more() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    for (user, permitted) in [("", "00000000a80425fb"), ("app", "0000000000000000")] {
        let outcome = sandbox.sh(
            "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
            |spec| {
                none(spec);
                spec.user = user.to_owned();
            },
        );
        let expected = format!(
            "CapInh:\t0000000000000000\nCapPrm:\t{permitted}\nCapEff:\t{permitted}\n\
             CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2"
        );
        assert_eq!(outcome.output(), expected, "{user}");
    }
    // Pid 1 is of no more use to whoever gets hold of it.
    let outcome = sandbox.sh("grep -E '^(CapEff|CapBnd|Seccomp:)' /proc/1/status", none);
    assert_eq!(
        outcome.output(),
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2"
    );
}

#[test]
fn namespaces_are_the_containers_own() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done",
        none,
    );
    for name in outcome.output().lines() {
        let kind = name.split(':').next().unwrap();
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(own.to_str().unwrap(), name);
    }
    assert_eq!(outcome.output().lines().count(), 6);
    // Nothing of the host is left in the tree, or in the list, of mounts.
    let outcome = sandbox.sh(
        "wc -l < /proc/self/mountinfo; grep -c ' /tmp\\| /work\\|ext4' /proc/self/mountinfo",
        none,
    );
    let lines: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert!(lines[0].parse::<u32>().unwrap() < 50, "{lines:?}");
    assert_eq!(lines[1], "0");
}

/// CVE-2024-21626: a descriptor of the host, inherited by the container.
#[test]
fn no_descriptor_leaks_and_the_working_directory_is_inside() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let held = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
    let outcome = sandbox.sh("ls /proc/self/fd; ls -l /proc/self/fd/0 /proc/1/fd", none);
    // The listing itself has the fourth.
    assert!(
        outcome.output().starts_with("0\n1\n2\n3\n"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("-> /\n"), "{}", outcome.stdout);
    drop(held);
    for number in 3..15 {
        let outcome = sandbox.sh("cat ../../../etc/shadow; ls", |spec| {
            none(spec);
            spec.cwd = format!("/proc/self/fd/{number}");
        });
        let error = outcome.result.unwrap_err().to_string();
        assert!(error.contains("enter the working directory"), "{error}");
        assert_eq!(outcome.stdout, "");
    }
    for cwd in ["/proc/1/root", "/proc/self/root/../..", "/../../.."] {
        let outcome = sandbox.sh("ls /etc/shadow 2>/dev/null; ls -d bin/busybox", |spec| {
            none(spec);
            spec.cwd = cwd.to_owned();
        });
        assert_eq!(outcome.output(), "bin/busybox", "{cwd}");
    }
}

/// CVE-2025-54867, -62161, CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: a link where the
/// kernel's file systems belong.
#[test]
fn links_in_place_of_kernel_directories_are_refused() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let canary = sandbox.temp.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    for name in ["proc", "sys", "dev"] {
        std::fs::remove_dir(sandbox.root().join(name)).unwrap();
        for target in [canary.as_path(), Path::new("/tmp"), Path::new("../../..")] {
            let place = sandbox.root().join(name);
            symlink(target, &place).unwrap();
            let outcome = sandbox.sh("true", none);
            std::fs::remove_file(&place).unwrap();
            let error = chain(&outcome.result.unwrap_err());
            assert!(
                error.starts_with(&format!("cannot mount on \"/{name}\"")),
                "{error}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
}

/// CVE-2025-31133, -52565: links for device nodes and masked paths; whatever the image has in
/// /dev does not count.
#[test]
fn devices_are_the_real_ones() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let dev = sandbox.root().join("dev");
    std::fs::create_dir_all(dev.join("pts")).unwrap();
    symlink("/etc/passwd", dev.join("null")).unwrap();
    symlink("/etc/passwd", dev.join("console")).unwrap();
    symlink("/etc", dev.join("shm")).unwrap();
    let outcome = sandbox.sh(
        "stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty;
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done;
         ls /dev/console 2>/dev/null; echo x > /dev/null; stat -c %F /dev/shm /dev/pts /dev/mqueue",
        none,
    );
    assert_eq!(
        outcome.stdout,
        "/dev/null character special file 1:3 666\n/dev/zero character special file 1:5 666\n\
         /dev/full character special file 1:7 666\n/dev/random character special file 1:8 666\n\
         /dev/urandom character special file 1:9 666\n/dev/tty character special file 5:0 666\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
         directory\ndirectory\ndirectory\n"
    );
}

/// A container may make device nodes (tars have them) but must not use the host's disks.
#[test]
fn disks_of_the_host_are_out_of_reach() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let disk = std::fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let number = std::fs::read_to_string(entry.path().join("dev")).ok()?;
            let (major, minor) = number.trim().split_once(':')?;
            Some(format!("{major} {minor}"))
        });
    let Some(disk) = disk else { return };
    let outcome = sandbox.sh(
        &format!(
            "mknod /disk b {disk} && mknod /dev/disk b {disk} && mknod /mem c 1 1
             for f in /disk /dev/disk /mem; do dd if=$f of=/dev/null bs=1 count=1 2>&1 | tail -1; done"
        ),
        none,
    );
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    for line in lines {
        assert!(
            line.contains("Operation not permitted") || line.contains("Permission denied"),
            "{line}"
        );
    }
}

/// Kernel interfaces that tell about or change the host.
#[test]
fn parts_of_proc_and_sys_are_masked_or_read_only() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "for f in kcore keys timer_list sched_debug interrupts latency_stats; do
             test -e /proc/$f && wc -c < /proc/$f; done
         for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware; do test -d $d && ls -A $d; done
         for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/0/x /proc/bus/x /proc/fs/x \
             /sys/kernel/x /sys/fs/cgroup/x /proc/sys/kernel/core_pattern; do
             (echo x > $f) 2>/dev/null && echo wrote $f; done
         for d in /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d/x; done
         mount -t tmpfs x /tmp 2>/dev/null && echo mounted
         umount /proc/kcore 2>/dev/null && echo unmounted
         unshare -m true 2>/dev/null && echo unshared
         unshare -U true 2>/dev/null && echo unshared
         exit 0",
        none,
    );
    for line in outcome.output().lines() {
        assert_eq!(line, "0");
    }
    let masked = sandbox.sh("mount | grep -E ' /(proc|sys)' | grep -vc 'ro[,)]'", none);
    // Of all mounts there, /proc itself is the only one that is not read-only; masks with a
    // device are covered by the device.
    assert!(masked.stdout.trim().parse::<u32>().unwrap() >= 1);
}

/// CVE-2024-9676 and what BuildKit hung on: /etc/passwd is a pipe, a device or a link out.
#[test]
fn a_passwd_that_is_a_trap_does_not_hold_anybody_up() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let passwd = sandbox.root().join("etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    for command in [
        format!("mkfifo {}", passwd.display()),
        format!("mknod {} c 1 5", passwd.display()),
        format!("ln -s /etc/shadow {}", passwd.display()),
        format!("ln -s /proc/self/environ {}", passwd.display()),
    ] {
        let made = std::process::Command::new("sh")
            .args(["-c", &command])
            .status();
        assert!(made.unwrap().success());
        let outcome = sandbox.sh("true", |spec| {
            none(spec);
            spec.user = "root".to_owned();
        });
        assert!(outcome.result.is_err(), "{command}");
        let outcome = sandbox.sh("echo 0", none);
        assert_eq!(outcome.output(), "0", "{command}");
        std::fs::remove_file(&passwd).unwrap();
    }
    for user in ["4294967296", "99999999999", "-1", "0:4294967296"] {
        let outcome = sandbox.sh("true", |spec| {
            none(spec);
            spec.user = user.to_owned();
        });
        let error = outcome.result.unwrap_err().to_string();
        assert!(error.ends_with("is out of range"), "{error}");
    }
}

/// CVE-2024-23652: the process moves the directory with a mount point away and puts a link to
/// the host in its place, hoping that the clearing away follows it.
#[test]
fn clearing_away_follows_no_link() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let canary = sandbox.temp.path().join("canary");
    std::fs::create_dir_all(canary.join("deep")).unwrap();
    std::fs::write(canary.join("token"), "").unwrap();
    let mount = |target: &str, kind| ProcessMount {
        target: target.to_owned(),
        kind,
    };
    let secret = MountKind::Secret {
        data: b"x".to_vec(),
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    let outcome = sandbox.sh(
        &format!(
            "mv /new /moved && ln -s {0} /new && mv /also/deep /elsewhere && ln -s {0} /also/deep",
            canary.display()
        ),
        |spec| {
            none(spec);
            spec.mounts = vec![
                mount("/new/token", secret.clone()),
                mount(
                    "/also/deep/deep",
                    MountKind::Tmpfs {
                        size_bytes: 0,
                        readonly: false,
                    },
                ),
            ];
        },
    );
    assert_eq!(outcome.output(), "");
    assert!(canary.join("token").exists() && canary.join("deep").exists());
}

/// CVE-2021-30465, CVE-2024-23651, CVE-2024-1753: a selector, or a target, that is a link.
#[test]
fn links_do_not_lead_mounts_out() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let cache = sandbox.temp.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    for (name, target) in [
        ("sub", "/"),
        ("up", "../../../../../../etc"),
        ("proc", "/proc/self/root"),
    ] {
        symlink(target, cache.join(name)).unwrap();
    }
    std::fs::write(cache.join("only-here"), "x").unwrap();
    let bind = |selector: &str| MountKind::Bind {
        source: cache.clone(),
        selector: selector.to_owned(),
        readonly: false,
    };
    let run = |selector: &str, target: &str| {
        sandbox.sh("ls /mnt 2>/dev/null || ls /victim", |spec| {
            none(spec);
            spec.mounts = vec![ProcessMount {
                target: target.to_owned(),
                kind: bind(selector),
            }];
        })
    };
    assert_eq!(run("sub", "/mnt").output(), "only-here\nproc\nsub\nup");
    for selector in ["up", "proc", "sub/etc", "../cache2"] {
        assert!(run(selector, "/mnt").result.is_err(), "{selector}");
    }
    assert_eq!(run("../../..", "/mnt").output(), "only-here\nproc\nsub\nup");
    let canary = sandbox.temp.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    symlink(&canary, sandbox.root().join("victim")).unwrap();
    // The link is absolute: inside the image it dangles, and what it says is made there.
    let outcome = run("sub", "/victim/inner");
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
}

/// Secrets: the mode that was asked for, memory only, and gone with the step.
#[test]
fn secrets_stay_in_memory() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let word = format!("hush{}", std::process::id());
    let secret = MountKind::Secret {
        data: word.clone().into_bytes(),
        mode: 0o400,
        uid: 1000,
        gid: 0,
    };
    assert!(!format!("{secret:?}").contains(&word));
    let outcome = sandbox.sh(
        "stat -c %a:%u:%g /run/secrets/s; cat /run/secrets/s; grep ' /run/secrets/s ' /proc/mounts",
        |spec| {
            none(spec);
            spec.mounts = vec![ProcessMount {
                target: "/run/secrets/s".to_owned(),
                kind: secret,
            }];
        },
    );
    let output = outcome.output();
    assert!(
        output.starts_with(&format!("400:1000:0\n{word}")),
        "{output}"
    );
    for word in ["tmpfs", "ro,", "nosuid", "nodev", "noexec"] {
        assert!(output.contains(word), "{output}");
    }
    assert_eq!(outcome.changes(), [""; 0]);
    let found = std::process::Command::new("grep")
        .args(["-rl", &word])
        .arg(sandbox.temp.path())
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");
}

/// CVE-2019-5736: the helper's program, reached through /proc, cannot be written.
#[test]
fn our_own_program_cannot_be_written() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "(echo x >> /proc/1/exe) 2>&1; (echo x > /proc/1/exe) 2>&1; cat /proc/1/environ | wc -c",
        none,
    );
    let lines: Vec<&str> = outcome.output().lines().collect();
    for line in &lines[..2] {
        let is_refused = [
            "Read-only file system",
            "Text file busy",
            "Permission denied",
        ]
        .iter()
        .any(|reason| line.contains(reason));
        assert!(is_refused, "{line}");
    }
    assert_eq!(lines[2], "0");
}

/// GHSA-7236-3392-c5c6: everything is given only to a step that may have everything.
#[test]
fn an_insecure_step_has_everything() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "grep -E '^(CapBnd|Seccomp:)' /proc/self/status; mount -t tmpfs x /tmp && echo mounted;
         test -b /dev/loop0 && echo loop",
        |spec| {
            none(spec);
            spec.insecure = true;
        },
    );
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find(|line| line.starts_with("CapBnd")).unwrap();
    assert_eq!(
        outcome.output(),
        format!("{bounding}\nSeccomp:\t0\nmounted\nloop")
    );
}

/// The calls that the filter refuses, as programs see it.
#[test]
fn the_filter_refuses_what_docker_refuses() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let outcome = sandbox.sh(
        "unshare -n true 2>&1; unshare -U true 2>&1; mount --bind / /tmp 2>&1; exit 0",
        none,
    );
    assert_eq!(
        outcome.output().matches("not permitted").count()
            + outcome.stdout.matches("denied").count(),
        3,
        "{}",
        outcome.stdout
    );
    // The old instruction set is filtered too and not simply killed.
    let elf = sandbox.root().join("bin/i386");
    std::fs::write(&elf, i386_program()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&elf, mode).unwrap();
    let mut spec = ProcessSpec::new(sandbox.overlay(), ["/bin/i386"]);
    none(&mut spec);
    match sandbox.run(&spec).result {
        // Exit code 1 is EPERM: unshare was refused.
        Ok(exit) => assert_eq!((exit.code, exit.signal), (1, None)),
        Err(error) => println!("not tried: {error}"),
    }
}

/// A 32-bit program: `exit(-unshare(CLONE_NEWNS))`.
fn i386_program() -> Vec<u8> {
    let code: [u8; 23] = [
        0xb8, 0x36, 0x01, 0, 0, // mov eax, 310 (unshare)
        0xbb, 0, 0, 0x02, 0, // mov ebx, CLONE_NEWNS
        0xcd, 0x80, // int 0x80
        0xf7, 0xd8, // neg eax
        0x89, 0xc3, // mov ebx, eax
        0xb8, 0x01, 0, 0, 0, // mov eax, 1 (exit)
        0xcd, 0x80, // int 0x80
    ];
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = 0x0804_8000_u32;
    elf.extend([2, 0, 3, 0]);
    for word in [1, base + 84, 52, 0, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let size = 84 + code.len() as u32;
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

/// Hundreds of layers, as real images have them.
#[test]
fn roots_of_many_layers_are_mounted() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let mut spec = sandbox.script("ls / | grep -c layer");
    none(&mut spec);
    let RootMount::Overlay { lower, .. } = &mut spec.root else {
        return;
    };
    for number in 0..300 {
        let layer = sandbox
            .temp
            .path()
            .join(format!("a-rather-long-name-of-a-layer-{number}"));
        std::fs::create_dir_all(layer.join(format!("layer{number}"))).unwrap();
        lower.insert(0, layer);
    }
    assert_eq!(sandbox.run(&spec).output(), "300");
}
