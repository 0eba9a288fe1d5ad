//! How single values are read: booleans, sizes, limits, hosts, pairs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::csv;
use crate::cli::engines::EngineChoice;
use crate::engine::request::{Entitlement, ExtraHost, HostAddress, PullPolicy, RunLimits, Ulimit};
use crate::oci::{Platform, Reference};

/// Allows an output to remove files outside the current directory.
pub(crate) const LOCAL_DELETE: &str = "buildx.local.delete";
/// Names of resource limits that Docker takes.
const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads when a registry is asked for an image.
pub(crate) fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" | "ifmissing" => Ok(PullPolicy::Missing),
        "newer" | "ifnewer" => Ok(PullPolicy::Newer),
        "never" => Ok(PullPolicy::Never),
        other => match boolean(other) {
            Ok(true) => Ok(PullPolicy::Always),
            Ok(false) => Ok(PullPolicy::Missing),
            Err(_) => Err("expected always, missing, newer, never, true or false".to_owned()),
        },
    }
}

/// Reads a boolean in Go's spelling.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Reads a platform; `local` is the host's.
pub(crate) fn platform(text: &str) -> Result<Platform, String> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse().map_err(|error| format!("{error}"))
}

/// Reads an image name and fills in the default tag.
pub(crate) fn reference(text: &str) -> Result<Reference, String> {
    match text.parse::<Reference>() {
        Ok(reference) => Ok(reference.with_default_tag()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a size: a number, maybe with a fraction, and `b`, `k`, `m`, `g`, `t`, `p`, each maybe
/// followed by `b` or `ib`; units are powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let refused = || format!("invalid size: {text:?}, expected for example 64m or 1g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = unit.trim_start();
    let power = match unit.chars().next() {
        None => 0,
        Some(letter) => "bkmgtp".find(letter).ok_or_else(refused)?,
    };
    let rest = unit.get(1..).unwrap_or("");
    if !(rest.is_empty() || (power > 0 && matches!(rest, "b" | "ib"))) {
        return Err(refused());
    }
    let factor = 1_u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(refused);
    }
    let fraction = number.parse::<f64>().map_err(|_| refused())?;
    let bytes = fraction * factor as f64;
    if !(0.0..1e18).contains(&bytes) {
        return Err(refused());
    }
    // Bounded just above.
    Ok(bytes as u64)
}

/// Reads a size that may be -1 for no limit.
pub(crate) fn signed_size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(size(text)?).map_err(|_| format!("size {text} is too large"))
}

/// Reads `name=soft[:hard]`; -1 and `unlimited` mean no limit.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let refused = |reason: &str| format!("invalid ulimit {text:?}: {reason}");
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| refused("expected name=soft[:hard]"))?;
    if !ULIMITS.contains(&name) {
        return Err(refused("no such limit"));
    }
    let number = |word: &str| match word {
        "unlimited" => Ok(-1),
        _ => word
            .parse::<i64>()
            .map_err(|_| refused("expected whole numbers")),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(refused("the soft limit must not exceed the hard limit"));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Reads `--add-host`: hosts separated by commas; one in quotes may have several addresses.
pub(crate) fn extra_hosts(texts: &[String]) -> Result<Vec<ExtraHost>, String> {
    let mut hosts = Vec::new();
    for text in texts {
        for field in csv::fields(text)? {
            hosts.extend(addresses_of_host(&field)?);
        }
    }
    Ok(hosts)
}

/// Reads `host:ip` or `host=ip`; an address may stand in brackets or be `host-gateway`.
fn addresses_of_host(text: &str) -> Result<Vec<ExtraHost>, String> {
    let refused = |reason: &str| format!("invalid add-host {text:?}: {reason}");
    let (name, address) = match text.split_once('=') {
        Some(pair) => pair,
        None => text
            .split_once(':')
            .ok_or_else(|| refused("expected host:ip"))?,
    };
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#') {
        return Err(refused("the host name is malformed"));
    }
    let host = |address| ExtraHost {
        name: name.to_owned(),
        address,
    };
    if address == "host-gateway" {
        return Ok(vec![host(HostAddress::Gateway)]);
    }
    let ip = |address: &str| {
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        let ip = bare.parse::<IpAddr>();
        ip.map(|ip| host(HostAddress::Ip(ip)))
            .map_err(|_| refused("the address is not an IP address"))
    };
    address.split(',').map(ip).collect()
}

