//! What was typed after `cooper build` becomes a request, and what the build is lent.

use std::collections::BTreeMap;
use std::path::Path;

use super::args::BuildArgs;
use super::args::value::{self, LOCAL_DELETE};
use super::attest;
use super::context;
use super::encryption;
use super::env::Environment;
use super::failure::Failure;
use super::llb;
use super::outputs::{self, TypedOutputs};
use super::policy;
use super::program::Program;
use super::proxies;
use super::registries;
use super::verify;
use crate::engine::request::{
    Annotations, BuildContext, BuildRequest, DockerfileSource, Entitlement, LayerTimes,
    NamedContext, NetworkMode, NoCache, OutputSpec, Place, RunLimits, ShortNames,
};
use crate::engine::{EngineError, ErrorKind};
use crate::oci::{Platform, Reference};
use crate::session::{SecretSpec, Secrets, Session, SshAgents, SshSpec};

/// Name of the main build context in a session.
const MAIN_CONTEXT: &str = "context";

/// Turns what was typed into what is meant.
pub(crate) fn request(program: &Program, args: &BuildArgs) -> Result<BuildRequest, Failure> {
    let environment = &program.environment;
    let usage = Failure::Usage;
    let from_environment = |name: &str| environment.text(name);
    let definition = llb::definition(args)?;
    let resolved = match (&definition, args.context.as_str()) {
        (Some(_), "") => Ok((BuildContext::Empty, DockerfileSource::Default)),
        _ => context::resolve(
            &args.context,
            args.files.first().map(String::as_str),
            std::io::stdin(),
            &from_environment,
        ),
    };
    let (build_context, mut dockerfile) = resolved.map_err(|message| {
        // docker reports these as failures of the build, not of the command line.
        Failure::from(EngineError::new(ErrorKind::User, message))
    })?;
    if args.files.len() > 1 {
        dockerfile = context::several(dockerfile, &args.files[1..]).map_err(usage)?;
    }
    let named_contexts = match args.llb {
        Some(_) => llb::named_contexts(&args.build_contexts).map_err(usage)?,
        None => named_contexts(args, &from_environment)?,
    };
    let outputs = meant_outputs(program, args)?;
    let network = network(&args.network).map_err(usage)?;
    let entitlements = entitlements(args, network).map_err(usage)?;
    let mut build_args = value::pairs(&args.build_args, from_environment).map_err(usage)?;
    proxies::add(&mut build_args, environment);
    let source_date_epoch_s = epoch(args, environment, &mut build_args);
    let attestations = attest::meant(program, &args.attest, &build_args).map_err(usage)?;
    Ok(BuildRequest {
        build_context,
        dockerfile,
        definition,
        cpp_flags: args.cpp_flags.clone(),
        ignore_file: args.ignore_file.clone(),
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels: value::pairs(&args.labels, |_| Some(String::new())).map_err(usage)?,
        names: args.names.clone(),
        platforms: platforms(args, environment)?,
        no_cache: no_cache(args),
        cache_ttl: args.caches.ttl(),
        cache_from: args.caches.imports(&from_environment).map_err(usage)?,
        cache_to: args.caches.exports(&from_environment).map_err(usage)?,
        load: args.shape.load().is_some(),
        short_names: short_names(args, environment)?,
        pull: args.pull,
        network,
        extra_hosts: value::extra_hosts(&args.extra_hosts).map_err(usage)?,
        limits: limits(args).map_err(usage)?,
        named_contexts,
        outputs,
        entitlements,
        cdi_dirs: args.cdi_dirs.clone(),
        source_date_epoch_s,
        attestations,
        cache_modes: args.explained.cache_modes.meant(),
        id: None,
        build_name: environment.text("BUILDKIT_BUILD_NAME").unwrap_or_default(),
        decryption_keys: encryption::decryption(&args.decryption)?,
        encryption: encryption::encryption(&args.encryption)?,
        policies: policy::meant(&args.policy, environment)?,
    })
}

