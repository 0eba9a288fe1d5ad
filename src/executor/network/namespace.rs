//! One network: a namespace held by its descriptor, connected to the host.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::thread::UnshareFlags;

use super::host::HostNetwork;
use super::subnet::{Addresses, PREFIX};
use crate::sys::netlink::{Netlink, Veth};
use crate::sys::ns;

/// Name of the device inside.
const INSIDE: &str = "eth0";

/// Counts of sockets in a network namespace. Unlike the lists of sockets, reading it does not
/// walk the tables of the whole machine.
const SOCKET_COUNTS: &str = "/proc/thread-self/net/sockstat";

/// A network. It lives as long as a descriptor of it or a process in it.
#[derive(Debug)]
pub(super) struct Namespace {
    descriptor: OwnedFd,
    number: u8,
    gateway: Ipv4Addr,
    /// Keeps forwarding and NAT in place.
    _host: Arc<HostNetwork>,
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
        let mtu = host.mtu();
        let gateway = addresses.host;
        let descriptor = in_thread(move || make(&device, mtu, &addresses))?;
        Ok(Self {
            descriptor,
            number,
            gateway,
            _host: Arc::clone(host),
        })
    }

    /// Returns the host's end.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.gateway
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
    Ok(count(&std::fs::read_to_string(SOCKET_COUNTS)?) == Some(0))
}

/// Reads the number of all sockets that programs hold; connections that only wait for late
/// packets are not among them.
fn count(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("sockets: used "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted() {
        for (text, expected) in [
            (
                "sockets: used 0\nTCP: inuse 0 orphan 0 tw 3 alloc 5 mem 0\n",
                Some(0),
            ),
            ("sockets: used 12\nTCP: inuse 0\n", Some(12)),
            ("TCP: inuse 0\n", None),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
    }
}
