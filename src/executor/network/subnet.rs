//! Addresses for containers: a /16 for all cooper processes of a machine, a /24 of it for
//! each process, a /30 for each container.

use std::net::Ipv4Addr;

use crate::sys::netlink::Route;

/// A /16, by its first two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Subnet(pub(super) [u8; 2]);

/// The addresses of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    /// The host's end.
    pub(super) host: Ipv4Addr,
    /// The container's end.
    pub(super) container: Ipv4Addr,
}

/// Bits of [`Addresses`] that are the network.
pub(super) const PREFIX: u8 = 30;

/// Private ranges that few others use come first.
fn candidates() -> impl Iterator<Item = Subnet> {
    let ten = (0..=255_u8).map(|offset| Subnet([10, offset.wrapping_add(201)]));
    let seventeen = (16..=31).map(|second| Subnet([172, second]));
    ten.chain(seventeen)
}

impl Subnet {
    /// Chooses a subnet that overlaps with no route but the default one, and in which none of
    /// the addresses lies that containers want to reach by name.
    pub(super) fn choose(routes: &[Route], wanted: &[Ipv4Addr]) -> Option<Self> {
        candidates().find(|subnet| {
            !wanted.iter().any(|address| subnet.contains(*address))
                && !routes.iter().any(|route| subnet.overlaps(route))
        })
    }

    /// Returns it as `10.1.0.0/16`.
    pub(super) fn cidr(self) -> String {
        format!("{}.{}.0.0/16", self.0[0], self.0[1])
    }

    /// Returns the addresses of a container by the numbers of its process and its own.
    pub(super) fn addresses(self, process: u8, container: u8) -> Addresses {
        let last = (container % 64) * 4;
        let address = |offset| Ipv4Addr::new(self.0[0], self.0[1], process, last + offset);
        Addresses {
            host: address(1),
            container: address(2),
        }
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        address.octets()[..2] == self.0
    }

    fn overlaps(self, route: &Route) -> bool {
        // Routes that catch nearly everything (the default, a VPN's two halves) name no
        // network that could be taken.
        if route.prefix <= 1 {
            return false;
        }
        let shared = u32::from(route.prefix.min(16));
        let first = u32::from_be_bytes([self.0[0], self.0[1], 0, 0]);
        (first ^ route.destination.to_bits()) >> (32 - shared) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (address, prefix) = text.split_once('/').unwrap();
        Route {
            destination: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            device: None,
        }
    }

    #[test]
    fn chooses_what_nobody_uses() {
        for (routes, wanted, expected) in [
            (&["0.0.0.0/0"][..], &[][..], Some([10, 201])),
            (&["0.0.0.0/1", "128.0.0.0/1"], &[], Some([10, 201])),
            (&["10.201.7.0/24"], &[], Some([10, 202])),
            (&["10.201.0.0/17", "10.202.0.1/32"], &[], Some([10, 203])),
            (&["10.192.0.0/10"], &[], Some([10, 0])),
            (&["10.0.0.0/8"], &[], Some([172, 16])),
            (&["10.0.0.0/8", "172.16.0.0/13"], &[], Some([172, 24])),
            (&["10.0.0.0/8", "172.16.0.0/12"], &[], None),
            (&[], &["10.201.255.53"], Some([10, 202])),
        ] {
            let routes: Vec<Route> = routes.iter().copied().map(route).collect();
            let wanted: Vec<Ipv4Addr> = wanted.iter().map(|text| text.parse().unwrap()).collect();
            let found = Subnet::choose(&routes, &wanted).map(|subnet| subnet.0);
            assert_eq!(found, expected, "{routes:?}");
        }
    }

    #[test]
    fn every_container_has_addresses_of_its_own() {
        let subnet = Subnet([10, 201]);
        assert_eq!(subnet.cidr(), "10.201.0.0/16");
        let first = subnet.addresses(3, 0);
        assert_eq!(first.host, Ipv4Addr::new(10, 201, 3, 1));
        assert_eq!(first.container, Ipv4Addr::new(10, 201, 3, 2));
        assert_eq!(
            subnet.addresses(3, 63).container,
            Ipv4Addr::new(10, 201, 3, 254)
        );
    }
}