/// Says what names of images mean that name no registry: who names a file of aliases, or sets
/// the variable, wants podman's rules.
fn short_names(args: &BuildArgs, environment: &Environment) -> Result<ShortNames, Failure> {
    let alias_file = args.short_name_aliases.clone();
    match environment.short_names().as_deref() {
        _ if alias_file.is_some() => Ok(ShortNames::Configured { alias_file }),
        Some("registries.conf") => Ok(ShortNames::Configured { alias_file: None }),
        None | Some("" | "docker.io") => Ok(ShortNames::DockerHub),
        Some(other) => Err(Failure::Usage(format!(
            "COOPER_SHORT_NAMES={other}: expected docker.io or registries.conf"
        ))),
    }
}

/// Reads the build contexts that have names.
fn named_contexts(
    args: &BuildArgs,
    variable: context::Variable<'_>,
) -> Result<BTreeMap<String, NamedContext>, Failure> {
    let named = args.build_contexts.iter();
    let named = named.map(|text| context::named(text, variable));
    named.collect::<Result<_, _>>().map_err(Failure::Usage)
}

/// Turns what was typed about outputs into what is meant.
fn meant_outputs(program: &Program, args: &BuildArgs) -> Result<Vec<OutputSpec>, Failure> {
    let environment = &program.environment;
    let typed = TypedOutputs {
        outputs: &args.outputs,
        push: args.push,
        load: args.shape.load(),
        engines: &environment.engines(),
        stdout_is_terminal: program.console.stdout_is_terminal(),
    };
    let mut outputs = outputs::meant(typed).map_err(Failure::Usage)?;
    annotate(
        &mut outputs,
        &annotations(&args.annotations).map_err(Failure::Usage)?,
    );
    set_layer_times(args, &mut outputs);
    join(args, environment, &mut outputs)?;
    shape_images(args, &mut outputs);
    check_deletions(args, &outputs)?;
    check_names(args, &outputs)?;
    verify::check(args, &outputs)?;
    Ok(outputs)
}

/// Reads the rights that are granted.
fn entitlements(args: &BuildArgs, network: NetworkMode) -> Result<Vec<Entitlement>, String> {
    let mut entitlements = Vec::new();
    for text in &args.entitlements {
        entitlements.extend(value::entitlement(text)?);
    }
    if network == NetworkMode::Host {
        // Typing `--network host` is a grant.
        entitlements.push(Entitlement::NetworkHost);
    }
    Ok(entitlements)
}

/// Collects what the client lends to the build.
pub(crate) fn session(
    args: &BuildArgs,
    request: &BuildRequest,
    environment: &Environment,
) -> Result<Session, Failure> {
    let lookup = |name: &str| environment.text(name);
    let secrets: Result<Vec<SecretSpec>, _> = args.secrets.iter().map(|s| s.parse()).collect();
    let ssh: Result<Vec<SshSpec>, _> = args.ssh.iter().map(|s| s.parse()).collect();
    let usage = |error: crate::session::Error| Failure::Usage(error.to_string());
    let lent = |error: crate::session::Error| {
        let message = "cannot lend to the build what was asked for";
        Failure::from(EngineError::new(ErrorKind::User, message).with_source(error))
    };
    let mut build_contexts = BTreeMap::new();
    if let BuildContext::Directory(directory) = &request.build_context {
        build_contexts.insert(MAIN_CONTEXT.to_owned(), directory.clone());
    }
    for (name, context) in &request.named_contexts {
        if let NamedContext::Directory(directory) = context {
            build_contexts.insert(name.clone(), directory.clone());
        }
    }
    Ok(Session {
        build_contexts,
        secrets: Secrets::load(&secrets.map_err(usage)?, &lookup).map_err(lent)?,
        ssh: SshAgents::load(&ssh.map_err(usage)?, &lookup).map_err(lent)?,
        credentials: registries::credentials(environment, &args.registry, pushed(request))?,
        ..Session::default()
    })
}

