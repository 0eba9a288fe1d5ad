//! Facts for provenance that values alone tell: names of images, layers of steps, options.

use std::collections::BTreeMap;

use super::Made;
use crate::attestation::provenance::{Material, StepLayers};
use crate::attestation::{PackageUrl, without_credentials};
use crate::engine::request::{BuildRequest, HostAddress, NamedContext, NetworkMode, NoCache};
use crate::frontend::{ContextSource, Lowered};
use crate::llb::{GitUrl, Loaded, Vertex, pb};
use crate::oci::Reference;
use crate::worker::keys;

/// Names an image as the Dockerfile does: by its tag, where it has no digest there.
pub(super) fn image_material(
    image: &Reference,
    vertex: &Vertex,
    lowered: &Lowered,
) -> Option<Material> {
    let digest = image.digest()?;
    let base = lowered.bases.iter().find(|base| base.reference == *image);
    let has_digest = base.is_some_and(|base| base.written.contains('@'));
    let text = image.to_string();
    let tagged = text.split('@').next().unwrap_or_default();
    let named = match has_digest {
        true => image.clone(),
        false => tagged.parse().unwrap_or_else(|_| image.clone()),
    };
    let url = PackageUrl::of_image("docker", &named, Some(&vertex.platform));
    Some(Material::new(&url.to_string(), digest))
}

pub(super) fn digest_of(material: &Material) -> (String, String) {
    (material.algorithm.clone(), material.hex.clone())
}

/// Returns the URL by which the source of the main build context is known.
pub(super) fn context_remote(context: &ContextSource) -> Option<String> {
    match context {
        ContextSource::Http { url, .. } => Some(url.clone()),
        ContextSource::Git(url) => {
            let parsed = GitUrl::parse_build_context(url)?;
            Some(parsed.ok()?.remote)
        }
        _ => None,
    }
}

/// Finds out which layers the steps below the result made: one each on those of the base image.
pub(super) fn step_layers(loaded: &Loaded, made: &Made<'_>) -> StepLayers {
    let Some(Some(result)) = loaded.results.first() else {
        return StepLayers::new();
    };
    let mut chain = keys::base_outputs(&loaded.vertices, result);
    chain.reverse();
    let base = made.lowered.base_image.as_ref();
    let base = base.map_or(0, |base| base.rootfs.diff_ids.len());
    let is_source = |vertex: &Vertex| matches!(vertex.op, pb::op::Op::Source(_));
    let steps = chain
        .iter()
        .filter(|(_, vertex)| !is_source(vertex))
        .count();
    let mut layers = StepLayers::new();
    let is_linear = base + steps == made.layers.len();
    let mut count = base;
    for (output, vertex) in chain {
        count += usize::from(!is_source(vertex));
        if is_linear || is_source(vertex) {
            layers.insert(output.clone(), count);
        }
    }
    layers.insert(result.clone(), made.layers.len());
    layers
}

/// Writes the options of a build as a client of BuildKit's sends them.
pub(in crate::engine) fn arguments(
    request: &BuildRequest,
    is_multi_platform: bool,
) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    let mut add = |key: &str, value: String| args.insert(key.to_owned(), value);
    for (name, value) in &request.build_args {
        add(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &request.labels {
        add(&format!("label:{name}"), value.clone());
    }
    for (name, context) in &request.named_contexts {
        add(&format!("context:{name}"), context_text(name, context));
    }
    if let Some(target) = &request.target {
        add("target", target.clone());
    }
    match &request.no_cache {
        NoCache::Nothing => {}
        NoCache::Everything => {
            add("no-cache", String::new());
        }
        NoCache::Stages(stages) => {
            add("no-cache", stages.join(","));
        }
    }
    match request.network {
        NetworkMode::Default => {}
        NetworkMode::None => {
            add("force-network-mode", "none".to_owned());
        }
        NetworkMode::Host => {
            add("force-network-mode", "host".to_owned());
        }
    }
    if is_multi_platform {
        add("multi-platform", "true".to_owned());
    }
    let hosts = request.extra_hosts.iter().map(|host| match host.address {
        HostAddress::Ip(ip) => format!("{}={ip}", host.name),
        HostAddress::Gateway => format!("{}=host-gateway", host.name),
    });
    let limits = &request.limits;
    let ulimits = limits.ulimits.iter();
    let ulimits = ulimits.map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    let lists = [
        ("add-hosts", hosts.collect::<Vec<_>>()),
        ("ulimit", ulimits.collect()),
        (
            "shm-size",
            limits.shm_size_bytes.iter().map(u64::to_string).collect(),
        ),
    ];
    for (key, values) in lists {
        if !values.is_empty() {
            add(key, values.join(","));
        }
    }
    args
}

fn context_text(name: &str, context: &NamedContext) -> String {
    match context {
        NamedContext::Directory(_) => format!("local:{name}"),
        NamedContext::Image(image) => format!("docker-image://{image}"),
        NamedContext::OciLayout { .. } => format!("oci-layout://{name}"),
        NamedContext::File(_) => format!("file:{name}"),
        NamedContext::Remote(url) => without_credentials(url),
        NamedContext::Object(object) => object.url().to_owned(),
        NamedContext::Stage(stage) => format!("target:{stage}"),
    }
}
