//! Attributes of buckets, with BuildKit's names.
//!
//! | attribute | `s3` | `azblob` | `gcs` |
//! |---|---|---|---|
//! | where | `bucket`, `region`, `endpoint_url`, `use_path_style` | `account_url`, `account_name`, `container` | `bucket`, `endpoint_url` |
//! | who | `access_key_id`, `secret_access_key`, `session_token` | `secret_access_key` | `credential_path`, `token` |
//! | below | `prefix`, `manifests_prefix`, `blobs_prefix`, `name` (several with `;`) | the same | the same |
//! | how | `upload_parallelism`, `retry_max_attempts`, `touch_refresh` | the same | the same |
//!
//! Who is not told who it is asks where the vendors' own tools ask: their variables and files,
//! the metadata service of a machine. For `gcs`, which BuildKit has not, the names are those of
//! `s3`. `anonymous=true` signs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use opendal::Operator;

use crate::cache::remote::backend::attributes::{Attributes, Secret};
use crate::cache::remote::store::ObjectName;
use crate::oci::Digest;

/// Blobs that are uploaded at a time.
const UPLOADS_AT_ONCE: usize = 4;
/// The name of a cache that has none.
const DEFAULT_NAME: &str = "buildkit";
/// Attributes that BuildKit has for its own client: nothing here asks for compressed answers.
const IGNORED: [&str; 1] = ["disable_accept_encoding"];
/// How often a request is made, at most.
const ATTEMPTS_MAX: usize = 4;
/// Age from which a blob of `s3` that is used again is made young, where nobody says.
const TOUCH_REFRESH: Duration = Duration::from_hours(24);

/// A bucket, who we are there, and where in it the cache lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache::remote::backend) struct Settings {
    service: Service,
    manifests: String,
    blobs: String,
    /// Names of the cache; the first one counts.
    pub(super) names: Vec<String>,
    pub(super) uploads_at_once: usize,
    /// How often a request is made, at most.
    pub(super) attempts_max: usize,
    /// Age from which a blob that is used again is made young; never where `None`.
    pub(super) touch_refresh: Option<Duration>,
    /// What the user should know about what was typed.
    pub(in crate::cache::remote::backend) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Service {
    #[cfg(feature = "cache-s3")]
    S3 {
        bucket: String,
        region: String,
        endpoint: Option<String>,
        path_style: bool,
        keys: Option<(String, Secret)>,
        session: Option<Secret>,
        anonymous: bool,
    },
    #[cfg(feature = "cache-azblob")]
    Azblob {
        url: String,
        account: String,
        container: String,
        key: Option<Secret>,
    },
    #[cfg(feature = "cache-gcs")]
    Gcs {
        bucket: String,
        endpoint: Option<String>,
        credentials: Option<String>,
        token: Option<Secret>,
        anonymous: bool,
    },
}

impl Settings {
    /// Takes the attributes of a kind; `None` where its feature is missing.
    pub(in crate::cache::remote::backend) fn take(
        kind: &str,
        left: &mut BTreeMap<String, String>,
    ) -> Option<Result<Self, String>> {
        let mut attributes = Attributes { kind, left };
        let service = match kind {
            #[cfg(feature = "cache-s3")]
            "s3" => Service::take_s3(&mut attributes),
            #[cfg(feature = "cache-azblob")]
            "azblob" => Service::take_azblob(&mut attributes),
            #[cfg(feature = "cache-gcs")]
            "gcs" => Service::take_gcs(&mut attributes),
            _ => return None,
        };
        Some(service.and_then(|service| Self::below(service, &mut attributes)))
    }