/// Lists the names that are pushed.
fn pushed(request: &BuildRequest) -> Vec<&Reference> {
    let outputs = request.outputs.iter();
    let pushing = outputs.filter_map(|output| match output {
        OutputSpec::Image {
            options,
            push: Some(_),
            ..
        } => Some(options.names.iter().chain(&request.names)),
        _ => None,
    });
    pushing.flatten().collect()
}

/// Has every push join what other jobs push.
fn join(
    args: &BuildArgs,
    environment: &Environment,
    outputs: &mut [OutputSpec],
) -> Result<(), Failure> {
    let Some(options) = registries::join(environment, &args.join) else {
        return Ok(());
    };
    let mut joined = false;
    for output in outputs {
        if let OutputSpec::Image {
            push: Some(push), ..
        } = output
        {
            push.join = Some(options.clone());
            joined = true;
        }
    }
    match joined {
        true => Ok(()),
        false => Err(Failure::Usage("--join needs --push".to_owned())),
    }
}

/// A push needs somewhere to go; better to hear of it before the build than after.
fn check_names(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<(), Failure> {
    let nameless = |output: &&OutputSpec| match output {
        OutputSpec::Image { options, push, .. } => push.is_some() && options.names.is_empty(),
        _ => false,
    };
    if args.names.is_empty() && outputs.iter().any(|output| nameless(&output)) {
        let message = "tag is needed when pushing to registry".to_owned();
        return Err(Failure::Usage(message));
    }
    Ok(())
}

fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "" | "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(format!(
            "network mode {other:?} is not supported: expected default, none or host"
        )),
    }
}

fn no_cache(args: &BuildArgs) -> NoCache {
    let everything = args.no_cache || args.caches.takes_nothing();
    match (everything, args.no_cache_stages.is_empty()) {
        (true, _) => NoCache::Everything,
        (false, true) => NoCache::Nothing,
        (false, false) => NoCache::Stages(args.no_cache_stages.clone()),
    }
}

fn platforms(args: &BuildArgs, environment: &Environment) -> Result<Vec<Platform>, Failure> {
    let default = environment.text("DOCKER_DEFAULT_PLATFORM");
    match default.filter(|text| args.platforms.is_empty() && !text.is_empty()) {
        None => Ok(args.platforms.clone()),
        Some(text) => {
            let platforms: Result<_, String> = text.split(',').map(value::platform).collect();
            platforms.map_err(|error| Failure::Usage(format!("DOCKER_DEFAULT_PLATFORM: {error}")))
        }
    }
}

/// Reads the epoch where it is no build argument, which wins. A variable that is no number names
/// a source, which only the Dockerfile knows: it becomes an argument.
fn epoch(
    args: &BuildArgs,
    environment: &Environment,
    build_args: &mut BTreeMap<String, String>,
) -> Option<i64> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let reproduce = &args.reproduce;
    if let Some(seconds) = reproduce.timestamp.or(reproduce.source_date_epoch) {
        return Some(seconds);
    }
    if build_args.contains_key(NAME) {
        return None;
    }
    let text = environment.text(NAME).filter(|text| !text.is_empty())?;
    let seconds = text.parse().ok();
    if seconds.is_none() {
        build_args.insert(NAME.to_owned(), text);
    }
    seconds
}

/// Applies the options about layers and the base image to every output that has them.
fn shape_images(args: &BuildArgs, outputs: &mut [OutputSpec]) {
    for options in outputs.iter_mut().filter_map(OutputSpec::image_options_mut) {
        options.squash = args.shape.squash();
        options.annotates_base = args.shape.annotate_base;
    }
}

