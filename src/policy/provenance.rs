//! How an image was built, as policies see it: SLSA provenance of versions 0.2 and 1.
//!
//! What is said here is as true as the registry that has it: nobody's signature was verified.

use serde_json::{Map, Value, json};

use super::env::Env;
use super::facts::Facts;
use super::input::{self, Members};
use crate::llb::pb;
use crate::oci::{Platform, Reference};

/// Predicate types that are understood.
pub const PREDICATES: [&str; 2] = [V1, V02];

const V1: &str = "https://slsa.dev/provenance/v1";
const V02: &str = "https://slsa.dev/provenance/v0.2";
/// Begins the options of a build that are build arguments.
const BUILD_ARG: &str = "build-arg:";

/// Where the parts of a predicate stand, as JSON pointers.
struct Places {
    build_type: &'static str,
    builder: &'static str,
    config_source: &'static str,
    config_path: &'static str,
    frontend: &'static str,
    args: &'static str,
    materials: &'static str,
    metadata: &'static str,
    /// Member of the metadata and what it is called here.
    said: &'static [(&'static str, &'static str)],
    completeness: &'static str,
    complete: &'static [(&'static str, &'static str)],
}

const PLACES_V1: Places = Places {
    build_type: "/buildDefinition/buildType",
    builder: "/runDetails/builder/id",
    config_source: "/buildDefinition/externalParameters/configSource",
    config_path: "path",
    frontend: "/buildDefinition/externalParameters/request/frontend",
    args: "/buildDefinition/externalParameters/request/args",
    materials: "/buildDefinition/resolvedDependencies",
    metadata: "/runDetails/metadata",
    said: &[
        ("invocationId", "invocationID"),
        ("invocationID", "invocationID"),
        ("startedOn", "startedOn"),
        ("finishedOn", "finishedOn"),
        ("buildkit_reproducible", "reproducible"),
        ("buildkit_hermetic", "hermetic"),
    ],
    completeness: "buildkit_completeness",
    complete: &[
        ("request", "parameters"),
        ("resolvedDependencies", "materials"),
    ],
};

const PLACES_V02: Places = Places {
    build_type: "/buildType",
    builder: "/builder/id",
    config_source: "/invocation/configSource",
    config_path: "entryPoint",
    frontend: "/invocation/parameters/frontend",
    args: "/invocation/parameters/args",
    materials: "/materials",
    metadata: "/metadata",
    said: &[
        ("buildInvocationID", "invocationID"),
        ("buildStartedOn", "startedOn"),
        ("buildFinishedOn", "finishedOn"),
        ("reproducible", "reproducible"),
        ("https://mobyproject.org/buildkit@v1#hermetic", "hermetic"),
    ],
    completeness: "completeness",
    complete: &[
        ("parameters", "parameters"),
        ("environment", "environment"),
        ("materials", "materials"),
    ],
};

/// Writes what a statement says; `None` for statements about other things.
pub(super) fn value(
    statement: &[u8],
    platform: &Platform,
    env: &Env,
    depth: usize,
) -> Option<Value> {
    let statement: Value = serde_json::from_slice(statement).ok()?;
    let kind = statement["predicateType"].as_str()?;
    let places = match kind {
        V1 => &PLACES_V1,
        V02 => &PLACES_V02,
        _ => return None,
    };
    let predicate = &statement["predicate"];
    let text = |place: &str| predicate.pointer(place).and_then(Value::as_str);
    let text = |place: &str| text(place).unwrap_or_default();
    let mut members = Members::default();
    members.put("predicateType", kind);
    members.put("buildType", text(places.build_type));
    members.put("builderID", text(places.builder));
    members.put("frontend", text(places.frontend));
    if let Some(Value::Object(args)) = predicate.pointer(places.args) {
        members.put("rawArgs", args.clone());
        let named = args.iter();
        let named = named.filter_map(|(key, value)| {
            let name = key.strip_prefix(BUILD_ARG)?;
            (!name.is_empty()).then(|| (name.to_owned(), value.clone()))
        });
        members.put("buildArgs", named.collect::<Map<String, Value>>());
    }
    let mut value = members.end();
    value["configSource"] = config_source(predicate, places);
    add_metadata(&mut value, predicate.pointer(places.metadata), places);
    let materials = predicate
        .pointer(places.materials)
        .and_then(Value::as_array);
    let materials = materials.into_iter().flatten();
    let materials = materials.filter_map(|material| {
        let (source, own) = source(material)?;
        let platform = own.as_ref().unwrap_or(platform);
        input::input(&source, platform, (env, depth + 1), &Facts::default()).ok()
    });
    let materials: Vec<Value> = materials.collect();
    if !materials.is_empty() {
        value["materials"] = materials.into();
    }
    Some(value)
}

