//! `cooper debug`: looks inside.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::args::RegistryArgs;
use super::args::{DumpLlbArgs, ProgressArgs, ProgressMode, value};
use super::context;
use super::failure::Failure;
use super::llb;
use super::program::Program;
use super::registries;
use crate::engine::request::{
    AttestationRequest, BuildContext, BuildRequest, CacheModes, NetworkMode, NoCache, Policies,
    PullPolicy, RunLimits, ShortNames,
};
use crate::engine::{EngineError, ErrorKind};
use crate::llb::{Definition, dump};
use crate::session::Session;

/// `cooper debug dump-llb`.
pub(crate) fn dump_llb(program: &Program, args: &DumpLlbArgs) -> Result<(), Failure> {
    let definition = match &args.llb {
        Some(path) => llb::read(path)?.definition,
        None => translated(program, args)?,
    };
    if args.binary {
        let bytes = definition.to_bytes();
        return program.console.bytes(&bytes).map_err(Failure::stdout);
    }
    let dumped = match args.dot {
        true => dump::dot(&definition),
        false => dump::json(&definition),
    };
    let text = dumped.map_err(|error| {
        let text = format!("the definition cannot be read: {error}");
        EngineError::new(ErrorKind::User, text).with_source(error)
    })?;
    program.console.result(&text).map_err(Failure::stdout)
}

/// Translates a Dockerfile.
fn translated(program: &Program, args: &DumpLlbArgs) -> Result<Definition, Failure> {
    let request = request(program, args)?;
    let mut build_contexts = BTreeMap::new();
    if let BuildContext::Directory(directory) = &request.build_context {
        build_contexts.insert("context".to_owned(), directory.clone());
    }
    let session = Session {
        build_contexts,
        credentials: registries::credentials(&program.environment, &RegistryArgs::default(), [])?,
        ..Session::default()
    };
    let engine = program.engine()?;
    let progress = ProgressArgs {
        progress: Some(ProgressMode::Quiet),
        quiet: false,
    };
    let (result, journal) = program.show(&progress, async |progress, cancel| {
        engine.dump_llb(request, session, &progress, &cancel).await
    })?;
    result.map_err(|error| program.fail(error, &journal))
}

fn request(program: &Program, args: &DumpLlbArgs) -> Result<BuildRequest, Failure> {
    let user = |message| Failure::from(EngineError::new(ErrorKind::User, message));
    let usage = Failure::Usage;
    let (build_context, dockerfile) = match &args.context {
        Some(path) => {
            let file = Some(args.file.as_str());
            let variable = |name: &str| program.environment.text(name);
            context::resolve(&path.to_string_lossy(), file, std::io::stdin(), &variable)
                .map_err(user)?
        }
        None => {
            let dockerfile = context::dockerfile(&args.file, std::io::stdin()).map_err(user)?;
            (BuildContext::Empty, dockerfile)
        }
    };
    let from_environment = |name: &str| program.environment.text(name);
    Ok(BuildRequest {
        build_context,
        dockerfile,
        definition: None,
        cpp_flags: Vec::new(),
        ignore_file: None,
        target: args.target.clone(),
        build_args: value::pairs(&args.build_args, from_environment).map_err(usage)?,
        labels: BTreeMap::new(),
        names: Vec::new(),
        platforms: args.platform.iter().cloned().collect(),
        no_cache: NoCache::Nothing,
        cache_ttl: None,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        load: false,
        short_names: ShortNames::DockerHub,
        pull: PullPolicy::Missing,
        network: NetworkMode::Default,
        extra_hosts: Vec::new(),
        limits: RunLimits::default(),
        named_contexts: BTreeMap::new(),
        outputs: Vec::new(),
        entitlements: Vec::new(),
        cdi_dirs: Vec::new(),
        source_date_epoch_s: None,
        attestations: AttestationRequest::default(),
        cache_modes: CacheModes::default(),
        id: None,
        build_name: String::new(),
        decryption_keys: Arc::default(),
        encryption: None,
        policies: Policies::default(),
    })
}