fn check_deletions(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<(), Failure> {
    let may_delete = args.entitlements.iter().any(|right| right == LOCAL_DELETE);
    outputs::check_deletions(outputs, may_delete, Path::new(".")).map_err(Failure::Usage)
}

/// Applies `--timestamp` and `--rewrite-timestamp` to every output that has layers.
fn set_layer_times(args: &BuildArgs, outputs: &mut [OutputSpec]) {
    let times = match (&args.reproduce.timestamp, args.reproduce.rewrite_timestamp) {
        (Some(_), _) => LayerTimes::Epoch,
        (None, true) => LayerTimes::Rewritten,
        (None, false) => return,
    };
    for options in outputs.iter_mut().filter_map(OutputSpec::image_options_mut) {
        options.layer_times = times;
    }
}

fn limits(args: &BuildArgs) -> Result<RunLimits, String> {
    let resources = &args.resources;
    let mut limits = RunLimits {
        shm_size_bytes: args.shm_size,
        ulimits: args.ulimits.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        memory_bytes: resources.memory,
        memory_swap_bytes: resources.memory_swap,
        cpu_shares: resources.cpu_shares,
        cpu_period_us: resources.cpu_period,
        cpu_quota_us: resources.cpu_quota,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
    };
    value::set_resources(&mut limits, &args.limits)?;
    Ok(limits)
}

/// Reads `--annotation`: `[place,…][[platform]:]key=value`, for the manifest by default.
fn annotations(texts: &[String]) -> Result<Annotations, String> {
    let mut annotations = Annotations::default();
    for text in texts {
        let refused = |reason: &str| format!("invalid annotation {text:?}: {reason}");
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| refused("expected key=value"))?;
        let (places, key) = match key.split_once(':') {
            Some((places, key)) => (places, key),
            None => ("", key),
        };
        if key.is_empty() {
            return Err(refused("the key is empty"));
        }
        for place in places.split(',') {
            let (place, platform) = match place.split_once('[') {
                Some((place, platform)) => {
                    let platform = platform.strip_suffix(']').unwrap_or(platform);
                    (place, Some(value::platform(platform)?))
                }
                None => (place, None),
            };
            let place = Place::parse(place).ok_or_else(|| {
                refused(
                    "expected manifest, index, manifest-descriptor or index-descriptor \
                     before the colon",
                )
            })?;
            if !annotations.add(place, platform, (key, value), true) {
                return Err(refused("an index is of no single platform"));
            }
        }
    }
    Ok(annotations)
}

