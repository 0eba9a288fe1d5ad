//! What a policy is given: a source and what is known about it, in buildx's shape.
//!
//! ```text
//! {"env": {…}, "local": {"name"} |
//!  "image": {"ref", "host", "repo", "fullRepo", "tag", "platform", "os", "arch", "variant", "isCanonical", "checksum",
//!            "createdTime", "labels", "env", "user", "volumes", "workingDir", "hasProvenance", "provenance"} |
//!  "http": {"url", "schema", "host", "path", "query", "hasAuth", "checksum"} |
//!  "git": {"schema", "host", "remote", "fullURL", "ref", "tagName", "branch", "subDir", "isCommitRef", "checksum",
//!          "commitChecksum", "isSHA256", "isAnnotatedTag", "commit": {…}, "tag": {…}}}
//! ```
//!
//! What is empty, false or not known is left out, and so are users and passwords in URLs: what a
//! policy is given may be logged.

use serde_json::{Map, Value, json};

use super::env::Env;
use super::facts::{CommitFacts, Facts};
use super::git;
use super::identifier::{GIT, IMAGE, shown};
use super::provenance;
use super::question::Kind;
use crate::llb::git_url::percent_decoded;
use crate::llb::{GitUrl, pb};
use crate::oci::{Platform, Reference};

/// Members of an object, without those that say nothing.
#[derive(Debug, Default)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Adds a member, unless it is empty or false.
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let says_nothing = match &value {
            Value::Null => true,
            Value::Bool(is_true) => !is_true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::Number(_) => false,
        };
        if !says_nothing {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Returns the object.
    pub(super) fn end(self) -> Value {
        Value::Object(self.0)
    }
}

/// Writes the input for a source; `depth` says by how many others it is used.
pub fn input(
    source: &pb::SourceOp,
    platform: &Platform,
    (env, depth): (&Env, usize),
    facts: &Facts,
) -> Result<Value, String> {
    let identifier = &source.identifier;
    let kind = Kind::of(source)
        .ok_or_else(|| format!("policies in Rego know nothing of sources like {identifier:?}"))?;
    let (name, value) = match kind {
        Kind::Image => ("image", image(source, platform, env, depth, facts)?),
        Kind::Git => ("git", git_source(source, facts)?),
        Kind::Http => ("http", http(source, facts)),
        Kind::Local => {
            let name = identifier.strip_prefix("local://").unwrap_or(identifier);
            ("local", json!({ "name": name }))
        }
    };
    Ok(json!({"env": env.value(depth), name: value}))
}

fn image(
    source: &pb::SourceOp,
    platform: &Platform,
    env: &Env,
    depth: usize,
    facts: &Facts,
) -> Result<Value, String> {
    let name = source.identifier.strip_prefix(IMAGE).unwrap_or_default();
    let reference = name.parse::<Reference>();
    let reference = reference.map_err(|error| format!("{name:?}: {error}"))?;
    let mut members = Members::default();
    members.put("ref", reference.to_string());
    members.put("host", reference.domain());
    let full = reference.name();
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    members.put("repo", short.strip_prefix("library/").unwrap_or(short));
    members.put("fullRepo", full.as_str());
    members.put("tag", reference.tag().unwrap_or_default());
    let usual = platform.clone().normalized();
    members.put("platform", usual.to_string());
    members.put("os", usual.os);
    members.put("arch", usual.architecture);
    members.put("variant", usual.variant);
    members.put("isCanonical", reference.digest().is_some());
    let mut checksum = reference.digest().map(ToString::to_string);
    if let Some(image) = &facts.image {
        checksum = Some(image.digest.to_string());
        let config = &image.config.config;
        let created = image.config.created.as_deref().unwrap_or_default();
        members.put("createdTime", in_seconds(created));
        members.put("labels", json!(config.labels));
        members.put("env", json!(config.env));
        members.put("user", config.user.as_str());
        let volumes = config.volumes.iter().flat_map(|volumes| volumes.keys());
        let volumes: Vec<&String> = volumes.collect();
        members.put("volumes", json!(volumes));
        members.put("workingDir", config.working_dir.as_str());
    }
    members.put("checksum", checksum);
    if let Some(said) = &facts.attestations {
        members.put("hasProvenance", said.is_attested);
        let statement = said.provenance.as_deref();
        let provenance = statement.and_then(|bytes| provenance::value(bytes, platform, env, depth));
        members.put("provenance", provenance);
    }
    Ok(members.end())
}

