//! What was asked, in the words of the modules that do it.

use super::error::EngineError;
use super::inputs::Inputs;
use super::request::{BuildRequest, CachePlace, HostAddress, NetworkMode, NoCache, PullPolicy};
use crate::executor::Resources;
use crate::exporter::rebase::{BASE_DIGEST, BASE_NAME};
use crate::exporter::{OutputSpec, Place};
use crate::frontend::{self, FrontendOptions, Network};
use crate::oci::{Platform, Reference};

/// Returns what the frontend needs to know; of several platforms it is told the first.
pub(super) fn frontend_options(
    request: &BuildRequest,
    inputs: &Inputs,
) -> Result<FrontendOptions, EngineError> {
    let add_hosts = request.extra_hosts.iter().map(|host| {
        let address = match host.address {
            HostAddress::Ip(ip) => frontend::options::HostAddress::Ip(ip),
            HostAddress::Gateway => frontend::options::HostAddress::Gateway,
        };
        (host.name.clone(), address)
    });
    let limits = &request.limits;
    Ok(FrontendOptions {
        filename: inputs.filename.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platform: request.platforms.first().cloned(),
        no_cache: match &request.no_cache {
            NoCache::Nothing => frontend::NoCache::Nothing,
            NoCache::Everything => frontend::NoCache::All,
            NoCache::Stages(names) => frontend::NoCache::Stages(names.clone()),
        },
        resolve_mode: match request.pull {
            PullPolicy::Missing => frontend::ResolveMode::Default,
            PullPolicy::Always | PullPolicy::Newer => frontend::ResolveMode::Pull,
            PullPolicy::Never => frontend::ResolveMode::Local,
        },
        network: match request.network {
            NetworkMode::Default => Network::Sandbox,
            NetworkMode::None => Network::None,
            NetworkMode::Host => Network::Host,
        },
        add_hosts: add_hosts.collect(),
        shm_size_bytes: limits.shm_size_bytes,
        ulimits: limits
            .ulimits
            .iter()
            .map(|limit| frontend::options::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        cgroup_parent: limits.cgroup_parent.clone().unwrap_or_default(),
        context: inputs.context.clone(),
        contexts: inputs.contexts.clone(),
        source_date_epoch: request.source_date_epoch_s,
        named_epoch: inputs.epoch_s,
        scans: request.attestations.sbom.is_some(),
        ..FrontendOptions::default()
    })
}

/// Returns the limits of the processes of steps.
pub(super) fn resources(request: &BuildRequest) -> Resources {
    let limits = &request.limits;
    let positive = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).unwrap_or(0);
    Resources {
        memory_bytes: positive(limits.memory_bytes),
        memory_swap_bytes: positive(limits.memory_swap_bytes),
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        cpu_quota_us: positive(limits.cpu_quota_us),
        cpu_period_us: limits.cpu_period_us.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        ..Resources::default()
    }
}

/// Says in the manifest for a platform what it was built on, where that is wanted.
pub(super) fn annotate_base(
    outputs: &mut [OutputSpec],
    platform: &Platform,
    base: Option<&Reference>,
) {
    let Some((name, digest)) = base.and_then(|base| Some((base, base.digest()?))) else {
        return;
    };
    let full = name.familiar();
    let name = full.split_once('@').map_or(full.as_str(), |(name, _)| name);
    let digest = digest.to_string();
    let options = outputs.iter_mut().filter_map(OutputSpec::image_options_mut);
    // Docker's manifests have no annotations.
    for options in options.filter(|options| options.annotates_base && options.oci_media_types) {
        for pair in [(BASE_NAME, name), (BASE_DIGEST, digest.as_str())] {
            let place = (Place::Manifest, Some(platform.clone()));
            options.annotations.add(place.0, place.1, pair, false);
        }
    }
}

/// Returns the registries that an output allows to be asked without checks.
pub(super) fn insecure_registries(request: &BuildRequest) -> Vec<String> {
    let insecure = |output: &&OutputSpec| matches!(output, OutputSpec::Image { push: Some(push), .. } if push.insecure);
    let outputs = request.outputs.iter().filter(insecure);
    let own = outputs
        .clone()
        .filter_map(OutputSpec::image_options)
        .flat_map(|o| &o.names);
    let shared = request
        .names
        .iter()
        .filter(|_| outputs.clone().next().is_some());
    let caches = request.cache_from.iter().map(|import| &import.place);
    let caches = caches.chain(request.cache_to.iter().map(|export| &export.place));
    let names = own.chain(shared).map(|name| name.domain().to_owned());
    names.chain(caches.filter_map(insecure_registry)).collect()
}

/// Returns the registry of a cache, if it is said to be insecure.
pub(super) fn insecure_registry(place: &CachePlace) -> Option<String> {
    match place {
        CachePlace::Registry {
            reference,
            insecure: true,
        } => Some(reference.domain().to_owned()),
        _ => None,
    }
}
