//! `type=gha`: the cache service of GitHub Actions.
//!
//! An entry of the service never changes, and is found by its key or by the beginning of it,
//! newest first. So an object is a row of entries:
//!
//! ```text
//! cooper-1-SCOPE-<name>#<n>        the n-th version of an object, as `envelope` writes it
//! cooper-1-blob-sha256:<hex>       a blob
//! ```
//!
//! Caches in BuildKit's format have names of their own (`buildkit`).
//!
//! Version n is written if n-1 was read, and creating an entry that exists fails: that is
//! compare-and-swap. An entry that was created but never finished is invisible and in the way;
//! after [`ABANDONED_AFTER`] its number is passed over.
//!
//! A branch reads entries of its base branch until it has some of its own; the service sees to
//! that. It lists nothing, and removes nothing: entries go when nobody reads them for a week.

mod api;
mod buildkit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use reqwest::Url;
use tokio::sync::Semaphore;

use self::api::{Api, Created, Entry};
use self::buildkit::Scopes;
use super::attributes::{Attributes, Secret};
use super::envelope::{self, ENVELOPE_BYTES_MAX};
use super::faults::of_registry;
use super::transfer::{Incoming, Outgoing, Report, fetched};
use crate::cache::remote::buildkit::{Chains, Written};
use crate::cache::remote::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version, refused,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest};
use crate::progress::VertexProgress;
use crate::registry::Client;

/// Bytes that are uploaded with one request.
const PART_BYTES: usize = 4 << 20;
/// Blobs that are uploaded at a time.
const UPLOADS_AT_ONCE: usize = 4;
/// Scope of a cache that has none.
const DEFAULT_SCOPE: &str = "buildkit";
/// How long an entry may be created without being finished.
const ABANDONED_AFTER: Duration = Duration::from_secs(15);
/// Pause before looking again whether an entry was finished.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Most numbers of abandoned entries that are passed over.
const PASSED_OVER_MAX: u64 = 3;

/// Where the service is, and which cache there is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    url: Url,
    token: Secret,
    second: bool,
    scope: String,
    abandoned_after: Duration,
}

impl Settings {
    /// Takes `url`, `url_v2`, `version`, `token` and `scope`. `repository` and `ghtoken`, with
    /// which BuildKit lists what is there, are not needed: the index says it.
    pub(super) fn take(left: &mut BTreeMap<String, String>) -> Result<Self, String> {
        let mut attributes = Attributes { kind: "gha", left };
        attributes.ignore(&["repository", "ghtoken"]);
        let version = attributes.count("version")?;
        let (url, url_v2) = (attributes.take("url"), attributes.take("url_v2"));
        let (url, mut second) = match (url_v2, url) {
            (Some(url), _) if version != Some(1) => (url, true),
            // Old clients know one address only.
            (_, Some(url)) => {
                let second = version.map_or(url.contains("results-receiver."), |v| v > 1);
                (url, second)
            }
            _ => return Err("url not set for gha cache (not in GitHub Actions?)".to_owned()),
        };
        second |= version.is_some_and(|version| version > 1);
        let token = attributes.secret("token");
        let token = token.ok_or("token not set for gha cache (not in GitHub Actions?)")?;
        let slash = if url.ends_with('/') { "" } else { "/" };
        let url = Url::parse(&format!("{url}{slash}"));
        let scope = attributes.take("scope");
        let scope = scope.unwrap_or_else(|| DEFAULT_SCOPE.to_owned());
        if scope.contains(',') || scope.len() > 256 {
            return Err("scope of gha cache: expected at most 256 characters, no comma".to_owned());
        }
        Ok(Self {
            url: url.map_err(|error| format!("invalid url for gha cache: {error}"))?,
            token,
            second,
            scope,
            abandoned_after: ABANDONED_AFTER,
        })
    }

    /// Returns what people call it.
    pub(super) fn place(&self) -> String {
        format!("GitHub Actions cache ({})", self.scope)
    }