    fn below(service: Service, attributes: &mut Attributes<'_>) -> Result<Self, String> {
        attributes.ignore(&IGNORED);
        let prefix = attributes.take("prefix").unwrap_or_default();
        let mut folder = |key: &str, default: &str| match attributes.left.remove(key) {
            Some(folder) => folder,
            None => default.to_owned(),
        };
        let manifests = folder("manifests_prefix", "manifests/");
        let blobs = folder("blobs_prefix", "blobs/");
        let join = |folder: String| match attributes.kind {
            // BuildKit joins these as paths, and the others as text.
            "azblob" => join(&[&prefix, &folder]),
            _ => format!("{prefix}{folder}"),
        };
        let (manifests, blobs) = (join(manifests), join(blobs));
        let names = attributes.take("name");
        let names = names.unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let names: Vec<String> = names
            .split(';')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            return Err(format!("{} cache requires a name", attributes.kind));
        }
        let uploads = attributes.count("upload_parallelism")?;
        let attempts = attributes.count("retry_max_attempts")?;
        let touch_refresh = match attributes.duration("touch_refresh")? {
            Some(age) => Some(age),
            None => (attributes.kind == "s3").then_some(TOUCH_REFRESH),
        };
        let notes = notes(attributes)?;
        Ok(Self {
            service,
            manifests,
            blobs,
            names,
            uploads_at_once: uploads.unwrap_or(UPLOADS_AT_ONCE),
            attempts_max: attempts.unwrap_or(ATTEMPTS_MAX),
            touch_refresh,
            notes,
        })
    }

    /// Returns where the objects of one of the names lie; ends in a slash.
    pub(super) fn object_folder(&self, name: usize) -> String {
        let name = self.names.get(name).map_or(DEFAULT_NAME, String::as_str);
        format!("{}{name}.cooper/", self.manifests)
    }

    /// Returns where an object lies.
    pub(super) fn object_path(&self, name: usize, object: &ObjectName) -> String {
        format!("{}{object}", self.object_folder(name))
    }

    /// Returns where BuildKit keeps its cache of one of the names.
    pub(super) fn document_path(&self, name: &str) -> String {
        format!("{}{name}", self.manifests)
    }

    /// Says whether an import takes the caches of all names together, as BuildKit does there.
    pub(super) fn combines_names(&self) -> bool {
        match &self.service {
            #[cfg(feature = "cache-azblob")]
            Service::Azblob { .. } => true,
            #[cfg(any(feature = "cache-s3", feature = "cache-gcs"))]
            _ => false,
        }
    }

    /// Returns where a blob lies.
    pub(super) fn blob_path(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.blobs)
    }

    /// Returns what people call it.
    pub(in crate::cache::remote::backend) fn place(&self) -> String {
        let name = self.names.first().map_or(DEFAULT_NAME, String::as_str);
        match &self.service {
            #[cfg(feature = "cache-s3")]
            Service::S3 { bucket, .. } => format!("s3 bucket {bucket} ({name})"),
            #[cfg(feature = "cache-azblob")]
            Service::Azblob { container, .. } => format!("azblob container {container} ({name})"),
            #[cfg(feature = "cache-gcs")]
            Service::Gcs { bucket, .. } => format!("gcs bucket {bucket} ({name})"),
        }
    }

    /// Returns what people call the service.
    pub(in crate::cache::remote::backend) fn title(&self) -> &'static str {
        match &self.service {
            #[cfg(feature = "cache-s3")]
            Service::S3 { .. } => "Amazon S3",
            #[cfg(feature = "cache-azblob")]
            Service::Azblob { .. } => "Azure Blob Storage",
            #[cfg(feature = "cache-gcs")]
            Service::Gcs { .. } => "Google Cloud Storage",
        }
    }

    /// Returns a URL of the service, to choose connections by.
    pub(super) fn endpoint(&self) -> String {
        match &self.service {
            #[cfg(feature = "cache-s3")]
            Service::S3 { endpoint, .. } => endpoint.clone(),
            #[cfg(feature = "cache-azblob")]
            Service::Azblob { url, .. } => Some(url.clone()),
            #[cfg(feature = "cache-gcs")]
            Service::Gcs { endpoint, .. } => endpoint.clone(),
        }
        .unwrap_or_else(|| "https://cloud.invalid".to_owned())
    }

    /// Makes opendal's operator.
    pub(super) fn operator(&self) -> opendal::Result<Operator> {
        match &self.service {
            #[cfg(feature = "cache-s3")]
            Service::S3 {
                bucket,
                region,
                endpoint,
                path_style,
                keys,
                session,
                anonymous,
            } => {
                let mut builder = opendal::services::S3::default()
                    .bucket(bucket)
                    .region(region);
                builder = endpoint
                    .iter()
                    .fold(builder, |made, url| made.endpoint(url));
                if !path_style {
                    builder = builder.enable_virtual_host_style();
                }
                Operator::new(identified(
                    builder,
                    keys.as_ref(),
                    session.as_ref(),
                    *anonymous,
                ))
            }
            #[cfg(feature = "cache-azblob")]
            Service::Azblob {
                url,
                account,
                container,
                key,
            } => {
                let mut builder = opendal::services::Azblob::default()
                    .endpoint(url)
                    .container(container)
                    .account_name(account);
                if let Some(key) = key {
                    builder = builder.account_key(key.reveal());
                }
                Operator::new(builder)
            }
            #[cfg(feature = "cache-gcs")]
            Service::Gcs {
                bucket,
                endpoint,
                credentials,
                token,
                anonymous,
            } => {
                let mut builder = opendal::services::Gcs::default().bucket(bucket);
                builder = endpoint
                    .iter()
                    .fold(builder, |made, url| made.endpoint(url));
                if let Some(path) = credentials {
                    builder = builder.credential_path(path);
                }
                if let Some(token) = token {
                    builder = builder.token(token.reveal().to_owned());
                }
                if *anonymous {
                    builder = builder.skip_signature();
                }
                Operator::new(builder)
            }
        }
    }
}

