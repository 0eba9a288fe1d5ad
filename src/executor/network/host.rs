//! What all cooper processes of a machine share: forwarding, NAT, a range of addresses.
//!
//! ```text
//! <run dir>/net-<inode of the host's network namespace>/
//!   lock         held while anything here changes
//!   state.json   what was set up, and what it was before
//!   users/<n>    held by the process with number n for as long as it lives
//! ```
//!
//! The first process sets up, the last one puts back. Locks die with their holders, so after
//! a `kill -9` the next start sees that nobody is left and puts back what is still there.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::nat::{self, DEVICE_PREFIX};
use super::subnet::{Addresses, Subnet};
use crate::executor::etc_files;
use crate::sys::lock::Lock;
use crate::sys::netlink::Netlink;

/// Turns forwarding between devices on and off.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Name of the file that says what was set up.
const STATE: &str = "state.json";

/// Largest packet that is usual; larger ones only cause trouble behind the uplink.
const MAX_MTU: u32 = 1500;

/// Our share of the machine's network. Dropping it puts back what nobody else needs.
#[derive(Debug)]
pub(super) struct HostNetwork {
    directory: PathBuf,
    user: Option<Lock>,
    number: u8,
    subnet: Subnet,
    mtu: u32,
}

/// What was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    subnet: Subnet,
    method: nat::Method,
    /// Whether forwarding was off before.
    forwarding_was_off: bool,
    /// Whether rules of ours may stand among those of others.
    #[serde(default = "yes")]
    among_others: bool,
}

/// States without this word were written when nobody told.
fn yes() -> bool {
    true
}

/// Version of `state.json`.
const VERSION: u32 = 1;

impl HostNetwork {
    /// Sets the machine up for our containers; the error says in one line why that failed.
    pub(super) fn open(run_dir: &Path) -> Result<Self, String> {
        let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
        let routes = netlink.routes().map_err(|error| error.to_string())?;
        let uplink = routes
            .iter()
            .filter(|route| route.prefix == 0)
            .find_map(|route| route.device);
        let mtu = uplink
            .and_then(|index| netlink.name_of(index).ok())
            .and_then(|name| mtu(&name))
            .unwrap_or(0)
            .min(MAX_MTU);
        let directory = directory(run_dir).map_err(|error| error.to_string())?;
        let prepared = std::fs::create_dir_all(directory.join("users"))
            .and_then(|()| Lock::exclusive(&directory.join("lock")));
        let _lock = prepared.map_err(|error| format!("{}: {error}", directory.display()))?;
        let survivors = survivors(&directory).map_err(|error| error.to_string())?;
        let before = read_state(&directory);
        let state = match before {
            Some(state) if !survivors.is_empty() => state,
            None if !survivors.is_empty() && directory.join(STATE).exists() => {
                return Err("another version of cooper is using networks".to_owned());
            }
            before => {
                let servers =
                    etc_files::host_resolv_conf(crate::executor::spec::NetworkMode::Default);
                let wanted: Vec<Ipv4Addr> = etc_files::servers(&servers)
                    .into_iter()
                    .filter_map(|server| match server {
                        IpAddr::V4(server) => Some(server),
                        IpAddr::V6(_) => None,
                    })
                    .collect();
                // Ours are those of a process that ended just now.
                let is_ours = |device: u32| {
                    let name = netlink.name_of(device);
                    name.is_ok_and(|name| name.starts_with(DEVICE_PREFIX))
                };
                let others: Vec<_> = routes
                    .into_iter()
                    .filter(|route| !route.device.is_some_and(is_ours))
                    .collect();
                let subnet = Subnet::choose(&others, &wanted)
                    .ok_or("all private address ranges are in use")?;
                set_up(&directory, subnet, before)?
            }
        };
        let (number, user) = take_number(&directory).map_err(|error| error.to_string())?;
        Ok(Self {
            directory,
            user: Some(user),
            number,
            subnet: state.subnet,
            mtu,
        })
    }

    /// Names the host's end of a container's network.
    pub(super) fn device(&self, container: u8) -> String {
        format!("{DEVICE_PREFIX}{}.{container}", self.number)
    }

    /// Returns the addresses of a container.
    pub(super) fn addresses(&self, container: u8) -> Addresses {
        self.subnet.addresses(self.number, container)
    }

    /// Returns the size of the largest packet; 0 for the default.
    pub(super) fn mtu(&self) -> u32 {
        self.mtu
    }
}

