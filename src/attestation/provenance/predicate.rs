//! Facts to JSON, with the members and their order that BuildKit's have.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Capture, Mode, Provenance};
use crate::attestation::without_credentials;
use crate::oci::Descriptor;

/// Type of a build in version 1.
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
/// Type of a build in version 0.2.
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
/// Begins the names of arguments whose values the smaller mode does not tell.
const PRIVATE_ARGS: [&str; 2] = ["build-arg:", "label:"];
/// Name of the builder among the versions of its parts.
const BUILDER: &str = env!("CARGO_PKG_NAME");

/// Writes version 1.
pub(super) fn v1(provenance: &Provenance, layers: &[Descriptor]) -> Value {
    let capture = &provenance.capture;
    let mut definition = Map::new();
    definition.insert("buildType".to_owned(), BUILD_TYPE_V1.into());
    if !capture.materials.is_empty() {
        definition.insert("resolvedDependencies".to_owned(), materials(capture));
    }
    let external = json!({
        "configSource": config_source(capture, "path"),
        "request": request(capture, provenance.options.mode),
    });
    definition.insert("externalParameters".to_owned(), external);
    let mut internal: BTreeMap<String, Value> = provenance.invocation.environment.clone();
    let platform = provenance.invocation.platform.clone();
    internal.insert("builderPlatform".to_owned(), platform.into());
    if provenance.options.mode == Mode::Max {
        internal.insert("buildConfig".to_owned(), provenance.steps.build_config());
    }
    definition.insert("internalParameters".to_owned(), json!(internal));
    let run = &provenance.invocation;
    let mut metadata = json!({
        "invocationId": run.id,
        "startedOn": run.started,
        "finishedOn": run.finished,
        "buildkit_metadata": metadata(provenance, layers),
    });
    if capture.is_hermetic() {
        metadata["buildkit_hermetic"] = true.into();
    }
    metadata["buildkit_completeness"] = json!({
        "request": tells_request(provenance),
        "resolvedDependencies": capture.is_complete(),
    });
    if provenance.options.reproducible {
        metadata["buildkit_reproducible"] = true.into();
    }
    json!({
        "buildDefinition": definition,
        "runDetails": {
            "builder": {
                "id": provenance.options.builder_id,
                "version": { BUILDER: env!("CARGO_PKG_VERSION") },
            },
            "metadata": metadata,
        },
    })
}

/// Writes version 0.2.
pub(super) fn v02(provenance: &Provenance, layers: &[Descriptor]) -> Value {
    let capture = &provenance.capture;
    let mut value = json!({
        "builder": { "id": provenance.options.builder_id },
        "buildType": BUILD_TYPE_V02,
    });
    if !capture.materials.is_empty() {
        value["materials"] = materials(capture);
    }
    let mut environment: BTreeMap<String, Value> = provenance.invocation.environment.clone();
    let platform = provenance.invocation.platform.clone();
    environment.insert("platform".to_owned(), platform.into());
    value["invocation"] = json!({
        "configSource": config_source(capture, "entryPoint"),
        "parameters": request(capture, provenance.options.mode),
        "environment": environment,
    });
    if provenance.options.mode == Mode::Max {
        value["buildConfig"] = provenance.steps.build_config();
    }
    let run = &provenance.invocation;
    value["metadata"] = json!({
        "buildInvocationID": run.id,
        "buildStartedOn": run.started,
        "buildFinishedOn": run.finished,
        "completeness": {
            "parameters": tells_request(provenance),
            "environment": true,
            "materials": capture.is_complete(),
        },
        "reproducible": provenance.options.reproducible,
        "https://mobyproject.org/buildkit@v1#metadata": metadata(provenance, layers),
    });
    if capture.is_hermetic() {
        value["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] = true.into();
    }
    value
}

fn materials(capture: &Capture) -> Value {
    let one = |material: &super::Material| {
        let (algorithm, hex) = (&material.algorithm, &material.hex);
        json!({ "uri": material.uri, "digest": { algorithm: hex } })
    };
    capture.materials.iter().map(one).collect()
}

fn config_source(capture: &Capture, path_key: &str) -> Value {
    let config = &capture.config;
    let mut shown = Map::new();
    if !config.uri.is_empty() {
        shown.insert("uri".to_owned(), without_credentials(&config.uri).into());
    }
    if let Some((algorithm, hex)) = &config.digest {
        shown.insert("digest".to_owned(), json!({ algorithm: hex }));
    }
    if !config.path.is_empty() {
        shown.insert(path_key.to_owned(), config.path.clone().into());
    }
    Value::Object(shown)
}

fn is_private(arg: &str) -> bool {
    PRIVATE_ARGS.iter().any(|prefix| arg.starts_with(prefix))
}

fn request(capture: &Capture, mode: Mode) -> Value {
    let mut shown = Map::new();
    if !capture.frontend.is_empty() {
        shown.insert("frontend".to_owned(), capture.frontend.clone().into());
    }
    let told = |(key, _): &(&String, &String)| mode == Mode::Max || !is_private(key);
    let args = capture.args.iter().filter(told);
    let args: Map<String, Value> = args
        .map(|(key, value)| (key.clone(), without_credentials(value).into()))
        .collect();
    if !args.is_empty() {
        shown.insert("args".to_owned(), Value::Object(args));
    }
    if mode == Mode::Max {
        for (name, ids) in [("secrets", &capture.secrets), ("ssh", &capture.ssh)] {
            if !ids.is_empty() {
                shown.insert(name.to_owned(), identifiers(ids));
            }
        }
    }
    if !capture.locals.is_empty() {
        let locals = capture.locals.iter().map(|name| json!({ "name": name }));
        shown.insert("locals".to_owned(), locals.collect());
    }
    Value::Object(shown)
}

fn identifiers(ids: &BTreeMap<String, bool>) -> Value {
    let one = |(id, optional): (&String, &bool)| match optional {
        true => json!({ "id": id, "optional": true }),
        false => json!({ "id": id }),
    };
    ids.iter().map(one).collect()
}

/// Says whether nothing that was asked is left out. Ids of secrets do not count, as in BuildKit.
fn tells_request(provenance: &Provenance) -> bool {
    let capture = &provenance.capture;
    let hides = provenance.options.mode == Mode::Min && capture.args.keys().any(|k| is_private(k));
    !capture.frontend.is_empty() && !hides
}

fn metadata(provenance: &Provenance, layers: &[Descriptor]) -> Value {
    let mut shown = Map::new();
    let vcs = &provenance.capture.vcs;
    if !vcs.is_empty() {
        let vcs: BTreeMap<_, _> = vcs
            .iter()
            .map(|(key, value)| (key, without_credentials(value)))
            .collect();
        shown.insert("vcs".to_owned(), json!(vcs));
    }
    if provenance.options.mode == Mode::Max {
        let steps = &provenance.steps;
        let parts = [
            ("source", steps.source()),
            ("layers", steps.layers(&provenance.layers, layers)),
        ];
        for (name, part) in parts {
            if let Some(part) = part {
                shown.insert(name.to_owned(), part);
            }
        }
    }
    Value::Object(shown)
}
