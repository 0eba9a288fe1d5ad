//! Messages with descriptors between the executor and the helper process of a step.
//!
//! Each message is one packet on a `SOCK_SEQPACKET` pair. Whatever may be long (a step's
//! environment, its secrets) travels in a sealed memory file, as the first descriptor.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::process;

/// Longest packet.
const MAX_PACKET_BYTES: usize = 32 * 1024;

/// Most descriptors in a packet; the kernel takes 253.
const MAX_DESCRIPTORS: usize = 200;

/// Longest text of a document: environment and secrets of one step.
const MAX_DOCUMENT_BYTES: u64 = 256 << 20;

/// Makes a pair of connected ends.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends a short message.
pub(super) fn send<T: Serialize>(channel: impl AsFd, message: &T) -> io::Result<()> {
    send_packet(&channel, &serde_json::to_vec(message)?, &[])
}

/// Receives a short message; `None` when the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(channel: impl AsFd) -> io::Result<Option<T>> {
    match receive_packet(&channel)? {
        Some((packet, _)) => Ok(Some(serde_json::from_slice(&packet)?)),
        None => Ok(None),
    }
}

/// Sends a few descriptors and nothing else.
pub(super) fn send_descriptors(
    channel: impl AsFd,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_packet(&channel, b"0", descriptors)
}

/// Receives what [`send_descriptors`] sent; `None` when the other end is gone.
pub(super) fn receive_descriptors(channel: impl AsFd) -> io::Result<Option<Vec<OwnedFd>>> {
    Ok(receive_packet(&channel)?.map(|(_, descriptors)| descriptors))
}

/// Sends a document of any length and descriptors of any number.
pub(super) fn send_document<T: Serialize>(
    channel: impl AsFd,
    document: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let memory = memory_file(&serde_json::to_vec(document)?)?;
    let count = descriptors.len();
    send_packet(&channel, &serde_json::to_vec(&count)?, &[memory.as_fd()])?;
    for group in descriptors.chunks(MAX_DESCRIPTORS) {
        send_descriptors(&channel, group)?;
    }
    Ok(())
}

/// Receives what [`send_document`] sent; `None` when the other end is gone.
pub(super) fn receive_document<T: DeserializeOwned>(
    channel: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((packet, mut memory)) = receive_packet(&channel)? else {
        return Ok(None);
    };
    let count: usize = serde_json::from_slice(&packet)?;
    let memory = memory.pop().ok_or(io::ErrorKind::InvalidData)?;
    let mut descriptors = Vec::new();
    while descriptors.len() < count {
        match receive_packet(&channel)? {
            Some((_, more)) if !more.is_empty() => descriptors.extend(more),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    let mut text = Vec::new();
    let mut file = std::fs::File::from(memory);
    file.rewind()?;
    file.take(MAX_DOCUMENT_BYTES).read_to_end(&mut text)?;
    Ok(Some((serde_json::from_slice(&text)?, descriptors)))
}

/// Returns something to await messages with. Needs a tokio runtime.
pub(super) fn watch(channel: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    process::watch(channel.try_clone()?, Interest::READABLE)
}

fn memory_file(text: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("cooper-step", flags)?);
    file.write_all(text)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

fn send_packet(
    channel: &impl AsFd,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(packet)];
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(channel, &parts, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives a packet; `None` at the end.
fn receive_packet(channel: &impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut packet)];
        rustix::net::recvmsg(channel, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    packet.truncate(received.bytes);
    Ok(Some((packet, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_and_many_descriptors_arrive() {
        let (ours, theirs) = pair().unwrap();
        let document = vec!["x".repeat(100_000); 20];
        let descriptors = vec![ours.as_fd(); 450];
        send_document(&ours, &document, &descriptors).unwrap();
        let (found, fds): (Vec<String>, _) = receive_document(&theirs).unwrap().unwrap();
        assert_eq!((found, fds.len()), (document, 450));
        send(&theirs, &("short", 1)).unwrap();
        let found: (String, u32) = receive(&ours).unwrap().unwrap();
        assert_eq!(found, ("short".to_owned(), 1));
        drop((theirs, fds));
        assert!(receive::<u32>(&ours).unwrap().is_none());
    }
}
