//! `cooper build`: what was typed becomes a request; what came of it is shown and written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::args::{BuildArgs, ProgressMode, value};
use super::call;
use super::context;
use super::env::Environment;
use super::failure::Failure;
use super::outputs::{self, TypedOutputs};
use super::program::Program;
use super::progress::Journal;
use super::progress::warnings;
use super::proxies;
use crate::engine::request::{
    ArchiveDestination, BuildContext, BuildOutcome, BuildRequest, Destination, Entitlement,
    NamedContext, NetworkMode, NoCache, OutputSpec, RunLimits,
};
use crate::engine::{EngineError, ErrorKind};
use crate::oci::Platform;
use crate::progress::Warning;
use crate::session::{Credentials, SecretSpec, Secrets, Session, SshAgents, SshSpec};

/// Name of the main build context in a session.
const MAIN_CONTEXT: &str = "context";
/// Member of the metadata that holds warnings.
const METADATA_WARNINGS: &str = "buildx.build.warnings";

/// Runs a build.
pub(crate) fn run(program: &Program, args: &BuildArgs) -> Result<(), Failure> {
    if let Some(reason) = args.compatibility.refused() {
        return Err(Failure::Usage(reason));
    }
    for option in args.compatibility.ignored() {
        program.console.warn(&format!("{option} is ignored"));
    }
    if let Some(call) = args.call.meant().map_err(Failure::Usage)? {
        return call::run(program, args, call);
    }
    let request = request(program, args)?;
    let session = session(args, &request, &program.environment)?;
    if let Some(path) = &args.iidfile {
        // A stale id must not survive a build that fails.
        remove_stale(path)?;
    }
    let to_stdout = request.outputs.iter().any(writes_to_stdout);
    let engine = program.engine()?;
    let mode = program
        .console
        .mode(&args.progress, &program.environment)
        .map_err(Failure::Usage)?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.build(request, session, progress, cancel).await
    })?;
    if mode != ProgressMode::Rawjson {
        conclude(program, mode, &journal);
    }
    let outcome = result.map_err(|error| program.fail(error, &journal))?;
    let reported = match program.environment.metadata_warnings() {
        true => &journal.warnings[..],
        false => &[],
    };
    write_files(args, &outcome, reported)?;
    match &outcome.image {
        Some(image) if mode == ProgressMode::Quiet && !to_stdout => program
            .console
            .result(&image.id.to_string())
            .map_err(Failure::stdout),
        _ => Ok(()),
    }
}

/// Turns what was typed into what is meant.
pub(crate) fn request(program: &Program, args: &BuildArgs) -> Result<BuildRequest, Failure> {
    let environment = &program.environment;
    let usage = Failure::Usage;
    let (build_context, mut dockerfile) = context::resolve(
        &args.context,
        args.files.first().map(String::as_str),
        std::io::stdin(),
    )
    .map_err(|message| {
        // docker reports these as failures of the build, not of the command line.
        Failure::from(EngineError::new(ErrorKind::User, message))
    })?;
    if args.files.len() > 1 {
        dockerfile = context::several(dockerfile, &args.files[1..]).map_err(usage)?;
    }
    let mut named_contexts = BTreeMap::new();
    for text in &args.build_contexts {
        let (name, context) = context::named(text).map_err(usage)?;
        named_contexts.insert(name, context);
    }
    let typed = TypedOutputs {
        outputs: &args.outputs,
        push: args.push,
        load: args.load,
        stdout_is_terminal: program.console.stdout_is_terminal(),
    };
    let mut outputs = outputs::meant(typed).map_err(usage)?;
    annotate(
        &mut outputs,
        &annotations(&args.annotations).map_err(usage)?,
    );
    check_names(args, &outputs)?;
    let network = network(&args.network).map_err(usage)?;
    let mut entitlements = Vec::new();
    for text in &args.entitlements {
        entitlements.extend(value::entitlement(text).map_err(usage)?);
    }
    if network == NetworkMode::Host {
        // Typing `--network host` is a grant.
        entitlements.push(Entitlement::NetworkHost);
    }
    let from_environment = |name: &str| environment.text(name);
    let mut build_args = value::pairs(&args.build_args, from_environment).map_err(usage)?;
    proxies::add(&mut build_args, environment);
    Ok(BuildRequest {
        build_context,
        dockerfile,
        cpp_flags: args.cpp_flags.clone(),
        ignore_file: args.ignore_file.clone(),
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels: value::pairs(&args.labels, |_| Some(String::new())).map_err(usage)?,
        names: args.names.clone(),
        platforms: platforms(args, environment)?,
        no_cache: no_cache(args),
        pull: args.pull,
        network,
        extra_hosts: value::extra_hosts(&args.extra_hosts).map_err(usage)?,
        limits: limits(args).map_err(usage)?,
        named_contexts,
        outputs,
        entitlements,
        cdi_dirs: args.cdi_dirs.clone(),
        source_date_epoch_s: epoch(args, environment)?,
    })
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
        credentials: credentials(environment)?,
        ..Session::default()
    })
}

/// Reads docker's registry credentials.
pub(crate) fn credentials(environment: &Environment) -> Result<Arc<Credentials>, Failure> {
    let read = Credentials::from_docker_config(environment.docker_config().as_deref());
    read.map(Arc::new).map_err(|error| {
        let message = "cannot read docker's registry credentials";
        EngineError::new(ErrorKind::Config, message)
            .with_source(error)
            .into()
    })
}

