//! One network: a namespace held by its descriptor, connected to the host.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::thread::UnshareFlags;

use super::host::HostNetwork;
use super::subnet::{Addresses, PREFIX};
use crate::sys::netlink::{Netlink, Veth};
use crate::sys::ns;

/// Name of the device inside.
const INSIDE: &str = "eth0";

/// Lists of sockets; a namespace with none but closed TCP connections is as good as new.
const SOCKET_LISTS: [&str; 9] = [
    "tcp", "tcp6", "udp", "udp6", "udplite", "raw", "raw6", "packet", "unix",
];

/// State of a TCP connection that only waits for late packets (`TCP_TIME_WAIT`).
const TIME_WAIT: &str = "06";

/// A network. It lives as long as a descriptor of it or a process in it.
#[derive(Debug)]
pub(super) struct Namespace {
    descriptor: OwnedFd,
    number: u8,
    device: String,
    /// Keeps forwarding and NAT in place.
    host: Arc<HostNetwork>,
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Namespace {
    /// Makes the network with the given number.
    pub(super) fn make(host: &Arc<HostNetwork>, number: u8) -> io::Result<Self> {
        let device = host.device(number);
        let addresses = host.addresses(number);
        let descriptor = {
            let (device, mtu) = (device.clone(), host.mtu());
            in_thread(move || make(&device, mtu, &addresses))?
        };
        Ok(Self {
            descriptor,
            number,
            device,
            host: Arc::clone(host),
        })
    }

    /// Returns its number.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Says whether nothing of a former user is left. What cannot be found out counts as no.
    pub(super) fn is_empty(&self) -> bool {
        let Ok(descriptor) = self.descriptor.try_clone() else {
            return false;
        };
        in_thread(move || {
            ns::enter_network(&descriptor)?;
            has_no_sockets()
        })
        .unwrap_or(false)
    }

    /// Removes it at once; when dropped, the kernel takes its time.
    pub(super) fn remove(self) {
        let removed = Netlink::open().and_then(|mut netlink| {
            let index = netlink.index_of(&self.device)?;
            netlink.remove(index)
        });
        // The device goes with the namespace in any case.
        drop(removed);
        drop(self.host);
    }
}

/// Works in a thread of its own, which may change its namespace because it ends.
fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    std::thread::Builder::new()
        .name("network".to_owned())
        .spawn(work)?
        .join()
        .map_err(|_| io::Error::other("the thread panicked"))?
}

fn make(device: &str, mtu: u32, addresses: &Addresses) -> io::Result<OwnedFd> {
    let mut outside = Netlink::open()?;
    ns::unshare(UnshareFlags::NEWNET)?;
    let descriptor = OwnedFd::from(File::open("/proc/thread-self/ns/net")?);
    let mut inside = Netlink::open()?;
    let veth = Veth {
        name: device,
        peer: INSIDE,
        mtu,
    };
    match outside.make_veth(&veth, &descriptor) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Of a process that was killed: the kernel has not come round to removing it.
            let index = outside.index_of(device)?;
            outside.remove(index)?;
            outside.make_veth(&veth, &descriptor)?;
        }
        other => other?,
    }
    let index = outside.index_of(device)?;
    outside.without_ipv6_address(index)?;
    outside.add_address(index, addresses.host, PREFIX)?;
    outside.raise(index)?;

    let loopback = inside.index_of("lo")?;
    inside.raise(loopback)?;
    let index = inside.index_of(INSIDE)?;
    inside.without_ipv6_address(index)?;
    inside.add_address(index, addresses.container, PREFIX)?;
    inside.raise(index)?;
    inside.add_default_route(addresses.host)?;
    Ok(descriptor)
}

fn has_no_sockets() -> io::Result<bool> {
    for name in SOCKET_LISTS {
        let text = match std::fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            // A kernel without the protocol.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if !text.lines().skip(1).all(is_over) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says whether a line of `/proc/net/tcp` is about a connection that is over.
fn is_over(line: &str) -> bool {
    line.split_whitespace().nth(3) == Some(TIME_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_are_over_may_be_left() {
        for (line, expected) in [
            ("   0: 0201C90A:9C40 0101C90A:0050 06 00000000:00000000 03:00000F5C", true),
            ("   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000", false),
            ("ffff8881: 00000002 00000000 00010000 0001 01 30406 /run/x", false),
        ] {
            assert_eq!(is_over(line), expected, "{line}");
        }
    }
}