/// Writes where the Dockerfile came from; nothing is said of one from a folder.
fn config_source(predicate: &Value, places: &Places) -> Value {
    let mut config = Members::default();
    if let Some(source) = predicate.pointer(places.config_source) {
        config.put("uri", source["uri"].clone());
        config.put("digest", source["digest"].clone());
        config.put("path", source[places.config_path].clone());
    }
    config.end()
}

/// Adds what is said about the run. A word that is false says something here.
fn add_metadata(value: &mut Value, metadata: Option<&Value>, places: &Places) {
    let Some(metadata) = metadata else {
        return;
    };
    value["reproducible"] = json!(false);
    value["hermetic"] = json!(false);
    for (from, to) in places.said {
        match &metadata[from] {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(time) if to.ends_with("On") => value[to] = input::in_seconds(time).into(),
            said => value[to] = said.clone(),
        }
    }
    let said = &metadata[places.completeness];
    let complete = places.complete.iter();
    let complete = complete.map(|(from, to)| {
        let is_complete = said[from].as_bool().unwrap_or(false);
        ((*to).to_owned(), json!(is_complete))
    });
    value["completeness"] = Value::Object(complete.collect());
}

/// Makes of a material the source that it was.
fn source(material: &Value) -> Option<(pb::SourceOp, Option<Platform>)> {
    let uri = material["uri"].as_str()?;
    let of = |identifier: String, full: Option<&str>| pb::SourceOp {
        identifier,
        attrs: full
            .map(|url| ("git.fullurl".to_owned(), url.to_owned()))
            .into_iter()
            .collect(),
    };
    if let Some(image) = uri.strip_prefix("pkg:docker/") {
        let (reference, platform) = image_of_url(image, material["digest"]["sha256"].as_str())?;
        return Some((of(format!("docker-image://{reference}"), None), platform));
    }
    let (address, fragment) = uri.split_once('#').unwrap_or((uri, ""));
    let is_git = address.to_ascii_lowercase().ends_with(".git")
        || !(address.starts_with("http://") || address.starts_with("https://"));
    if !is_git {
        return Some((of(uri.to_owned(), None), None));
    }
    let url = crate::llb::GitUrl::parse(address)?.ok()?;
    let mut identifier = format!("git://{}", url.host_and_path);
    if !fragment.is_empty() {
        identifier = format!("{identifier}#{fragment}");
    }
    Some((of(identifier, Some(address)), None))
}

/// Reads `name@tag?platform=…` with the digest beside it.
fn image_of_url(text: &str, hex: Option<&str>) -> Option<(Reference, Option<Platform>)> {
    let (name, qualifiers) = text.split_once('?').unwrap_or((text, ""));
    let decoded = crate::llb::git_url::percent_decoded(name);
    let (name, version) = decoded.split_once('@').unwrap_or((&decoded, ""));
    let reference = match version {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    let mut reference = reference.parse::<Reference>().ok()?;
    let fields = qualifiers
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    let mut platform = None;
    for (key, value) in fields {
        let value = crate::llb::git_url::percent_decoded(value);
        match key {
            "platform" => platform = value.parse().ok(),
            "digest" => reference = reference.with_digest(value.parse().ok()?),
            _ => {}
        }
    }
    if let Some(hex) = hex.filter(|_| reference.digest().is_none()) {
        reference = reference.with_digest(format!("sha256:{hex}").parse().ok()?);
    }
    Some((reference, platform))
}