/// Writes what BuildKit's clients find in a metadata file: base64 of JSON becomes JSON.
pub(crate) fn metadata(response: &BTreeMap<String, String>) -> Value {
    let decode = |text: &String| {
        let bytes = STANDARD.decode(text).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        (value.is_object() || value.is_array()).then_some(value)
    };
    let pair = |(key, text): (&String, &String)| {
        let value = decode(text).unwrap_or_else(|| Value::String(text.clone()));
        (key.clone(), value)
    };
    Value::Object(response.iter().map(pair).collect())
}

/// Prints warnings and how the cache did.
fn conclude(program: &Program, mode: ProgressMode, journal: &Journal) {
    for text in warnings::others(&journal.warnings) {
        program.console.warn(&text);
    }
    if mode == ProgressMode::Quiet {
        return;
    }
    let listed = warnings::listed(&journal.warnings, program.global.debug);
    if !listed.is_empty() {
        program.console.note(listed.trim_end_matches('\n'));
    }
    if let Some(summary) = journal.cache_summary() {
        program.console.note(&summary);
    }
}

fn write_files(
    args: &BuildArgs,
    outcome: &BuildOutcome,
    warnings: &[Warning],
) -> Result<(), Failure> {
    if let (Some(path), Some(image)) = (&args.iidfile, &outcome.image) {
        let text = image.id.to_string();
        std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))?;
    }
    if let Some(path) = &args.metadata_file {
        let mut value = metadata(&outcome.response);
        if let Some(found) = warnings::json(warnings) {
            value[METADATA_WARNINGS] = found;
        }
        let text = format!("{value:#}\n");
        std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn writes_to_stdout(output: &OutputSpec) -> bool {
    matches!(
        output,
        OutputSpec::Tar {
            destination: Destination::Stream(_)
        } | OutputSpec::Oci {
            destination: ArchiveDestination::Tar(Destination::Stream(_)),
            ..
        } | OutputSpec::Docker {
            destination: ArchiveDestination::Tar(Destination::Stream(_)),
            ..
        }
    )
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
    match (args.no_cache, args.no_cache_stages.is_empty()) {
        (true, _) => NoCache::Everything,
        (false, true) => NoCache::Nothing,
        (false, false) => NoCache::Stages(args.no_cache_stages.clone()),
    }
}

fn platforms(args: &BuildArgs, environment: &Environment) -> Result<Vec<Platform>, Failure> {
    let default = environment.text("DOCKER_DEFAULT_PLATFORM");
    match default.filter(|text| args.platforms.is_empty() && !text.is_empty()) {
        None => Ok(args.platforms.clone()),
        Some(text) => value::platform(&text)
            .map(|platform| vec![platform])
            .map_err(|error| Failure::Usage(format!("DOCKER_DEFAULT_PLATFORM: {error}"))),
    }
}

/// As BuildKit: the build argument wins over the environment.
fn epoch(args: &BuildArgs, environment: &Environment) -> Result<Option<i64>, Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let typed = value::pairs(&args.build_args, |name| environment.text(name));
    let typed = typed.ok().and_then(|mut pairs| pairs.remove(NAME));
    let Some(text) = typed.or_else(|| environment.text(NAME)) else {
        return Ok(None);
    };
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Failure::Usage(format!(
            "invalid {NAME} {text:?}: expected seconds since 1970"
        ))
    })
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

/// Reads `--annotation`: for the manifest, which may be said (`manifest:key=value`).
fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut annotations = BTreeMap::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("invalid annotation {text:?}, expected key=value"))?;
        let key = match key.split_once(':') {
            None => key,
            Some(("manifest", key)) => key,
            Some((kind, _)) => {
                return Err(format!(
                    "annotations of {kind:?} are not supported: expected manifest"
                ));
            }
        };
        annotations.insert(key.to_owned(), value.to_owned());
    }
    Ok(annotations)
}

/// Adds annotations to every output that makes an image; those of the output itself win.
fn annotate(outputs: &mut [OutputSpec], annotations: &BTreeMap<String, String>) {
    for output in outputs {
        if let Some(options) = output.image_options_mut() {
            for (key, value) in annotations {
                let entry = options.annotations.entry(key.clone());
                entry.or_insert_with(|| value.clone());
            }
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
        assert_eq!(options.annotations["k"], "v");
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
                "",
                &[("SOURCE_DATE_EPOCH", "today")],
                "invalid SOURCE_DATE_EPOCH \"today\": expected seconds since 1970",
            ),
        ] {
            let error = typed(words, variables).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }

    #[test]
    fn the_metadata_file_holds_documents_as_documents() {
        let descriptor = r#"{"digest":"sha256:00","size":1}"#;
        let response = BTreeMap::from([
            (
                "containerimage.descriptor".to_owned(),
                STANDARD.encode(descriptor),
            ),
            ("containerimage.digest".to_owned(), "sha256:00".to_owned()),
            (
                "image.name".to_owned(),
                "docker.io/library/a:latest".to_owned(),
            ),
        ]);
        let metadata = metadata(&response);
        assert_eq!(metadata["containerimage.descriptor"]["size"], 1);
        assert_eq!(metadata["containerimage.digest"], "sha256:00");
        assert_eq!(metadata["image.name"], "docker.io/library/a:latest");
    }

    #[test]
    fn annotations_are_for_manifests() {
        let read = |text: &str| annotations(&[text.to_owned()]);
        let expected = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        assert_eq!(read("k=v"), Ok(expected.clone()));
        assert_eq!(read("manifest:k=v"), Ok(expected));
        assert!(read("index:k=v").is_err());
        assert!(read("k").is_err());
    }
}