/// Leaves the parts of a second out of a time in RFC 3339.
pub(super) fn in_seconds(time: &str) -> String {
    let Some((seconds, rest)) = time.split_once('.') else {
        return time.to_owned();
    };
    let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{seconds}{zone}")
}

fn http(source: &pb::SourceOp, facts: &Facts) -> Value {
    let url = source.identifier.as_str();
    let (schema, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('#').next().unwrap_or(rest);
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match address.find('/') {
        Some(slash) => address.split_at(slash),
        None => (address, ""),
    };
    let mut members = Members::default();
    members.put("url", shown(url));
    members.put("schema", schema);
    members.put("host", host.rsplit('@').next().unwrap_or(host));
    members.put("path", percent_decoded(path));
    members.put("query", query_value(query));
    members.put(
        "hasAuth",
        source.attrs.contains_key("http.authheadersecret"),
    );
    if let Some(file) = &facts.file {
        members.put("checksum", file.digest.to_string());
    }
    members.end()
}

fn query_value(query: &str) -> Value {
    let mut values: Map<String, Value> = Map::new();
    let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let list = values.entry(decoded(name)).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(decoded(value).into());
        }
    }
    Value::Object(values)
}

fn git_source(source: &pb::SourceOp, facts: &Facts) -> Result<Value, String> {
    let identifier = &source.identifier;
    let address = identifier.strip_prefix(GIT).unwrap_or(identifier);
    let (address, fragment) = address.split_once('#').unwrap_or((address, ""));
    let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
    let full = source
        .attrs
        .get("git.fullurl")
        .filter(|url| !url.is_empty());
    let remote = full.map_or_else(|| format!("https://{address}"), Clone::clone);
    let parsed = GitUrl::parse(&remote);
    let Some(Ok(url)) = parsed else {
        return Err(format!("{remote:?} is not the URL of a git repository"));
    };
    let mut members = Members::default();
    let scheme = url
        .remote
        .split_once("://")
        .map_or("ssh", |(scheme, _)| scheme);
    members.put("schema", scheme);
    let host = url.host_and_path.split('/').next();
    members.put("host", host.unwrap_or_default());
    members.put("remote", shown(&url.remote));
    members.put("fullURL", full.map(|url| shown(url)));
    let folder = folder.trim_matches('/');
    members.put("subDir", if folder == "." { "" } else { folder });
    let is_commit = is_commit(reference);
    members.put("isCommitRef", is_commit);
    let known = match &facts.commit {
        Some(known) => known.clone(),
        None if is_commit => CommitFacts {
            reference: reference.to_owned(),
            object: reference.to_owned(),
            commit: reference.to_owned(),
        },
        None if reference.starts_with("refs/") => CommitFacts {
            reference: reference.to_owned(),
            ..CommitFacts::default()
        },
        None => CommitFacts::default(),
    };
    members.put("ref", known.reference.as_str());
    let tag = known.reference.strip_prefix("refs/tags/");
    members.put("tagName", tag.unwrap_or_default());
    let branch = known.reference.strip_prefix("refs/heads/");
    members.put("branch", branch.unwrap_or_default());
    members.put("checksum", known.object.as_str());
    members.put("commitChecksum", known.commit.as_str());
    members.put("isAnnotatedTag", known.object != known.commit);
    members.put("isSHA256", known.object.len() == 64);
    if let Some(objects) = &facts.objects {
        members.put("commit", git::commit(&objects.commit));
        members.put("tag", objects.tag.as_ref().map(git::tag));
    }
    Ok(members.end())
}

/// Says whether a reference is the id of a commit.
pub(super) fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}
