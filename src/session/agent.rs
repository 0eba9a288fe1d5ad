//! The socket that a step sees instead of the user's agent.
//!
//! Agents refuse peers of other users, and a step may run as any user; so a socket of our own
//! stands between. It lets only two requests through, "which keys" and "sign this" (SSH agent
//! protocol, draft-miller-ssh-agent §3.5 and §3.6): a step cannot add, remove or lock keys.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;

/// Largest message of the agent protocol that is passed on.
const MESSAGE_BYTES_MAX: u32 = 256 * 1024;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// The answer "no", as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// Longest time an agent of our own may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket behind which an agent answers. Dropping it closes the socket.
#[derive(Debug)]
pub struct ForwardedAgent {
    path: PathBuf,
    dir: PathBuf,
    stop: Arc<AtomicBool>,
    own_agent: Option<Child>,
}

impl ForwardedAgent {
    /// Returns the socket to mount into a step.
    pub fn socket(&self) -> &Path {
        &self.path
    }

    pub(super) fn to_socket(
        id: &str,
        upstream: PathBuf,
        raw: bool,
        dir: &Path,
    ) -> Result<Self, Error> {
        let dir = private_dir(dir).map_err(|error| failed(id, &error.to_string()))?;
        Self::listen(dir, upstream, raw).map_err(|error| failed(id, &error.to_string()))
    }

    pub(super) fn to_keys(id: &str, keys: &[PathBuf], dir: &Path) -> Result<Self, Error> {
        let dir = private_dir(dir).map_err(|error| failed(id, &error.to_string()))?;
        let upstream = dir.join("own");
        let mut forwarded = Self::listen(dir, upstream.clone(), false)
            .map_err(|error| failed(id, &error.to_string()))?;
        let child = start_agent(&upstream).map_err(|error| failed(id, &error))?;
        forwarded.own_agent = Some(child);
        add_keys(&upstream, keys).map_err(|error| failed(id, &error))?;
        Ok(forwarded)
    }

    fn listen(dir: PathBuf, upstream: PathBuf, raw: bool) -> io::Result<Self> {
        let path = dir.join("agent");
        let listener = UnixListener::bind(&path)?;
        // The mount into the step gives it the owner and mode that the step asked for.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || accept(&listener, &upstream, raw, &stopped))?;
        Ok(Self {
            path,
            dir,
            stop,
            own_agent: None,
        })
    }
}

impl Drop for ForwardedAgent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread that waits for the next connection.
        drop(UnixStream::connect(&self.path));
        if let Some(agent) = &mut self.own_agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(super) fn failed(id: &str, reason: &str) -> Error {
    Error::Agent {
        id: id.to_owned(),
        reason: reason.to_owned(),
    }
}

fn accept(listener: &UnixListener, upstream: &Path, raw: bool, stop: &AtomicBool) {
    for connection in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = connection else { return };
        let upstream = upstream.to_owned();
        // A connection that cannot be served is closed; the client sees the end of file.
        let _ = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(client, &upstream, raw));
    }
}

fn serve(client: UnixStream, upstream: &Path, raw: bool) -> io::Result<()> {
    let agent = UnixStream::connect(upstream)?;
    if raw {
        return pass_everything(client, agent);
    }
    pass_requests(client, agent)
}

fn pass_everything(client: UnixStream, agent: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_agent) = (client.try_clone()?, agent.try_clone()?);
    let forth = std::thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_agent);
        let _ = to_agent.shutdown(Shutdown::Write);
        copied
    });
    io::copy(&mut &agent, &mut &client)?;
    client.shutdown(Shutdown::Both)?;
    match forth.join() {
        Ok(result) => result.map(|_| ()),
        Err(_) => Ok(()),
    }
}

fn pass_requests(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    while let Some(request) = read_message(&mut client)? {
        if !matches!(request.get(4), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        let Some(answer) = read_message(&mut agent)? else {
            return Ok(());
        };
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Reads one message with its length in front; `None` at the end of the stream.
fn read_message(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let count = u32::from_be_bytes(length);
    if count == 0 || count > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    stream.take(u64::from(count)).read_to_end(&mut message)?;
    if message.len() as u64 != 4 + u64::from(count) {
        return Ok(None);
    }
    Ok(Some(message))
}

fn private_dir(parent: &Path) -> io::Result<PathBuf> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let dir = parent.join(format!("ssh-{}", crate::oci::hex_of(&bytes)));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn start_agent(socket: &Path) -> Result<Child, String> {
    let mut child = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start ssh-agent: {error}"))?;
    let start = Instant::now();
    while UnixStream::connect(socket).is_err() {
        if start.elapsed() > START_TIMEOUT || !matches!(child.try_wait(), Ok(None)) {
            let _ = child.kill();
            let _ = child.wait();
            return Err("ssh-agent did not start".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

fn add_keys(socket: &Path, keys: &[PathBuf]) -> Result<(), String> {
    for key in keys {
        let output = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .arg(key)
            .env("SSH_AUTH_SOCK", socket)
            // Nobody is there to type a passphrase.
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("SSH_ASKPASS", "/bin/false")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run ssh-add: {error}"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.trim().lines().next().unwrap_or("unknown reason");
            return Err(format!("cannot use the key {}: {line}", key.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers every message with its type, doubled.
    fn echo_agent(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Ok(Some(message)) = read_message(&mut stream) {
                    let kind = message[4];
                    stream.write_all(&[0, 0, 0, 2, kind, kind]).unwrap();
                }
            }
        });
    }

    #[test]
    fn only_listing_and_signing_pass() {
        let dir = tempfile::tempdir().unwrap();
        let upstream = dir.path().join("upstream");
        echo_agent(&upstream);
        let agent = ForwardedAgent::to_socket("default", upstream, false, dir.path()).unwrap();
        let mut client = UnixStream::connect(agent.socket()).unwrap();
        for (kind, expected) in [
            (11, &[0, 0, 0, 2, 11, 11][..]),
            (13, &[0, 0, 0, 2, 13, 13]),
            (17, &FAILURE),
            (19, &FAILURE),
            (27, &FAILURE),
        ] {
            client.write_all(&[0, 0, 0, 3, kind, 1, 2]).unwrap();
            assert_eq!(read_message(&mut client).unwrap().unwrap(), expected);
        }
        client.write_all(&[255, 255, 255, 255]).unwrap();
        assert_eq!(read_message(&mut client).unwrap(), None);
        let socket = agent.socket().to_owned();
        drop(agent);
        assert!(!socket.exists());
    }
}
