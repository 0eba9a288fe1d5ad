//! What a frontend is told when it starts: variables, and what its image says about it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::oci::{ImageConfig, Platform};

/// The session that local sources belong to. There is one for each build, and its name must not
/// change what a definition is.
pub const SESSION: &str = "cooper";
/// Who runs the frontend, in messages of the frontend.
const PRODUCT: &str = "cooper";
/// What runs where an image names nothing.
const DEFAULT_PROGRAM: &str = "/run";
/// Label that says what a frontend is capable of.
const CAPS_LABEL: &str = "moby.buildkit.frontend.caps";
/// Label that takes the network from a frontend.
const NO_NETWORK_LABEL: &str = "moby.buildkit.frontend.network.none";
/// Option that names what a frontend must be capable of.
const CAPS_OPTION: &str = "frontend.caps";
/// What a frontend must be capable of that gets inputs.
const INPUTS_CAP: &str = "moby.buildkit.frontend.inputs";
/// Id of the only worker.
pub(super) const WORKER_ID: &str = "cooper";
/// Where a frontend finds the definition of its own image.
pub const DEFINITION_FILE: &str = "/run/config/buildkit/metadata/frontend.bin";

/// Returns the variables of a frontend: those of its image, and what it is told.
pub fn variables(
    config: &ImageConfig,
    options: &BTreeMap<String, String>,
    platforms: &[Platform],
) -> Vec<String> {
    let mut variables = config.config.env.clone();
    let told = options.iter().enumerate();
    variables.extend(
        told.map(|(number, (key, value))| format!("BUILDKIT_FRONTEND_OPT_{number}={key}={value}")),
    );
    variables.push(format!("BUILDKIT_SESSION_ID={SESSION}"));
    variables.push(format!("BUILDKIT_WORKERS={}", workers(platforms)));
    variables.push(format!("BUILDKIT_EXPORTEDPRODUCT={PRODUCT}"));
    variables
}

fn workers(platforms: &[Platform]) -> serde_json::Value {
    let platforms = platforms.iter().map(|platform| {
        let mut written = serde_json::Map::new();
        written.insert("architecture".to_owned(), json!(platform.architecture));
        written.insert("os".to_owned(), json!(platform.os));
        if !platform.variant.is_empty() {
            written.insert("variant".to_owned(), json!(platform.variant));
        }
        serde_json::Value::Object(written)
    });
    let platforms: Vec<_> = platforms.collect();
    json!([{"ID": WORKER_ID, "Labels": {}, "Platforms": platforms}])
}

/// Returns program and arguments of a frontend.
pub fn arguments(config: &ImageConfig) -> Vec<String> {
    match config.config.entrypoint.as_deref() {
        Some(entrypoint) if !entrypoint.is_empty() => entrypoint.to_vec(),
        _ => vec![DEFAULT_PROGRAM.to_owned()],
    }
}

/// Says whether an image wants no network for its frontend.
pub fn wants_no_network(config: &ImageConfig) -> bool {
    let label = config.config.labels.as_ref();
    let label = label.and_then(|labels| labels.get(NO_NETWORK_LABEL));
    label.is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Returns what a frontend would have to be capable of and is not.
pub fn missing_cap(
    config: &ImageConfig,
    options: &BTreeMap<String, String>,
    has_inputs: bool,
) -> Option<String> {
    let labels = config.config.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(CAPS_LABEL));
    let capable = caps(label.map_or("", String::as_str));
    let mut required = caps(options.get(CAPS_OPTION).map_or("", String::as_str));
    if has_inputs {
        required.insert(INPUTS_CAP);
    }
    let missing = required.difference(&capable).next();
    missing.map(|cap| (*cap).to_owned())
}

fn caps(list: &str) -> BTreeSet<&str> {
    let names = list
        .split(',')
        .map(|cap| cap.split('+').next().unwrap_or(cap));
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> ImageConfig {
        serde_json::from_value(json!({"architecture": "amd64", "os": "linux", "config": json}))
            .unwrap()
    }

    #[test]
    fn a_frontend_is_told_its_options() {
        let config = config(json!({"Env": ["A=1"], "Entrypoint": ["/bin/f", "x"]}));
        let options = [("target", "a=b"), ("filename", "D")];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let told = variables(&config, &options.into(), &[Platform::linux("arm", "v7")]);
        let expected = [
            "A=1",
            "BUILDKIT_FRONTEND_OPT_0=filename=D",
            "BUILDKIT_FRONTEND_OPT_1=target=a=b",
            "BUILDKIT_SESSION_ID=cooper",
            "BUILDKIT_WORKERS=[{\"ID\":\"cooper\",\"Labels\":{},\"Platforms\":\
             [{\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\"}]}]",
            "BUILDKIT_EXPORTEDPRODUCT=cooper",
        ];
        assert_eq!(told, expected);
        assert_eq!(arguments(&config), ["/bin/f", "x"]);
        assert_eq!(arguments(&ImageConfig::default()), ["/run"]);
    }

    #[test]
    fn what_a_frontend_must_be_capable_of_is_checked() {
        let config = config(json!({"Labels": {
            CAPS_LABEL: "a,moby.buildkit.frontend.inputs+forward",
            NO_NETWORK_LABEL: "true",
        }}));
        let asks = |caps: &str| BTreeMap::from([(CAPS_OPTION.to_owned(), caps.to_owned())]);
        assert_eq!(missing_cap(&config, &asks("a+forward"), true), None);
        assert_eq!(
            missing_cap(&config, &asks("a,b"), false).as_deref(),
            Some("b")
        );
        let plain = ImageConfig::default();
        assert_eq!(
            missing_cap(&plain, &asks(""), true).as_deref(),
            Some(INPUTS_CAP)
        );
        assert!(wants_no_network(&config) && !wants_no_network(&plain));
    }
}
