//! One object of a bucket, as somebody put it there: what a build context may be.
//!
//! | written | service | from the environment |
//! |---|---|---|
//! | `s3://BUCKET/KEY` | S3 | `AWS_…`, `AWS_ENDPOINT_URL` or `S3_ENDPOINT`, `S3_FORCE_PATH_STYLE` |
//! | `gs://BUCKET/KEY` | Google's storage | `GOOGLE_APPLICATION_CREDENTIALS`, `STORAGE_EMULATOR_HOST` |
//! | `https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY` | Azure's storage | `AZURE_STORAGE_ACCESS_KEY` |
//! | `azblob://CONTAINER/KEY` | the same | the same, `BUILDKIT_AZURE_STORAGE_…` |
//!
//! These are kaniko's names, and those of the vendors' own tools. Without a key of the account an
//! URL of Azure's is one like others. Services and features are those of the caches.

use std::collections::BTreeMap;

use super::fill_in;
use crate::cache::remote::store::StoreError;
use crate::content::ContentStore;
use crate::oci::Descriptor;
use crate::registry::Client;

/// The object of a bucket for which none is named.
const DEFAULT_KEY: &str = "context.tar.gz";
/// Where Amazon's servers are, if nobody says so.
const DEFAULT_REGION: &str = "us-east-1";
/// Hosts of Azure's storage behind the name of an account.
const AZURE_HOSTS: [&str; 4] = [
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.cloudapi.de",
    ".blob.core.usgovcloudapi.net",
];
/// The key of an account of Azure's.
const AZURE_KEY: &str = "AZURE_STORAGE_ACCESS_KEY";

/// An object of a bucket, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketObject {
    url: String,
    #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
    settings: Box<super::bucket::Settings>,
    #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
    key: String,
}

/// Where an object lies.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    kind: &'static str,
    attributes: BTreeMap<String, String>,
    key: String,
}

impl BucketObject {
    /// Reads a URL; `None` where it names no bucket.
    ///
    /// # Errors
    ///
    /// Fails with a reason when this cooper, or what the environment says, cannot get there.
    pub fn parse(
        url: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Result<Self, String>> {
        let place = Place::parse(url, variable)?;
        let named = place.and_then(|place| Self::at(url, place));
        Some(named.map_err(|reason| format!("cannot read {url}: {reason}")))
    }

    #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
    fn at(url: &str, mut place: Place) -> Result<Self, String> {
        let settings = super::bucket::Settings::take(place.kind, &mut place.attributes);
        let settings = settings.ok_or_else(|| super::lacks(place.kind))?;
        // What the settings say of themselves is about caches.
        let settings = settings.map_err(|reason| reason.replace(" cache requires", " needs"))?;
        Ok(Self {
            url: url.to_owned(),
            settings: Box::new(settings),
            key: place.key,
        })
    }

    #[cfg(not(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs")))]
    fn at(_: &str, place: Place) -> Result<Self, String> {
        Err(super::lacks(place.kind))
    }

    /// Returns what was written.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Copies the object into the store.
    ///
    /// # Errors
    ///
    /// Fails when it is not there, or the service does not give it.
    pub async fn fetch(
        &self,
        client: &Client,
        into: &ContentStore,
    ) -> Result<Descriptor, StoreError> {
        #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
        {
            let place = (self.url.as_str(), self.key.as_str());
            self.settings.fetch_object(place, client, into).await
        }
        #[cfg(not(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs")))]
        {
            let _ = (client, into);
            let kind = crate::cache::remote::store::FaultKind::Permanent;
            Err(StoreError::new(kind, "this cooper knows no buckets"))
        }
    }
}

impl Place {
    fn parse(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<Result<Self, String>> {
        let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (scheme, rest) = url.split_once("://")?;
        let (kind, host, path) = match scheme {
            "s3" => ("s3", None, rest),
            "gs" => ("gcs", None, rest),
            "azblob" => ("azblob", None, rest),
            "abfss" => return Some(Err("name it as azblob://CONTAINER/KEY".to_owned())),
            "https" => {
                let (host, path) = rest.split_once('/')?;
                let is_azure = AZURE_HOSTS.iter().any(|suffix| host.ends_with(suffix));
                if !is_azure || filled(AZURE_KEY).is_none() {
                    return None;
                }
                ("azblob", Some(host), path)
            }
            _ => return None,
        };
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Some(Err("it names no bucket".to_owned()));
        }
        let key = if key.is_empty() { DEFAULT_KEY } else { key };
        let mut place = Self {
            kind,
            attributes: BTreeMap::new(),
            key: key.to_owned(),
        };
        match kind {
            "s3" => place.s3(bucket, variable),
            "gcs" => place.google(bucket, variable),
            _ => place.azure(bucket, host, variable),
        }
        Some(Ok(place))
    }

