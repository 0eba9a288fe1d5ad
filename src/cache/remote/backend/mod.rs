//! Backends of the remote cache beside registries and folders, and what seals them.
//!
//! | type | needs | what it is | racing writers |
//! |---|---|---|---|
//! | `s3` | feature `cache-s3` | a bucket (through opendal) | `If-Match`, found out |
//! | `azblob` | feature `cache-azblob` | a container (through opendal) | `If-Match`, found out |
//! | `gcs` | feature `cache-gcs` | a bucket (through opendal) | generations, found out |
//! | `gha` | | the cache of GitHub Actions, both versions of its API | numbered entries |
//! | `http` | | a folder of a web server, WebDAV or not | `If-Match`, found out |
//! | `reapi` | feature `cache-reapi` | ActionCache and CAS of the Remote Execution API | by key |
//!
//! Read in order: `attributes`, `envelope` (an object as bytes), `transfer` (blobs between store
//! and network), `coordinate` (what a server checks), `faults`; then one file for each backend;
//! `object` (one object of a bucket, for build contexts); then [`seal`]: signed and encrypted caches, around any store.
//!
//! `http` and `gha` speak HTTP themselves: opendal's services of these names check no conditions
//! (webdav), do not write (http) and cannot find the newest of several entries (ghac).

mod attributes;
mod coordinate;
mod envelope;
mod faults;
mod gha;
mod http;
mod object;
pub mod seal;
mod transfer;

#[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
mod bucket;
#[cfg(feature = "cache-reapi")]
mod reapi;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use attributes::Secret;
pub use object::BucketObject;

use super::store::{RemoteStore, StoreError};
use crate::registry::Client;

/// Which way records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `--cache-from`.
    Import,
    /// `--cache-to`.
    Export,
}

/// A backend and how to get there. Secrets are not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
    Bucket(Box<bucket::Settings>),
    Gha(Box<gha::Settings>),
    Http(Box<http::Settings>),
    #[cfg(feature = "cache-reapi")]
    Reapi(Box<reapi::Settings>),
}

/// Types of backends, and the feature that each needs.
const KINDS: [(&str, Option<&str>); 6] = [
    ("s3", Some("cache-s3")),
    ("azblob", Some("cache-azblob")),
    ("gcs", Some("cache-gcs")),
    ("gha", None),
    ("http", None),
    ("reapi", Some("cache-reapi")),
];