/// Reads `--allow`; none for a right that nothing here needs.
pub(crate) fn entitlement(text: &str) -> Result<Option<Entitlement>, String> {
    let (key, rest) = match text.split_once('=') {
        Some((key, rest)) => (key, Some(rest)),
        None => (text, None),
    };
    Ok(Some(match (key, rest) {
        ("network.host", None) => Entitlement::NetworkHost,
        ("security.insecure", None) => Entitlement::SecurityInsecure,
        ("device", None | Some("")) => Entitlement::AnyDevice,
        ("device", Some(device)) => granted_device(device)?,
        // No right of the build: looked at where outputs are checked.
        (LOCAL_DELETE, None) => return Ok(None),
        (LOCAL_DELETE, Some(_)) => return Err(format!("{LOCAL_DELETE} does not accept a value")),
        _ => {
            return Err(format!(
                "unknown entitlement {text:?}: expected network.host, security.insecure or \
                 device[=NAME]"
            ));
        }
    }))
}

/// Reads `NAME[,alias=NAME]`.
fn granted_device(text: &str) -> Result<Entitlement, String> {
    let mut fields = csv::fields(text)?.into_iter();
    let name = fields.next().unwrap_or_default();
    let mut alias = None;
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) if !value.is_empty() => alias = Some(value.to_owned()),
            _ => {
                return Err(format!(
                    "invalid device {text:?}: expected NAME[,alias=NAME]"
                ));
            }
        }
    }
    Ok(Entitlement::Device { name, alias })
}

/// Sets the limits that `--resource` names; later ones win.
pub(crate) fn set_resources(limits: &mut RunLimits, texts: &[String]) -> Result<(), String> {
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .ok_or_else(|| format!("invalid resource {text:?}, expected key=value"))?;
        let refused = |_| format!("invalid value {value:?} for resource {key}");
        match key {
            "memory" => limits.memory_bytes = Some(signed_size(value)?),
            "memory-swap" => limits.memory_swap_bytes = Some(signed_size(value)?),
            "cpu-shares" => limits.cpu_shares = Some(value.parse().map_err(refused)?),
            "cpu-period" => limits.cpu_period_us = Some(value.parse().map_err(refused)?),
            "cpu-quota" => limits.cpu_quota_us = Some(value.parse().map_err(refused)?),
            "cpuset-cpus" => limits.cpuset_cpus = Some(value.to_owned()),
            "cpuset-mems" => limits.cpuset_mems = Some(value.to_owned()),
            _ => return Err(format!("unknown resource {key:?}")),
        }
    }
    Ok(())
}

/// The value of `--load`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load(pub(crate) Option<EngineChoice>);

/// Reads the value of `--load`: a boolean, or an engine.
pub(crate) fn load(text: &str) -> Result<Load, String> {
    let choice = match text {
        "docker" => EngineChoice::Docker,
        "podman" => EngineChoice::Podman,
        "containerd" => EngineChoice::Containerd,
        _ => match boolean(text) {
            Ok(true) => EngineChoice::DockerOrOther(None),
            Ok(false) => return Ok(Load(None)),
            Err(_) => {
                return Err(format!(
                    "invalid engine {text:?}: expected docker, podman, containerd, true or false"
                ));
            }
        },
    };
    Ok(Load(Some(choice)))
}