    fn set(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.attributes.insert(key.to_owned(), value);
        }
    }

    fn s3(&mut self, bucket: &str, variable: &dyn Fn(&str) -> Option<String>) {
        let first = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.is_empty())
        };
        self.set("bucket", Some(bucket.to_owned()));
        let region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
        self.set("region", region.or_else(|| Some(DEFAULT_REGION.to_owned())));
        let endpoints = ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
        self.set("endpoint_url", first(&endpoints));
        self.set("use_path_style", first(&["S3_FORCE_PATH_STYLE"]));
        fill_in(self.kind, &mut self.attributes, variable);
    }

    fn google(&mut self, bucket: &str, variable: &dyn Fn(&str) -> Option<String>) {
        self.set("bucket", Some(bucket.to_owned()));
        let emulator = variable("STORAGE_EMULATOR_HOST").filter(|host| !host.is_empty());
        let Some(host) = emulator else {
            fill_in(self.kind, &mut self.attributes, variable);
            return;
        };
        let host = match host.contains("://") {
            true => host,
            false => format!("http://{host}"),
        };
        self.set("endpoint_url", Some(host));
        self.set("anonymous", Some("true".to_owned()));
    }

    fn azure(
        &mut self,
        container: &str,
        host: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) {
        self.set("container", Some(container.to_owned()));
        match host {
            Some(host) => self.set("account_url", Some(format!("https://{host}"))),
            None => fill_in(self.kind, &mut self.attributes, variable),
        }
        self.attributes.remove("prefix");
        self.set("secret_access_key", variable(AZURE_KEY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str, variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match Place::parse(url, &variable) {
            None => "none".to_owned(),
            Some(Err(reason)) => format!("error: {reason}"),
            Some(Ok(place)) => {
                let attributes = place.attributes.iter();
                let attributes = attributes.map(|(key, value)| format!(" {key}={value}"));
                format!(
                    "{}{} {}",
                    place.kind,
                    attributes.collect::<String>(),
                    place.key
                )
            }
        }
    }

    #[test]
    fn urls_and_the_environment_say_where_an_object_lies() {
        let minio = [
            ("S3_ENDPOINT", "http://h"),
            ("S3_FORCE_PATH_STYLE", "true"),
            ("AWS_DEFAULT_REGION", "eu"),
            ("AWS_BUCKET", "other"),
        ];
        let azure = [("AZURE_STORAGE_ACCESS_KEY", "k")];
        let account = [("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", "http://h/a")];
        for (url, variables, expected) in [
            (
                "s3://b/d/x.tgz",
                &[][..],
                "s3 bucket=b region=us-east-1 d/x.tgz",
            ),
            ("s3://b", &[], "s3 bucket=b region=us-east-1 context.tar.gz"),
            (
                "s3://b/x",
                &minio,
                "s3 bucket=b endpoint_url=http://h region=eu use_path_style=true x",
            ),
            ("s3:///x", &[], "error: it names no bucket"),
            ("gs://b/x", &[], "gcs bucket=b x"),
            (
                "gs://b/x",
                &[("STORAGE_EMULATOR_HOST", "h:1")],
                "gcs anonymous=true bucket=b endpoint_url=http://h:1 x",
            ),
            ("https://a.blob.core.windows.net/c/x", &[], "none"),
            (
                "https://a.blob.core.windows.net/c/d/x",
                &azure,
                "azblob account_url=https://a.blob.core.windows.net container=c \
                 secret_access_key=k d/x",
            ),
            ("https://example.org/c/x", &azure, "none"),
            (
                "azblob://c/x",
                &account,
                "azblob account_url=http://h/a container=c x",
            ),
            ("folder", &[], "none"),
        ] {
            assert_eq!(shown(url, variables), expected, "{url}");
        }
    }

    #[test]
    fn a_service_that_was_left_out_is_named() {
        for (url, built, feature) in [
            ("s3://b/x", cfg!(feature = "cache-s3"), "cache-s3"),
            ("gs://b/x", cfg!(feature = "cache-gcs"), "cache-gcs"),
        ] {
            let parsed = BucketObject::parse(url, &|_| None).unwrap();
            match (built, parsed) {
                (true, Ok(object)) => assert_eq!(object.url(), url),
                (false, Err(error)) => {
                    assert!(error.contains(url) && error.contains(feature), "{error}");
                }
                (_, parsed) => panic!("{parsed:?}"),
            }
        }
    }
}
