//! `/etc/resolv.conf` and `/etc/hosts` as a container sees them.
//!
//! The host's resolvers are used as they are, except that in a network of its own a container
//! cannot reach a resolver on the host's loopback device. As in Docker, systemd-resolved's
//! list of real servers is taken where its stub is what the host uses; other loopback
//! resolvers, and IPv6 ones (the container's network is IPv4), are left out; and when none
//! is left, public ones stand in. A container without a network has no resolver.

use std::net::IpAddr;
use std::path::Path;

use super::spec::NetworkMode;

/// What stands in when the host has no resolver that a container can reach.
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Where programs look for resolvers, and where systemd-resolved lists the real ones.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Reads the host's files and makes `/etc/resolv.conf` for a container.
pub(super) fn host_resolv_conf(network: NetworkMode) -> String {
    let read = |path| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    resolv_conf(&read(RESOLV_CONF), &read(SYSTEMD_RESOLV_CONF), network)
}

/// Lists the addresses of the resolvers in a `resolv.conf`.
pub(super) fn servers(text: &str) -> Vec<IpAddr> {
    text.lines().filter_map(server).collect()
}

/// Makes `/etc/resolv.conf` from the host's file and systemd-resolved's (empty if there is none).
pub(super) fn resolv_conf(host: &str, systemd: &str, network: NetworkMode) -> String {
    match network {
        NetworkMode::None => String::new(),
        NetworkMode::Host => host.to_owned(),
        NetworkMode::Default => {
            let all = servers(host);
            let is_stub = !all.is_empty() && all.iter().all(IpAddr::is_loopback);
            let text = if is_stub && servers(systemd).iter().any(is_reachable) {
                systemd
            } else {
                host
            };
            without_unreachable(text)
        }
    }
}

fn without_unreachable(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        if server_text(line).is_some() && !server(line).is_some_and(|s| is_reachable(&s)) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    if !servers(&kept).iter().any(is_reachable) {
        for server in PUBLIC_SERVERS {
            kept.push_str("nameserver ");
            kept.push_str(server);
            kept.push('\n');
        }
    }
    kept
}

fn is_reachable(server: &IpAddr) -> bool {
    server.is_ipv4() && !server.is_loopback()
}

fn server_text(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next()? == "nameserver").then(|| words.next().unwrap_or(""))
}

fn server(line: &str) -> Option<IpAddr> {
    // A scoped address (`fe80::1%eth0`) keeps its address part.
    server_text(line)?.split('%').next()?.parse().ok()
}

/// Makes `/etc/hosts`.
pub(super) fn hosts(hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_that_a_container_reaches() {
        use NetworkMode::{Default, Host, None};
        let plain = "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n";
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        let real = "nameserver 192.0.2.1\nnameserver 2001:db8::1\n";
        let public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        for (host, systemd, network, expected) in [
            (plain, "", Default, plain.to_owned()),
            (plain, real, Default, plain.to_owned()),
            (stub, real, Default, "nameserver 192.0.2.1\n".to_owned()),
            (stub, "", Default, format!("options edns0\n{public}")),
            (stub, stub, Default, format!("options edns0\n{public}")),
            (stub, real, Host, stub.to_owned()),
            (plain, real, None, String::new()),
            ("", "", Default, public.to_owned()),
            (
                "nameserver ::1\nnameserver 127.0.0.1\nnameserver 192.0.2.9\n",
                "",
                Default,
                "nameserver 192.0.2.9\n".to_owned(),
            ),
            ("nameserver fe80::1%eth0\n", "", Default, public.to_owned()),
            ("nameserver\n#nameserver 1.1.1.1\n", "", Default, {
                format!("#nameserver 1.1.1.1\n{public}")
            }),
        ] {
            assert_eq!(
                resolv_conf(host, systemd, network),
                expected,
                "{host:?} {network:?}"
            );
        }
    }

    #[test]
    fn hosts_names_the_machine_and_the_extra_hosts() {
        let extra = [
            ("db".to_owned(), "192.0.2.7".parse().unwrap()),
            ("six".to_owned(), "2001:db8::7".parse().unwrap()),
        ];
        assert_eq!(
            hosts("box", &extra),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             192.0.2.7\tdb\n2001:db8::7\tsix\n"
        );
    }
}