    /// Makes the store; nothing is asked yet.
    pub(super) fn open(self, client: Client) -> Arc<dyn RemoteStore> {
        let place = self.place();
        let scopes = Scopes::of(&self.token);
        let api = Api::new(client, self.url, self.token, self.second);
        Arc::new(GhaStore {
            buildkit: api.for_buildkit(),
            scopes,
            kept: Mutex::default(),
            api,
            place,
            scope: self.scope,
            abandoned_after: self.abandoned_after,
            uploads: Semaphore::new(UPLOADS_AT_ONCE),
        })
    }
}

/// The cache service.
#[derive(Debug)]
struct GhaStore {
    api: Api,
    /// Where BuildKit's entries are.
    buildkit: Api,
    /// What the token opens.
    scopes: Scopes,
    /// Blobs of BuildKit's that were found there.
    kept: Mutex<BTreeSet<Digest>>,
    place: String,
    scope: String,
    abandoned_after: Duration,
    uploads: Semaphore,
}

impl GhaStore {
    /// Returns the beginning of the keys of an object's versions.
    fn row(&self, name: &ObjectName) -> String {
        format!("cooper-1-{}-{name}#", self.scope)
    }

    /// Finds the newest version of an object.
    async fn newest(&self, api: &Api, row: &str) -> Result<Option<(u64, Entry)>, StoreError> {
        let found = api.find(row, true).await?;
        Ok(found.and_then(|entry| {
            let number = entry.key.strip_prefix(row)?.parse().ok()?;
            Some((number, entry))
        }))
    }

