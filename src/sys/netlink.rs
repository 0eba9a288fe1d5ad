//! Network devices, addresses and routes through rtnetlink.
//!
//! The few requests that containers need, written out by hand: a request is a header, a
//! fixed structure and attributes, each padded to four bytes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const ACK: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE` and its value for no address.
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// Longest answer read at once; the kernel sends dumps in parts of at most 32 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// A connection to the part of the kernel that manages the network namespace it was made in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    /// Asks for names; belongs to the same namespace.
    names: OwnedFd,
    sequence: u32,
}

/// A pair of connected devices to make.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the end in the namespace of the connection.
    pub name: &'a str,
    /// Name of the other end.
    pub peer: &'a str,
    /// Largest packet; 0 leaves the default.
    pub mtu: u32,
}

/// A route of the main or another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// First address of the destination.
    pub destination: Ipv4Addr,
    /// Bits of the destination that count; 0 is the default route.
    pub prefix: u8,
    /// Device it goes through, where it goes through one.
    pub device: Option<u32>,
}

/// Starts the loopback device of the namespace that the calling thread is in.
pub fn raise_loopback() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.index_of("lo")?;
    netlink.raise(index)
}

impl Netlink {
    /// Connects to the namespace that the calling thread is in.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let names = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            socket,
            names,
            sequence: 0,
        })
    }

    /// Finds a device by name.
    pub fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.names, name)?)
    }

    /// Finds the name of a device.
    pub fn name_of(&self, index: u32) -> io::Result<String> {
        Ok(rustix::net::netdevice::index_to_name(&self.names, index)?)
    }

    /// Makes a pair of devices, one end in the namespace `peer_namespace`.
    pub fn make_veth(&mut self, veth: &Veth<'_>, peer_namespace: impl AsFd) -> io::Result<()> {
        let mut peer = device(0, 0).to_vec();
        text(&mut peer, libc::IFLA_IFNAME, veth.peer);
        let descriptor = peer_namespace.as_fd().as_raw_fd();
        attribute(&mut peer, libc::IFLA_NET_NS_FD, &descriptor.to_ne_bytes());
        set_mtu(&mut peer, veth.mtu);
        let mut data = Vec::new();
        attribute(&mut data, VETH_INFO_PEER, &peer);
        let mut info = Vec::new();
        text(&mut info, libc::IFLA_INFO_KIND, "veth");
        attribute(&mut info, libc::IFLA_INFO_DATA, &data);
        let mut request = device(0, 0).to_vec();
        text(&mut request, libc::IFLA_IFNAME, veth.name);
        set_mtu(&mut request, veth.mtu);
        attribute(&mut request, libc::IFLA_LINKINFO, &info);
        self.ask(libc::RTM_NEWLINK, CREATE, &request)
    }

    /// Keeps a device from giving itself an IPv6 address; a kernel without IPv6 is fine.
    pub fn without_ipv6_address(&mut self, index: u32) -> io::Result<()> {
        let mut mode = Vec::new();
        attribute(&mut mode, INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
        let mut families = Vec::new();
        attribute(&mut families, libc::AF_INET6 as u16, &mode);
        let mut request = device(index, 0).to_vec();
        attribute(&mut request, libc::IFLA_AF_SPEC, &families);
        match self.ask(libc::RTM_NEWLINK, 0, &request) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Starts a device.
    pub fn raise(&mut self, index: u32) -> io::Result<()> {
        self.ask(libc::RTM_NEWLINK, 0, &device(index, libc::IFF_UP as u32))
    }

    /// Removes a device; the other end of a pair goes with it.
    pub fn remove(&mut self, index: u32) -> io::Result<()> {
        self.ask(libc::RTM_DELLINK, 0, &device(index, 0))
    }

    /// Gives a device an address.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut request = vec![libc::AF_INET as u8, prefix, 0, 0];
        request.extend(index.to_ne_bytes());
        attribute(&mut request, libc::IFA_LOCAL, &address.octets());
        attribute(&mut request, libc::IFA_ADDRESS, &address.octets());
        self.ask(libc::RTM_NEWADDR, CREATE, &request)
    }

    /// Sends what goes nowhere else through a gateway.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut request = vec![
            libc::AF_INET as u8,
            0,
            0,
            0,
            libc::RT_TABLE_MAIN,
            libc::RTPROT_BOOT,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
        ];
        request.extend(0_u32.to_ne_bytes());
        attribute(&mut request, libc::RTA_GATEWAY, &gateway.octets());
        self.ask(libc::RTM_NEWROUTE, CREATE, &request)
    }

    /// Lists the IPv4 routes of all tables.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut request = vec![libc::AF_INET as u8];
        request.resize(12, 0);
        self.send(libc::RTM_GETROUTE, DUMP, &request)?;
        let mut routes = Vec::new();
        self.answers(|kind, body| {
            if kind == libc::RTM_NEWROUTE {
                routes.extend(route(body));
            }
        })?;
        Ok(routes)
    }

    /// Sends a request and waits until it was done.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | ACK, body)?;
        self.answers(|_, _| {})
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Reads answers to the last request until the kernel says that it is done.
    fn answers(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; MAX_ANSWER];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
            })?;
            let mut rest = &buffer[..length];
            while let Some((kind, sequence, body, after)) = message(rest) {
                rest = after;
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return result(body),
                    _ => each(kind, body),
                }
            }
        }
    }
}

/// Splits the first message off: kind, sequence number, body, rest.
fn message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let body = bytes.get(16..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((u16_at(bytes, 4)?, u32_at(bytes, 8)?, body, after))
}

fn result(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(-negative)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn route(body: &[u8]) -> Option<Route> {
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix: *body.get(1)?,
        device: None,
    };
    let mut rest = body.get(12..)?;
    while let Some((kind, value, after)) = split_attribute(rest) {
        rest = after;
        match kind {
            libc::RTA_DST => {
                let octets: [u8; 4] = value.try_into().ok()?;
                route.destination = Ipv4Addr::from(octets);
            }
            libc::RTA_OIF => route.device = u32_at(value, 0),
            _ => {}
        }
    }
    Some(route)
}

fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    let value = bytes.get(4..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((u16_at(bytes, 2)?, value, after))
}

/// `struct ifinfomsg` with flags to set.
fn device(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn text(to: &mut Vec<u8>, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    attribute(to, kind, &bytes);
}

fn set_mtu(to: &mut Vec<u8>, mtu: u32) {
    if mtu > 0 {
        attribute(to, libc::IFLA_MTU, &mtu.to_ne_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_and_its_routes_are_found() {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.index_of("lo").unwrap();
        let routes = netlink.routes().unwrap();
        let local = routes
            .iter()
            .find(|route| route.destination == Ipv4Addr::new(127, 0, 0, 0))
            .unwrap();
        assert_eq!((local.prefix, local.device), (8, Some(index)));
        assert!(netlink.index_of("no such device").is_err());
    }

    #[test]
    fn attributes_are_padded() {
        let mut bytes = Vec::new();
        text(&mut bytes, 3, "lo");
        attribute(&mut bytes, 4, &7_u32.to_ne_bytes());
        assert_eq!(bytes.len(), 16);
        let (kind, value, rest) = split_attribute(&bytes).unwrap();
        assert_eq!((kind, value), (3, &b"lo\0"[..]));
        let (kind, value, rest) = split_attribute(rest).unwrap();
        assert_eq!((kind, u32_at(value, 0), rest.len()), (4, Some(7), 0));
        assert!(split_attribute(&[9, 0, 1, 0]).is_none());
        assert!(split_attribute(&[3, 0, 1, 0]).is_none());
    }
}
