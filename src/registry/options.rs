//! How a client behaves: credentials, proxies, limits, patience.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::hosts::Hosts;
use crate::session::Credentials;

/// Everything a [`Client`](super::Client) is told when it is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where user names, passwords and tokens come from.
    pub credentials: Arc<Credentials>,
    /// Registries (`host[:port]`) whose certificate is not checked and that may speak plain
    /// HTTP. Loopback hosts always count as such.
    pub insecure: BTreeSet<String>,
    /// How registries are reached: mirrors, certificates, what is blocked.
    pub hosts: Hosts,
    /// Proxies, as the caller read them from the environment.
    pub proxies: Proxies,
    /// When and how often a failed request is tried again.
    pub retry: RetryPolicy,
    /// Most blobs that are downloaded at the same time.
    pub downloads_max: usize,
    /// Most blobs that are uploaded at the same time.
    pub uploads_max: usize,
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: Arc::default(),
            insecure: BTreeSet::new(),
            hosts: Hosts::default(),
            proxies: Proxies::default(),
            retry: RetryPolicy::default(),
            downloads_max: 6,
            uploads_max: 4,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// Proxies by scheme. Loopback hosts are never reached through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `NO_PROXY`: hosts, domains and networks, separated by commas.
    pub except: String,
}

/// When and how often a failed request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all.
    pub tries_max: u32,
    /// Longest pause before the second try; doubled for each further one.
    pub first_pause: Duration,
    /// Bound of that doubling.
    pub pause_max: Duration,
    /// Longest pause that a server may ask for with `Retry-After`.
    pub retry_after_max: Duration,
    /// Longest time from the first try to the last.
    pub total_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries_max: 7,
            first_pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(60),
            total_max: Duration::from_secs(180),
        }
    }
}