/// Adds annotations to every output that makes an image; those of the output itself win.
fn annotate(outputs: &mut [OutputSpec], annotations: &Annotations) {
    for output in outputs {
        if let Some(options) = output.image_options_mut() {
            options.annotations.fill_from(annotations);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::BuildCli;
    use crate::cli::console::Console;

    /// Reads the words after `build`, with `/` as the build context.
    fn typed(words: &str, variables: &[(&str, &str)]) -> Result<BuildRequest, String> {
        let words = ["build"]
            .into_iter()
            .chain(words.split_whitespace())
            .chain(["/"]);
        let cli = BuildCli::try_parse_from(words).map_err(|error| error.to_string())?;
        let environment = Environment::of(variables);
        let program = Program {
            console: Console::of_process(&environment),
            global: cli.global,
            environment,
        };
        request(&program, &cli.build).map_err(|failure| match failure {
            Failure::Usage(text) => text,
            failure => failure
                .render(None)
                .map_or_else(String::new, |shown| shown.line),
        })
    }

    #[test]
    fn what_is_typed_is_what_is_meant() {
        let request = typed(
            "-t app --build-arg A --build-arg B=2 --build-arg C --label l --no-cache-filter a,b \
             --network host --add-host db:10.0.0.1 --shm-size 1g -m 512m --memory-swap -1 \
             --ulimit nofile=1:2 --target final -o type=oci,dest=x.tar --annotation k=v \
             --platform linux/arm64",
            &[("A", "from env"), ("SOURCE_DATE_EPOCH", "7")],
        )
        .unwrap();
        assert_eq!(request.names[0].familiar(), "app:latest");
        let arg = |name: &str| request.build_args.get(name).map(String::as_str);
        assert_eq!(
            [arg("A"), arg("B"), arg("C")],
            [Some("from env"), Some("2"), None]
        );
        assert_eq!(request.labels["l"], "");
        let stages = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(request.no_cache, NoCache::Stages(stages));
        assert_eq!(request.network, NetworkMode::Host);
        assert_eq!(request.entitlements, [Entitlement::NetworkHost]);
        assert_eq!(request.extra_hosts.len(), 1);
        assert_eq!(request.limits.shm_size_bytes, Some(1 << 30));
        assert_eq!(request.limits.memory_bytes, Some(512 << 20));
        assert_eq!(request.limits.memory_swap_bytes, Some(-1));
        assert_eq!(request.target.as_deref(), Some("final"));
        assert_eq!(request.source_date_epoch_s, Some(7));
        assert_eq!(request.platforms[0].to_string(), "linux/arm64");
        let options = request.outputs[0].image_options().unwrap();
        let platform = Platform::linux("arm64", "");
        assert_eq!(options.annotations.of(Place::Manifest, &platform)["k"], "v");
    }

    #[test]
    fn times_are_given_in_several_ways() {
        let environment = [("SOURCE_DATE_EPOCH", "7")];
        for (words, seconds, times) in [
            ("", Some(7), LayerTimes::Kept),
            ("--source-date-epoch 8", Some(8), LayerTimes::Kept),
            ("--rewrite-timestamp", Some(7), LayerTimes::Rewritten),
            ("--timestamp 0", Some(0), LayerTimes::Epoch),
            // Read with the Dockerfile: it may be the name of a stage or `context`.
            (
                "--build-arg SOURCE_DATE_EPOCH=context",
                None,
                LayerTimes::Kept,
            ),
        ] {
            let request = typed(words, &environment).unwrap();
            assert_eq!(request.source_date_epoch_s, seconds, "{words}");
            let options = request.outputs[0].image_options().unwrap();
            assert_eq!(options.layer_times, times, "{words}");
        }
        let request = typed("", &[("SOURCE_DATE_EPOCH", "sources")]).unwrap();
        assert_eq!(request.build_args["SOURCE_DATE_EPOCH"], "sources");
        let request = typed("", &[("DOCKER_DEFAULT_PLATFORM", "linux/s390x,local")]).unwrap();
        assert_eq!(request.platforms.len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_runs() {
        for (words, variables, expected) in [
            ("--push", &[][..], "tag is needed when pushing to registry"),
            (
                "--network bridge",
                &[],
                "network mode \"bridge\" is not supported: expected default, none or host",
            ),
            (
                "--build-arg =x",
                &[],
                "invalid key-value pair \"=x\": empty key",
            ),
            ("-t A", &[], "must be lower case"),
            ("--platform a/b/c/d", &[], "invalid platform"),
            ("--shm-size big", &[], "invalid size"),
            ("--add-host x", &[], "expected host:ip"),
            (
                "--allow everything",
                &[],
                "unknown entitlement \"everything\"",
            ),
            ("--resource disk=1", &[], "unknown resource \"disk\""),
            ("--bogus", &[], "unexpected argument '--bogus'"),
            (
                "--timestamp 1 --rewrite-timestamp",
                &[],
                "cannot be used with",
            ),
            (
                "",
                &[("DOCKER_DEFAULT_PLATFORM", "linux/amd64,all")],
                "DOCKER_DEFAULT_PLATFORM: invalid platform \"all\"",
            ),
        ] {
            let error = typed(words, variables).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn annotations_stand_where_they_are_said_to() {
        let read = |text: &str| annotations(&[text.to_owned()]);
        let platform = Platform::linux("arm64", "");
        for text in [
            "k=v",
            "manifest:k=v",
            "manifest,index:k=v",
            "manifest[arm64]:k=v",
        ] {
            let read = read(text).unwrap();
            assert_eq!(read.of(Place::Manifest, &platform)["k"], "v", "{text}");
        }
        assert_eq!(
            read("index:k=v=w").unwrap().of_index(Place::Index)["k"],
            "v=w"
        );
        for bad in [
            "layer:k=v",
            "k",
            "=v",
            "index[arm64]:k=v",
            "manifest[a b]:k=v",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
