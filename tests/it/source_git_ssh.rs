//! Git over SSH with a real `sshd` on the loopback, whose keys only an agent holds. Where the
//! programs are not installed, one line says so; with `REQUIRE_REGISTRY=1` that is a failure.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cooper::llb::GitSource;
use cooper::progress::VertexProgress;
use cooper::session::{Session, SshAgents};
use cooper::source::{Error, GitOptions, Repositories};

/// The program, by its absolute path, as it wants to be called.
const SSHD: &str = "/usr/sbin/sshd";

/// Answers each connection with an `sshd` of its own.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(config: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let stream = OwnedFd::from(stream.unwrap());
                let mut child = Command::new(SSHD)
                    .args(["-i", "-f"])
                    .arg(&config)
                    .stdin(Stdio::from(stream.try_clone().unwrap()))
                    .stdout(Stdio::from(stream))
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                std::thread::spawn(move || child.wait());
            }
        });
        Self { address, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes keys, a configuration and a repository.
fn prepare(dir: &Path) -> PathBuf {
    for name in ["host", "user", "other"] {
        run(
            dir,
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-f", name],
        );
    }
    std::fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let git = run(dir, "sh", &["-c", "command -v git"]);
    let programs = Path::new(&git).parent().unwrap().display().to_string();
    let at = dir.display();
    let config = format!(
        "HostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\nUsePAM no\n\
         StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
         SetEnv PATH={programs}:/usr/bin:/bin\n"
    );
    let path = dir.join("config");
    std::fs::write(&path, config).unwrap();
    let origin = dir.join("o");
    std::fs::create_dir(&origin).unwrap();
    std::fs::write(origin.join("file"), "content").unwrap();
    run(&origin, "git", &["init", "--quiet"]);
    run(&origin, "git", &["add", "-A"]);
    let user = ["-c", "user.name=t", "-c", "user.email=t@t.example"];
    let commit = ["commit", "--quiet", "-m", "one"];
    run(&origin, "git", &[&user[..], &commit].concat());
    path
}

/// Says why the test does not run; fails where it must.
#[allow(clippy::disallowed_methods, reason = "the tests' own switch")]
fn is_installed() -> bool {
    // Where it changes its user, it wants an empty folder for its unprivileged part.
    let made = std::fs::create_dir_all("/run/sshd");
    let is_there = Path::new(SSHD).exists() && made.is_ok();
    if !is_there {
        let required = std::env::var_os("REQUIRE_REGISTRY").is_some_and(|value| value == "1");
        assert!(!required, "REQUIRE_REGISTRY=1, but {SSHD} is not installed");
        println!("skipped: {SSHD} is not installed or cannot run here");
    }
    is_there
}

async fn check_out(dir: &Path, source: &GitSource, key: Option<&str>) -> Result<String, Error> {
    let mut session = Session::default();
    if let Some(key) = key {
        let spec = format!("default={}", dir.join(key).display());
        session.ssh = SshAgents::load(&[spec.parse().unwrap()], &|_| None).unwrap();
    }
    let scratch = tempfile::tempdir_in(dir).unwrap();
    let options = GitOptions::lent(source, &session, scratch.path())?;
    let repositories = Repositories::new(&scratch.path().join("mirrors"));
    let progress = VertexProgress::silent();
    let pinned = repositories.pin(source, &options, &progress).await?;
    let tree = scratch.path().join("tree");
    repositories
        .fetch(&pinned, &options, &tree, &progress)
        .await?;
    Ok(std::fs::read_to_string(tree.join("file")).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_opens_the_door_and_host_keys_are_checked_on_demand() {
    if !is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let searchable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, searchable).unwrap();
    let server = Server::start(prepare(dir));
    let user = run(dir, "id", &["-un"]);
    let (port, at) = (server.address.port(), dir.display());
    let source = GitSource {
        remote: format!("ssh://{user}@127.0.0.1:{port}{at}/o"),
        ssh_agent: Some("default".to_owned()),
        ..GitSource::default()
    };
    let known = |key: &str| {
        let key = std::fs::read_to_string(dir.join(key)).unwrap();
        GitSource {
            known_hosts: Some(format!("[127.0.0.1]:{port} {key}")),
            ..source.clone()
        }
    };
    for (source, key, expected) in [
        (&source, Some("user"), Ok("content")),
        (&known("host.pub"), Some("user"), Ok("content")),
        (&known("other.pub"), Some("user"), Err("not the known one")),
        (&source, Some("other"), Err("access was refused")),
        (&source, None, Err("--ssh default")),
    ] {
        match (check_out(dir, source, key).await, expected) {
            (Ok(content), Ok(expected)) => assert_eq!(content, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{key:?}: {found:?}"),
        }
    }
}