impl Drop for HostNetwork {
    fn drop(&mut self) {
        // Without the lock nothing may be changed; the next start finds what is left.
        if let Ok(lock) = Lock::exclusive(&self.directory.join("lock")) {
            self.user = None;
            let _ = std::fs::remove_file(user_file(&self.directory, self.number));
            put_back(&self.directory);
            drop(lock);
        }
    }
}

/// Puts back what processes that were killed left behind.
pub(in crate::executor) fn sweep(run_dir: &Path) {
    let Ok(directory) = directory(run_dir) else {
        return;
    };
    if directory.join(STATE).exists()
        && let Ok(lock) = Lock::exclusive(&directory.join("lock"))
    {
        put_back(&directory);
        drop(lock);
    }
}

/// Undoes the set-up if nobody uses it. Called under the lock.
fn put_back(directory: &Path) {
    let Ok(survivors) = survivors(directory) else {
        return;
    };
    let Some(state) = read_state(directory).filter(|_| survivors.is_empty()) else {
        return;
    };
    nat::remove(state.subnet, state.among_others);
    if state.forwarding_was_off {
        let _ = std::fs::write(FORWARDING, "0");
    }
    let _ = std::fs::remove_file(directory.join(STATE));
}

/// Sets forwarding and NAT up. Called under the lock, when there are no users.
fn set_up(directory: &Path, subnet: Subnet, before: Option<State>) -> Result<State, String> {
    if let Some(before) = before {
        nat::remove(before.subnet, before.among_others);
    }
    let forwarding =
        std::fs::read_to_string(FORWARDING).map_err(|error| format!("{FORWARDING}: {error}"))?;
    // After a kill forwarding is still on because of us.
    let was_off = forwarding.trim() == "0" || before.is_some_and(|state| state.forwarding_was_off);
    let mut state = State {
        version: VERSION,
        subnet,
        method: nat::Method::Nft,
        forwarding_was_off: was_off,
        among_others: true,
    };
    // Written first: whatever happens next, there is a note of what must be put back.
    write_state(directory, &state)?;
    let done = nat::install(subnet, was_off).and_then(|installed| {
        (state.method, state.among_others) = (installed.method, installed.among_others);
        write_state(directory, &state)?;
        if was_off {
            std::fs::write(FORWARDING, "1").map_err(|error| format!("{FORWARDING}: {error}"))?;
        }
        Ok(state)
    });
    if done.is_err() {
        put_back(directory);
    }
    done
}

fn read_state(directory: &Path) -> Option<State> {
    let text = std::fs::read(directory.join(STATE)).ok()?;
    let state: State = serde_json::from_slice(&text).ok()?;
    (state.version == VERSION).then_some(state)
}

fn write_state(directory: &Path, state: &State) -> Result<(), String> {
    let text = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    crate::sys::atomic::write_unsynced(&directory.join(STATE), &text)
        .map_err(|error| format!("{}: {error}", directory.display()))
}

/// Lists the numbers of living users and forgets the dead. Called under the lock.
fn survivors(directory: &Path) -> io::Result<Vec<u8>> {
    let mut alive = Vec::new();
    for entry in std::fs::read_dir(directory.join("users"))? {
        let path = entry?.path();
        match Lock::try_exclusive(&path)? {
            Some(lock) => {
                std::fs::remove_file(&path)?;
                drop(lock);
            }
            None => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                alive.extend(name.parse::<u8>().ok());
            }
        }
    }
    Ok(alive)
}

/// Takes a number at random: the kernel may still be removing networks of the process that had
/// the first one.
fn take_number(directory: &Path) -> io::Result<(u8, Lock)> {
    let mut start = [0];
    rustix::rand::getrandom(&mut start, rustix::rand::GetRandomFlags::empty())?;
    for offset in 0..=u8::MAX {
        let number = start[0].wrapping_add(offset);
        if let Some(lock) = Lock::try_exclusive(&user_file(directory, number))? {
            return Ok((number, lock));
        }
    }
    Err(io::Error::other("more than 256 processes use networks"))
}

fn user_file(directory: &Path, number: u8) -> PathBuf {
    directory.join("users").join(number.to_string())
}

/// One directory for each network namespace that cooper runs in: rules and forwarding belong
/// to it, while the run directory may be shared by several.
fn directory(run_dir: &Path) -> io::Result<PathBuf> {
    let inode = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(run_dir.join(format!("net-{inode}")))
}

fn mtu(device: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/mtu")).ok()?;
    text.trim().parse().ok()
}