/// Attributes that are taken from the environment where they are not given.
const FROM_ENVIRONMENT: [(&str, &str, &str); 14] = [
    ("s3", "bucket", "AWS_BUCKET"),
    ("s3", "region", "AWS_REGION"),
    ("s3", "access_key_id", "AWS_ACCESS_KEY_ID"),
    ("s3", "secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("s3", "session_token", "AWS_SESSION_TOKEN"),
    (
        "azblob",
        "account_url",
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL",
    ),
    (
        "azblob",
        "account_name",
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME",
    ),
    ("azblob", "container", "BUILDKIT_AZURE_STORAGE_CONTAINER"),
    ("azblob", "prefix", "BUILDKIT_AZURE_STORAGE_PREFIX"),
    ("gcs", "credential_path", "GOOGLE_APPLICATION_CREDENTIALS"),
    ("gha", "token", "ACTIONS_RUNTIME_TOKEN"),
    ("gha", "url", "ACTIONS_CACHE_URL"),
    ("gha", "url_v2", "ACTIONS_RESULTS_URL"),
    ("http", "token", "COOPER_CACHE_HTTP_TOKEN"),
];

/// Lists the types of backends that there are, with or without their features.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

/// Adds attributes from the environment, as buildx does on behalf of its user.
pub fn fill_in(
    kind: &str,
    attributes: &mut BTreeMap<String, String>,
    variable: &dyn Fn(&str) -> Option<String>,
) {
    let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
    // Runners of GitHub's own servers for companies know both addresses, but serve the first.
    let second =
        filled("ACTIONS_CACHE_SERVICE_V2").is_some() || filled("ACTIONS_CACHE_URL").is_none();
    let of_kind = FROM_ENVIRONMENT.iter().filter(|(of, _, _)| *of == kind);
    // A key of one's own does not go with somebody else's session.
    let own_key = attributes.contains_key("access_key_id");
    for (_, key, name) in of_kind {
        let foreign = own_key && matches!(*key, "secret_access_key" | "session_token");
        let unserved = *key == "url_v2" && !second;
        if !foreign
            && !unserved
            && !attributes.contains_key(*key)
            && let Some(value) = filled(name)
        {
            attributes.insert((*key).to_owned(), value);
        }
    }
}

impl Backend {
    /// Takes the attributes of a backend out of `attributes`; what is of every type is left.
    /// `None` where `kind` is no backend of this module.
    pub fn take(
        kind: &str,
        attributes: &mut BTreeMap<String, String>,
    ) -> Option<Result<Self, String>> {
        let (_, feature) = KINDS.iter().find(|(known, _)| *known == kind)?;
        let settings = match kind {
            "gha" => gha::Settings::take(attributes).map(|settings| Kind::Gha(Box::new(settings))),
            "http" => {
                http::Settings::take(attributes).map(|settings| Kind::Http(Box::new(settings)))
            }
            #[cfg(feature = "cache-reapi")]
            "reapi" => {
                reapi::Settings::take(attributes).map(|settings| Kind::Reapi(Box::new(settings)))
            }
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            _ => match bucket::Settings::take(kind, attributes) {
                Some(taken) => taken.map(|settings| Kind::Bucket(Box::new(settings))),
                None => Err(without(feature.unwrap_or_default())),
            },
            #[cfg(not(any(
                feature = "cache-s3",
                feature = "cache-azblob",
                feature = "cache-gcs"
            )))]
            _ => Err(without(feature.unwrap_or_default())),
        };
        Some(settings.map(Self))
    }

    /// Returns what people call the cache.
    pub fn name(&self) -> String {
        match &self.0 {
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            Kind::Bucket(settings) => settings.place(),
            Kind::Gha(settings) => settings.place(),
            Kind::Http(settings) => settings.place(),
            #[cfg(feature = "cache-reapi")]
            Kind::Reapi(settings) => settings.place(),
        }
    }

    /// Returns what the user should know about the attributes.
    pub fn notes(&self) -> &[String] {
        match &self.0 {
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            Kind::Bucket(settings) => &settings.notes,
            _ => &[],
        }
    }

    /// Says whether BuildKit has a way to keep its caches there.
    pub fn takes_buildkit(&self) -> bool {
        match &self.0 {
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            Kind::Bucket(_) => true,
            Kind::Gha(_) => true,
            Kind::Http(_) => false,
            #[cfg(feature = "cache-reapi")]
            Kind::Reapi(_) => false,
        }
    }

    /// Returns what people call the service.
    pub fn service(&self) -> &'static str {
        match &self.0 {
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            Kind::Bucket(settings) => settings.title(),
            Kind::Gha(_) => "GitHub Actions Cache",
            Kind::Http(_) => "web server",
            #[cfg(feature = "cache-reapi")]
            Kind::Reapi(_) => "remote execution cache",
        }
    }

    /// Goes there. What is found out about the server takes a request or two.
    pub async fn open(
        &self,
        client: &Client,
        direction: Direction,
    ) -> Result<Arc<dyn RemoteStore>, StoreError> {
        match self.0.clone() {
            #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
            Kind::Bucket(settings) => settings.open(client, direction).await,
            Kind::Gha(settings) => Ok(settings.open(client.clone())),
            Kind::Http(settings) => settings.open(client.clone(), direction).await,
            #[cfg(feature = "cache-reapi")]
            Kind::Reapi(settings) => settings.open(direction).await,
        }
    }
}

#[cfg_attr(
    all(
        feature = "cache-s3",
        feature = "cache-azblob",
        feature = "cache-gcs",
        feature = "cache-reapi"
    ),
    allow(dead_code, reason = "nothing is missing")
)]
fn without(feature: &str) -> String {
    format!("this cooper was built without `{feature}`; build with `--features {feature}`")
}

/// Says which feature a type of backend lacks.
#[cfg_attr(
    all(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"),
    allow(dead_code, reason = "no bucket is missing")
)]
fn lacks(kind: &str) -> String {
    let mut features = KINDS.iter().filter(|(known, _)| *known == kind);
    let feature = features.find_map(|(_, feature)| *feature);
    without(feature.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_gaps_but_mixes_no_credentials() {
        let environment = |name: &str| Some(format!("<{name}>"));
        let mut attributes = BTreeMap::from([("region".to_owned(), "mine".to_owned())]);
        fill_in("s3", &mut attributes, &environment);
        assert_eq!(attributes["region"], "mine");
        assert_eq!(attributes["secret_access_key"], "<AWS_SECRET_ACCESS_KEY>");
        let mut attributes = BTreeMap::from([("access_key_id".to_owned(), "mine".to_owned())]);
        fill_in("s3", &mut attributes, &environment);
        assert!(!attributes.contains_key("secret_access_key"));
        assert!(!attributes.contains_key("session_token"));
    }

    #[test]
    fn what_was_left_out_says_how_to_get_it() {
        assert!(Backend::take("registry", &mut BTreeMap::new()).is_none());
        for (kind, feature) in KINDS {
            let taken = Backend::take(kind, &mut BTreeMap::new()).unwrap();
            let error = taken.unwrap_err();
            let features = [
                ("s3", cfg!(feature = "cache-s3")),
                ("azblob", cfg!(feature = "cache-azblob")),
                ("gcs", cfg!(feature = "cache-gcs")),
                ("reapi", cfg!(feature = "cache-reapi")),
            ];
            let built = features.iter().all(|(of, built)| *of != kind || *built);
            match built {
                true => assert!(error.contains(kind) || error.contains("not set"), "{error}"),
                false => assert_eq!(error, without(feature.unwrap())),
            }
        }
    }
}
