//! The distribution client: finds, pulls and pushes content in registries (OCI
//! distribution-spec 1.1, and Docker's token authentication).
//!
//! Read in order: [`options`], [`hosts`] (what this machine's configuration says), [`endpoint`]
//! (which URL a registry has), [`http`] (one exchange) with [`tls`], [`retry`], [`challenge`] and
//! [`auth`] (who we are), `transport` (all of these together), then what is done with it:
//! [`document`], [`manifest`], [`referrers`], [`tags`], [`pull`] and [`range`] (a part of a blob), [`upload`] with [`body`] (one blob), [`push`] (images),
//! [`join`] (one index out of several pushes), [`download`] and `exchange` (files and
//! servers that are not registries).
//!
//! Invariants: every byte is checked by size and digest before anyone sees it; nothing is
//! allocated because a header claims a size; credentials and tokens go to the origin they are
//! for, never to another scheme, host or port; every wait has a limit. Deliberately absent:
//! anything about builds.

mod auth;
mod body;
mod challenge;
pub mod document;
mod download;
mod endpoint;
mod error;
mod exchange;
pub mod hosts;
mod http;
pub mod join;
mod manifest;
pub mod options;
mod pull;
mod push;
mod range;
mod referrers;
mod retry;
mod tags;
mod tls;
mod transport;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

pub use document::{Document, InvalidDocument};
pub use download::Downloaded;
pub use error::Error;
pub use hosts::{Candidates, HostFiles, HostOptions, Hosts};
pub use http::{Http, Request};
pub use join::{JoinOptions, Joined};
pub use options::{Options, Proxies, RetryPolicy};
pub use retry::http_date;
pub use upload::Pushed;

use crate::oci::Digest;

/// Talks to registries. Cheap to clone; all clones share connections, tokens and limits.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    http: Http,
    endpoints: Mutex<BTreeMap<EndpointKey, Arc<tokio::sync::OnceCell<endpoint::Endpoint>>>>,
    /// What the configuration says of repositories, read once.
    routes: Mutex<BTreeMap<RouteKey, Vec<hosts::Route>>>,
    /// Mirrors that did not answer.
    down: Mutex<BTreeSet<String>>,
    auth: auth::Auth,
    downloads: Semaphore,
    uploads: Semaphore,
    /// Blobs known to be in a repository, so that nobody asks twice.
    present: Mutex<BTreeSet<(String, Digest)>>,
    /// Held while a blob is on its way to a repository, so that it goes there once.
    flights: Mutex<BTreeMap<(String, Digest), Flight>>,
}

/// Held by whoever does what others need, too.
type Flight = Arc<tokio::sync::Mutex<()>>;
/// Host, root of the API, scheme where it is configured.
type EndpointKey = (String, String, Option<&'static str>);
/// Registry, repository, and what is wanted there.
type RouteKey = (String, String, hosts::Purpose);

impl Client {
    /// Makes a client. Nothing is connected yet.
    pub fn new(options: Options) -> Self {
        let http = Http::new(&options);
        let (downloads, uploads) = (options.downloads_max, options.uploads_max);
        Self {
            shared: Arc::new(Shared {
                options,
                http,
                endpoints: Mutex::default(),
                routes: Mutex::default(),
                down: Mutex::default(),
                auth: auth::Auth::default(),
                downloads: Semaphore::new(downloads.max(1)),
                uploads: Semaphore::new(uploads.max(1)),
                present: Mutex::default(),
                flights: Mutex::default(),
            }),
        }
    }

    /// Returns the plain HTTP side of the client, for sources that are not registries.
    pub fn http(&self) -> &Http {
        &self.shared.http
    }

    fn remember(&self, repository: &str, digest: &Digest) {
        lock(&self.shared.present).insert((repository.to_owned(), digest.clone()));
    }

    fn forget_repository(&self, repository: &str) {
        lock(&self.shared.present).retain(|(known, _)| known != repository);
    }

    fn flight(&self, repository: &str, digest: &Digest) -> Flight {
        let mut flights = lock(&self.shared.flights);
        let key = (repository.to_owned(), digest.clone());
        Arc::clone(flights.entry(key).or_default())
    }

    fn knows(&self, repository: &str, digest: &Digest) -> bool {
        lock(&self.shared.present).contains(&(repository.to_owned(), digest.clone()))
    }
}

/// Locks a mutex whose data stays whole when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