/// Reads `key=value` pairs; a later one wins. A key alone takes its value from `default_of`,
/// and is left out where that knows none.
pub(crate) fn pairs(
    texts: &[String],
    default_of: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text.as_str(), default_of(text)),
        };
        if key.is_empty() {
            return Err(format!("invalid key-value pair {text:?}: empty key"));
        }
        match value {
            Some(value) => pairs.insert(key.to_owned(), value),
            None => pairs.remove(key),
        };
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("10 k", 10 << 10),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1bb", "1.2.3", "99999999999p", "1m b"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(signed_size("-1"), Ok(-1));
    }

    #[test]
    fn ulimits_are_read() {
        let limit = |text| ulimit(text).map(|l| (l.name, l.soft, l.hard));
        let nofile = |soft, hard| Ok(("nofile".to_owned(), soft, hard));
        assert_eq!(limit("nofile=1024:2048"), nofile(1024, 2048));
        assert_eq!(limit("nofile=1024"), nofile(1024, 1024));
        assert_eq!(limit("nofile=5:-1"), nofile(5, -1));
        assert_eq!(limit("nofile=unlimited"), nofile(-1, -1));
        for bad in [
            "nofile",
            "nofile=",
            "x=1",
            "nofile=2:1",
            "nofile=1:2:3",
            "nofile=-1:5",
        ] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_read() {
        let host = |text| {
            let shown = |host: ExtraHost| match host.address {
                HostAddress::Ip(ip) => format!("{} {ip}", host.name),
                HostAddress::Gateway => format!("{} gateway", host.name),
            };
            let hosts = extra_hosts(&[String::from(text)])?;
            Ok::<_, String>(hosts.into_iter().map(shown).collect::<Vec<_>>().join(", "))
        };
        for (text, expected) in [
            ("db:10.0.0.1", "db 10.0.0.1"),
            ("db=10.0.0.1", "db 10.0.0.1"),
            ("db:::1", "db ::1"),
            ("db=[::1]", "db ::1"),
            ("db:host-gateway", "db gateway"),
            ("db=10.0.0.1,web=host-gateway", "db 10.0.0.1, web gateway"),
            (r#""db=10.0.0.1,[::1]""#, "db 10.0.0.1, db ::1"),
        ] {
            assert_eq!(host(text), Ok(expected.to_owned()), "{text}");
        }
        for bad in ["db", "db:", ":10.0.0.1", "db:10.0.0", "a b:10.0.0.1"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rights_are_read() {
        let device = |name: &str, alias: Option<&str>| Entitlement::Device {
            name: name.to_owned(),
            alias: alias.map(str::to_owned),
        };
        for (text, expected) in [
            ("network.host", Some(Entitlement::NetworkHost)),
            ("security.insecure", Some(Entitlement::SecurityInsecure)),
            ("device", Some(Entitlement::AnyDevice)),
            ("device=v/c=d", Some(device("v/c=d", None))),
            ("device=v/c=d,alias=gpu", Some(device("v/c=d", Some("gpu")))),
            ("buildx.local.delete", None),
        ] {
            assert_eq!(entitlement(text), Ok(expected), "{text}");
        }
        for bad in [
            "network",
            "buildx.local.delete=true",
            "network.host,device",
            "device=a,b",
            "device=a,alias=",
            "",
        ] {
            assert!(entitlement(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_are_read() {
        let read = |texts: &[&str]| {
            let mut limits = RunLimits::default();
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            set_resources(&mut limits, &texts).map(|()| limits)
        };
        let limits = read(&[
            "memory=2g",
            "cpu-quota=50000",
            "cpuset-cpus=0-1",
            "memory=1g",
        ])
        .unwrap();
        assert_eq!(
            (limits.memory_bytes, limits.cpu_quota_us),
            (Some(1 << 30), Some(50000))
        );
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0-1"));
        for bad in ["memory", "memory=much", "cpu-shares=-1", "disk=1g"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_without_value_takes_it_from_the_environment() {
        let texts = ["A=1", "B", "C", "A=2=3", "D="].map(str::to_owned);
        let environment = |key: &str| (key == "B").then(|| "from env".to_owned());
        let pairs = pairs(&texts, environment).unwrap();
        let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["A=2=3", "B=from env", "D="]);
        assert!(super::pairs(&["=x".to_owned()], |_| None).is_err());
    }
}
