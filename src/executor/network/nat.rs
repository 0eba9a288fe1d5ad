//! Firewall rules for containers, set with the `nft` or the `iptables` program.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::subnet::Subnet;

/// Names of our devices begin with this.
pub(super) const DEVICE_PREFIX: &str = "cpr";

/// Name of our nftables table, and mark of our iptables rules.
const MARK: &str = "cooper";

/// Which program holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Method {
    /// A table of our own.
    Nft,
    /// Rules among others', marked by a comment.
    Iptables,
}

/// What was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Installed {
    /// Which program holds the rules.
    pub(super) method: Method,
    /// Whether some of them stand among those of others, where `iptables` put them.
    pub(super) among_others: bool,
}

/// Lets containers out. `guard` keeps the host from forwarding for anybody else, which it did
/// not do before we turned forwarding on.
pub(super) fn install(subnet: Subnet, guard: bool) -> Result<Installed, String> {
    let method = match run("nft", &["-f", "-"], &table(subnet, guard)) {
        Ok(_) => Method::Nft,
        Err(nft) => match change_iptables("-A", &masquerade(subnet)) {
            Ok(()) => Method::Iptables,
            Err(iptables) => return Err(format!("neither nft ({nft}) nor iptables ({iptables})")),
        },
    };
    let among_others = method == Method::Iptables || others_drop();
    if among_others {
        for rule in forward_rules() {
            change_iptables("-I", &rule)?;
        }
    }
    Ok(Installed {
        method,
        among_others,
    })
}

/// Takes the rules away, those `among_others` too; what is not there is fine.
pub(super) fn remove(subnet: Subnet, among_others: bool) {
    let _ = run("nft", &["-f", "-"], &without_table());
    if !among_others {
        return;
    }
    for rule in forward_rules() {
        let _ = change_iptables("-D", &rule);
    }
    let _ = change_iptables("-D", &masquerade(subnet));
}

fn without_table() -> String {
    // Declaring the table first makes deleting it never fail.
    format!("table ip {MARK}\ndelete table ip {MARK}\n")
}

fn table(subnet: Subnet, guard: bool) -> String {
    let (subnet, device) = (subnet.cidr(), format!("\"{DEVICE_PREFIX}*\""));
    let guard = if guard { "        drop\n" } else { "" };
    format!(
        "{}table ip {MARK} {{\n\
         \x20   chain postrouting {{\n\
         \x20       type nat hook postrouting priority 100; policy accept;\n\
         \x20       ip saddr {subnet} oifname != {device} masquerade\n\
         \x20   }}\n\
         \x20   chain forward {{\n\
         \x20       type filter hook forward priority 0; policy accept;\n\
         \x20       iifname {device} oifname {device} drop\n\
         \x20       iifname {device} accept\n\
         \x20       oifname {device} ct state established,related accept\n\
         \x20       oifname {device} drop\n\
         {guard}\
         \x20   }}\n\
         }}\n",
        without_table()
    )
}

/// Says whether somebody else's rules (Docker's, a firewall's) drop what is forwarded: then a
/// rule of ours that accepts does not help unless it stands among theirs.
fn others_drop() -> bool {
    run("iptables", &["-w", "-S", "FORWARD"], "")
        .is_ok_and(|rules| rules.contains("-P FORWARD DROP") || rules.contains("DOCKER"))
}

fn masquerade(subnet: Subnet) -> Vec<String> {
    let device = format!("{DEVICE_PREFIX}+");
    let cidr = subnet.cidr();
    let rule = [
        "-t",
        "nat",
        "POSTROUTING",
        "-s",
        &cidr,
        "!",
        "-o",
        &device,
        "-j",
        "MASQUERADE",
    ];
    marked(&rule)
}

fn forward_rules() -> [Vec<String>; 2] {
    let device = format!("{DEVICE_PREFIX}+");
    let established = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"];
    let back = [
        &["FORWARD", "-o", &device][..],
        &established,
        &["-j", "ACCEPT"],
    ]
    .concat();
    [
        marked(&["FORWARD", "-i", &device, "-j", "ACCEPT"]),
        marked(&back),
    ]
}

fn marked(rule: &[&str]) -> Vec<String> {
    let comment = ["-m", "comment", "--comment", MARK];
    rule.iter()
        .chain(&comment)
        .map(|&word| word.to_owned())
        .collect()
}

/// Adds or removes a rule: `operation` goes before the name of the chain.
fn change_iptables(operation: &str, rule: &[String]) -> Result<(), String> {
    let mut args = vec!["-w"];
    for word in rule {
        if word == "POSTROUTING" || word == "FORWARD" {
            args.push(operation);
        }
        args.push(word);
    }
    run("iptables", &args, "").map(drop)
}

/// Runs a program with a text on its standard input; returns what it prints.
fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let run = || -> io::Result<std::process::Output> {
        let mut child = Command::new(program)
            .args(args)
            .env(
                "PATH",
                "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            )
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not want to read says so itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let line = message.lines().next().unwrap_or("no message").trim();
    Err(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_our_devices_and_addresses_only() {
        let subnet = Subnet([10, 201]);
        let text = table(subnet, true);
        assert!(text.contains("ip saddr 10.201.0.0/16 oifname != \"cpr*\" masquerade\n"));
        assert!(text.contains("        drop\n    }\n"));
        assert!(!table(subnet, false).contains("        drop\n    }\n"));
        assert_eq!(
            masquerade(subnet).join(" "),
            "-t nat POSTROUTING -s 10.201.0.0/16 ! -o cpr+ -j MASQUERADE -m comment --comment cooper"
        );
        assert_eq!(
            forward_rules()[1].join(" "),
            "FORWARD -o cpr+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT \
             -m comment --comment cooper"
        );
    }
}
