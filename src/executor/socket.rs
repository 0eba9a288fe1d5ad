//! Sockets of the host, shown in a container through a socket of our own.
//!
//! The container gets a new socket with the owner and mode that the step asks for; each
//! connection to it is passed on. The host's socket keeps its owner and mode.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::sys::handle::Handle;
use crate::sys::root::Root;

/// A socket that passes connections on until it is dropped.
#[derive(Debug)]
pub(super) struct SocketProxy {
    task: JoinHandle<()>,
}

/// Who may connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
}

impl SocketProxy {
    /// Makes the socket `name` in `directory` and passes connections on to `path`.
    ///
    /// Must be called in a runtime.
    pub(super) fn start(
        directory: &Root,
        name: &str,
        access: Access,
        path: &Path,
    ) -> io::Result<(Self, OwnedFd)> {
        // An address has room for 107 bytes only; through the descriptor it is short.
        let address = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
        let listener = std::os::unix::net::UnixListener::bind(&address)?;
        listener.set_nonblocking(true)?;
        let handle: Handle = directory.handle(Path::new(name))?;
        handle.set_owner(access.uid, access.gid)?;
        handle.set_mode(access.mode)?;
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let listener = {
            let _guard = runtime.enter();
            UnixListener::from_std(listener)?
        };
        let task = runtime.spawn(serve(listener, path.to_owned()));
        Ok((Self { task }, handle.into_fd()))
    }
}

impl Drop for SocketProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, path: PathBuf) {
    let mut connections = tokio::task::JoinSet::new();
    // An error of the listener itself ends the service; clients see connections refused.
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let path = path.clone();
        connections.spawn(async move { pass_on(client, &path).await });
    }
}

/// Passes bytes both ways; an end that fails closes both, which is what its peer must see.
async fn pass_on(mut client: UnixStream, path: &Path) -> io::Result<()> {
    let mut server = UnixStream::connect(path).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_go_both_ways() {
        let temp = tempfile::tempdir().unwrap();
        let agent = temp.path().join("agent");
        let listener = UnixListener::bind(&agent).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = [0; 4];
            stream.read_exact(&mut text).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
        });
        let directory = Root::open(temp.path()).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        let access = Access {
            mode: 0o600,
            uid,
            gid,
        };
        let (_proxy, _fd) = SocketProxy::start(&directory, "proxy", access, &agent).unwrap();
        let mut client = UnixStream::connect(temp.path().join("proxy"))
            .await
            .unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut text = [0; 4];
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"pong");
        assert_eq!(directory.lstat(Path::new("proxy")).unwrap().mode, 0o600);
    }
}
