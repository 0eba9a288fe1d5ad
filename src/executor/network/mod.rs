//! Networks of their own for containers, from which they reach what the host reaches.
//!
//! ```text
//!  network namespace                host
//!  eth0 10.x.s.4i+2/30 ── veth ── cpr<s>.<i> 10.x.s.4i+1/30 ── forwarding, NAT ── uplink
//! ```
//!
//! Each namespace has its own pair of devices and hangs on nothing but a descriptor, so it
//! vanishes with its last user, however that ends. Making one takes milliseconds, so a few
//! are made in advance and each is used again when nothing of the last step is left in it.
//!
//! In reading order: [`subnet`] (addresses that collide with nothing), [`host`] (what all
//! cooper processes of a machine share: forwarding and NAT, put back by the last of them),
//! [`nat`] (the firewall rules), [`namespace`] (one network).
//!
//! Containers have IPv4 only, like Docker's default network.

mod host;
mod namespace;
mod nat;
mod subnet;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::HostNetwork;
use namespace::Namespace;

pub(super) use host::sweep;

/// Where what all cooper processes share is kept.
pub const DEFAULT_RUN_DIR: &str = "/run/cooper";

/// Most networks of one process; a /24 has room for so many.
const MAX_NETWORKS: u8 = 64;

/// Most networks that wait for the kernel.
const MAX_SETTLING: usize = 4;

/// Networks in use, ready and possible.
#[derive(Debug)]
pub(super) struct Networks {
    run_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    host: Option<Result<Arc<HostNetwork>, String>>,
    idle: Vec<Namespace>,
    /// Those in which the kernel had not yet cleared away the last sockets.
    settling: Vec<Namespace>,
    free_numbers: VecDeque<u8>,
    next_number: u8,
}

/// A network lent to one container.
#[derive(Debug)]
pub(super) struct Lent {
    namespace: Namespace,
}

impl Lent {
    /// Returns the machine's address in it.
    pub(super) fn gateway(&self) -> IpAddr {
        IpAddr::V4(self.namespace.gateway())
    }
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Networks {
    /// Makes networks on request.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            state: Mutex::new(State::default()),
        }
    }

    /// Lends a network; the error says in one line why there is none.
    pub(super) fn lend(&self) -> Result<Lent, String> {
        if let Some(namespace) = self.ready() {
            return Ok(Lent { namespace });
        }
        self.make().map(|namespace| Lent { namespace })
    }

    /// Makes networks in advance until `count` are ready.
    pub(super) fn fill(&self, count: usize) -> Result<(), String> {
        let mut missing = count.saturating_sub(self.state().idle.len());
        while missing > 0 {
            let namespace = match self.settled() {
                Some(namespace) => namespace,
                None => self.make()?,
            };
            self.state().idle.push(namespace);
            missing -= 1;
        }
        Ok(())
    }

    /// Takes a network back; the next step gets it if nothing is left of the last one.
    pub(super) fn give_back(&self, lent: Lent, was_insecure: bool) {
        // With all capabilities a step may have changed devices, routes and filters.
        if was_insecure {
            self.retire(lent.namespace);
        } else if lent.namespace.is_empty() {
            self.state().idle.push(lent.namespace);
        } else {
            self.settle(lent.namespace);
        }
    }

    fn ready(&self) -> Option<Namespace> {
        let idle = self.state().idle.pop();
        idle.or_else(|| self.settled())
    }

    /// Lets a network wait for the kernel to clear closed connections away.
    fn settle(&self, namespace: Namespace) {
        let oldest = {
            let mut state = self.state();
            state.settling.push(namespace);
            (state.settling.len() > MAX_SETTLING).then(|| state.settling.remove(0))
        };
        if let Some(oldest) = oldest {
            self.retire(oldest);
        }
    }

    /// Takes a network that has settled by now.
    fn settled(&self) -> Option<Namespace> {
        let settling = std::mem::take(&mut self.state().settling);
        let mut settled = None;
        for namespace in settling {
            if settled.is_none() && namespace.is_empty() {
                settled = Some(namespace);
            } else {
                self.state().settling.push(namespace);
            }
        }
        settled
    }

    /// Lets go of all networks and, if this was the last process that had any, removes what
    /// they needed.
    ///
    /// The kernel takes all of them down together soon after. Waiting for each would cost tens
    /// of milliseconds a piece; who gets its number before that replaces it.
    pub(super) fn close(&self) {
        let (idle, host) = {
            let mut state = self.state();
            let mut all = std::mem::take(&mut state.idle);
            all.append(&mut state.settling);
            (all, state.host.take())
        };
        drop(idle);
        drop(host);
    }

    fn retire(&self, namespace: Namespace) {
        let number = namespace.number();
        // Closing the last descriptor is all: the kernel removes the network in its own time,
        // which nobody has to wait for.
        drop(namespace);
        self.state().free_numbers.push_back(number);
    }

    fn make(&self) -> Result<Namespace, String> {
        let (host, number) = {
            let mut state = self.state();
            // Under the lock: the first to come sets the host up, the others wait for it.
            let host = state
                .host
                .get_or_insert_with(|| HostNetwork::open(&self.run_dir).map(Arc::new))
                .clone()?;
            let number = state.take_number().ok_or("all networks are in use")?;
            (host, number)
        };
        Namespace::make(&host, number).map_err(|error| {
            self.state().free_numbers.push_back(number);
            format!("cannot make a network namespace: {error}")
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the number that was not used for the longest time: the kernel may still be
    /// removing the last network that had it.
    fn take_number(&mut self) -> Option<u8> {
        if self.next_number < MAX_NETWORKS {
            self.next_number += 1;
            return Some(self.next_number - 1);
        }
        self.free_numbers.pop_front()
    }
}