    async fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        let Some((number, entry)) = self.newest(&self.api, &self.row(name)).await? else {
            return Ok(None);
        };
        let bytes = self.whole(&entry, ENVELOPE_BYTES_MAX as u64).await?;
        Ok(Some(Stored {
            object: envelope::decode(&bytes).unwrap_or_default(),
            version: Version(number.to_string()),
        }))
    }

    /// Reads an entry.
    async fn whole(&self, entry: &Entry, bytes_max: u64) -> Result<Bytes, StoreError> {
        let response = self.api.download(entry).await?;
        let http = self.api.client().http();
        let bytes = http.whole_body(&entry.key, response, bytes_max).await;
        bytes.map_err(of_registry)
    }

    async fn write_object(
        &self,
        name: &ObjectName,
        object: &Object,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let bytes = envelope::encode(object)
            .map_err(|error| StoreError::new(FaultKind::Permanent, error))?;
        self.add_version(&self.api, &self.row(name), bytes, condition)
            .await
    }

    /// Adds a version to a row of entries.
    async fn add_version(
        &self,
        api: &Api,
        row: &str,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let any = condition == Condition::Any;
        let mut number = match condition {
            Condition::Absent => 1,
            Condition::Same(Version(version)) => version.parse().unwrap_or(0) + 1,
            Condition::Any => self.newest(api, row).await?.map_or(0, |(number, _)| number) + 1,
        };
        let first = number;
        loop {
            let key = format!("{row}{number}");
            if let Created::New(upload) = api.create(&key, bytes.len() as u64).await? {
                if !bytes.is_empty() {
                    upload.part(api, 0, bytes.clone()).await?;
                }
                upload.finish(api, bytes.len() as u64).await?;
                return Ok(Version(number.to_string()));
            }
            let taken = self.finished(api, row, number).await?;
            if taken.is_some() && !any {
                let text = format!("{key} was written by somebody else");
                return Err(StoreError::new(FaultKind::Conflict, text));
            }
            number = taken.unwrap_or(number) + 1;
            if number > first + PASSED_OVER_MAX {
                let text = format!("{row}: entries from {first} on were begun, but never finished");
                return Err(StoreError::new(FaultKind::Transient, text));
            }
        }
    }

    /// Waits for an entry that exists to be finished; the newest number that is, or `None` where
    /// its maker left it alone.
    async fn finished(&self, api: &Api, row: &str, number: u64) -> Result<Option<u64>, StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            let newest = self.newest(api, row).await?.map(|(newest, _)| newest);
            if newest.is_some_and(|newest| newest >= number) {
                return Ok(newest);
            }
            if waited >= self.abandoned_after {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
    }

    /// Waits until somebody else has put the blob: its key is its digest.
    async fn wait_for(&self, api: &Api, key: &str) -> Result<(), StoreError> {
        let mut waited = Duration::ZERO;
        while api.find(key, false).await?.is_none() {
            if waited >= self.abandoned_after {
                let text = format!("{key} was begun by somebody else, but never finished");
                return Err(StoreError::new(FaultKind::Transient, text));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        into: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        // Each address is good for some minutes, so each try asks for one.
        let own = self.api.find(&blob_key(blob), false).await?;
        let found = match own {
            Some(entry) => Some(entry),
            None => {
                self.buildkit
                    .find(&buildkit::blob_key(&blob.digest), false)
                    .await?
            }
        };
        let Some(entry) = found else {
            let text = format!("{} is not in the cache of GitHub Actions", blob.digest);
            return Err(StoreError::new(FaultKind::Missing, text));
        };
        let mut response = self.api.download(&entry).await?;
        let mut incoming = Incoming::start(into, blob, progress).await?;
        let http = self.api.client().http();
        while let Some(piece) = http.next_piece(&mut response).await.map_err(of_registry)? {
            incoming.push(piece).await?;
        }
        incoming.finish().await
    }

    async fn put(
        &self,
        (api, key): (&Api, &str),
        blob: &Descriptor,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let _permit = self.uploads.acquire().await;
        let Created::New(mut upload) = api.create(key, blob.size).await? else {
            return self.wait_for(api, key).await;
        };
        let mut outgoing = Outgoing::start(from, blob, PART_BYTES);
        let mut report = Report::new(blob, "uploading", progress);
        let (mut sent, mut alone) = (0, blob.size <= PART_BYTES as u64);
        while let Some(part) = outgoing.next().await? {
            let length = part.len() as u64;
            match alone {
                true => upload.part(api, 0, part).await?,
                false => upload.add(api, sent, part).await?,
            }
            alone = false;
            sent += length;
            report.at(sent);
        }
        upload.finish(api, blob.size).await?;
        report.done();
        Ok(())
    }
}

impl RemoteStore for GhaStore {
    fn name(&self) -> String {
        self.place.clone()
    }

    fn coordination(&self) -> Coordination {
        Coordination::CompareAndSwap
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        self.read_object(name).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        async move { self.write_object(name, &object, condition).await }.boxed()
    }

    fn list<'a>(&'a self, _prefix: &'a str, _from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        refused("the cache service of GitHub Actions lists nothing")
    }

    fn remove<'a>(&'a self, _name: &'a ObjectName) -> Answer<'a, ()> {
        refused("the cache service of GitHub Actions removes nothing")
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        fetched(into, blob, move || self.fetch(blob, into, progress)).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        async move {
            let key = blob_key(blob);
            self.put((&self.api, &key), blob, from, progress).await
        }
        .boxed()
    }

    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        self.read_chains().boxed()
    }

    fn write_buildkit<'a>(
        &'a self,
        cache: &'a Written,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.write_chains(cache, from, progress).boxed()
    }

    fn keeps_blob<'a>(&'a self, blob: &'a Descriptor, _now_ns: i64) -> Answer<'a, bool> {
        self.keep(blob).boxed()
    }
}

fn blob_key(blob: &Descriptor) -> String {
    format!("cooper-1-blob-{}", blob.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &str) -> Result<Settings, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let mut attributes: BTreeMap<String, String> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Settings::take(&mut attributes)
    }

    #[test]
    fn the_version_of_the_api_is_chosen_as_buildkit_does_it() {
        for (text, url, second) in [
            ("token=t,url=http://a", "http://a/", false),
            ("token=t,url=http://a,url_v2=http://b/", "http://b/", true),
            (
                "token=t,url=http://a,url_v2=http://b,version=1",
                "http://a/",
                false,
            ),
            ("token=t,url=http://a,version=2", "http://a/", true),
            (
                "token=t,url=https://results-receiver.actions.githubusercontent.com/",
                "https://results-receiver.actions.githubusercontent.com/",
                true,
            ),
        ] {
            let settings = take(text).unwrap();
            assert_eq!(
                (settings.url.as_str(), settings.second),
                (url, second),
                "{text}"
            );
        }
        assert!(
            take("url=http://a")
                .unwrap_err()
                .starts_with("token not set")
        );
        assert!(take("token=t").unwrap_err().starts_with("url not set"));
    }
}