/// Takes what has no effect here, and says so.
fn notes(attributes: &mut Attributes<'_>) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    match attributes.take("retry_mode").as_deref() {
        None | Some("standard") => {}
        Some("adaptive") => notes.push(format!(
            "{} cache: retry_mode=adaptive has no effect: pauses double, with jitter, as with standard",
            attributes.kind
        )),
        Some(_) => return Err("retry_mode must be \"standard\" or \"adaptive\"".to_owned()),
    }
    Ok(notes)
}

/// Says to S3 who asks.
#[cfg(feature = "cache-s3")]
fn identified(
    mut builder: opendal::services::S3,
    keys: Option<&(String, Secret)>,
    session: Option<&Secret>,
    anonymous: bool,
) -> opendal::services::S3 {
    if let Some((id, key)) = keys {
        builder = builder.access_key_id(id).secret_access_key(key.reveal());
    }
    if let Some(session) = session {
        builder = builder.session_token(session.reveal());
    }
    match anonymous {
        true => builder.skip_signature(),
        false => builder,
    }
}

impl Service {
    #[cfg(feature = "cache-s3")]
    fn take_s3(attributes: &mut Attributes<'_>) -> Result<Self, String> {
        let need = |attributes: &mut Attributes<'_>, key: &str, name: &str| {
            let value = attributes.take(key);
            value.ok_or_else(|| format!("{key} (${name}) not set for s3 cache"))
        };
        let id = attributes.take("access_key_id");
        let key = attributes.secret("secret_access_key");
        let keys = match (id, key) {
            (Some(id), Some(key)) => Some((id, key)),
            (None, None) => None,
            _ => {
                let text = "s3 cache requires access_key_id and secret_access_key together";
                return Err(text.to_owned());
            }
        };
        Ok(Self::S3 {
            bucket: need(attributes, "bucket", "AWS_BUCKET")?,
            region: need(attributes, "region", "AWS_REGION")?,
            endpoint: attributes.take("endpoint_url"),
            path_style: attributes.boolean("use_path_style")?,
            keys,
            session: attributes.secret("session_token"),
            anonymous: attributes.boolean("anonymous")?,
        })
    }

    #[cfg(feature = "cache-azblob")]
    fn take_azblob(attributes: &mut Attributes<'_>) -> Result<Self, String> {
        let url = attributes.need("account_url")?;
        let parsed = reqwest::Url::parse(&url);
        let parsed = parsed.map_err(|error| format!("invalid account_url: {error}"))?;
        let host = parsed.host_str().unwrap_or_default();
        let account = attributes.take("account_name");
        let account = account.or_else(|| host.split('.').next().map(str::to_owned));
        let container = attributes.take("container");
        Ok(Self::Azblob {
            url,
            account: account.unwrap_or_default(),
            container: container.unwrap_or_else(|| "buildkit-cache".to_owned()),
            key: attributes.secret("secret_access_key"),
        })
    }

    #[cfg(feature = "cache-gcs")]
    fn take_gcs(attributes: &mut Attributes<'_>) -> Result<Self, String> {
        Ok(Self::Gcs {
            bucket: attributes.need("bucket")?,
            endpoint: attributes.take("endpoint_url"),
            credentials: attributes.take("credential_path"),
            token: attributes.secret("token"),
            anonymous: attributes.boolean("anonymous")?,
        })
    }
}

/// Joins parts of a path, each with one slash behind it.
fn join(parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| part.trim_matches('/'));
    let parts = parts.filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + part + "/")
}
