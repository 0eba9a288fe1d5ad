//! Build arguments: what `ARG` before the first `FROM` gives, and the names that have a meaning
//! of their own.
//!
//! | name | value |
//! |---|---|
//! | `BUILDPLATFORM`, `BUILDOS`, `BUILDARCH`, `BUILDVARIANT`, `BUILDOSVERSION` | where processes run |
//! | `TARGETPLATFORM`, `TARGETOS`, … | what the image is for |
//! | `TARGETSTAGE` | name of the stage that is built |
//! | `HTTP_PROXY`, `HTTPS_PROXY`, `FTP_PROXY`, `NO_PROXY`, `ALL_PROXY` and in lower case | given to processes, outside cache key and history |
//! | `BUILDKIT_…` | settings of the build |
//! | `SOURCE_DATE_EPOCH` | time of everything new; an environment variable too where it is declared |
//!
//! All but the settings are in scope of `FROM`; a stage sees them after `ARG NAME`.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::Diagnostic;
use super::dockerfile::instruction::ArgInstruction;
use super::dockerfile::{Dockerfile, Word};
use super::environment::Environment;
use super::epoch::{self, EPOCH, Wanted};
use super::error::FrontendError;
use super::expand::{Expander, Missing};
use super::lowered::Remark;
use super::options::FrontendOptions;
use super::suggest;
use crate::llb::pb;

/// Arguments that are settings of the build, not variables of processes.
const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Variables that `FROM` may use, and the given arguments.
#[derive(Debug, Clone)]
pub(super) struct BuildArgs {
    /// Everything in scope of `FROM`.
    pub(super) global: Environment,
    /// Names that an `ARG` before the first `FROM` declares, with or without a value.
    pub(super) declared: BTreeSet<String>,
    /// The arguments given by the user.
    pub(super) given: BTreeMap<String, String>,
    /// Time of everything new.
    pub(super) epoch: Option<i64>,
}

impl BuildArgs {
    /// Evaluates the global arguments.
    pub(super) fn new(file: &Dockerfile, options: &FrontendOptions) -> Result<Self, FrontendError> {
        let mut args = Self::without_epoch(file, options)?;
        args.set_epoch(file, options)?;
        Ok(args)
    }

    /// Evaluates the global arguments; `SOURCE_DATE_EPOCH` stays as it is written.
    pub(super) fn without_epoch(
        file: &Dockerfile,
        options: &FrontendOptions,
    ) -> Result<Self, FrontendError> {
        let mut args = Self {
            global: predefined(file, options),
            declared: BTreeSet::new(),
            given: options.build_args.clone(),
            epoch: None,
        };
        for (_, instruction) in file.global_args() {
            for declaration in &instruction.args {
                let value = match (args.given.get(&declaration.name.raw), &declaration.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(word)) => Some(expand(word, file.escape(), &args.global)?),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    args.global.set(&declaration.name.raw, &value);
                }
                args.declared.insert(declaration.name.raw.clone());
            }
        }
        Ok(args)
    }

    /// Decides the time of everything new.
    fn set_epoch(
        &mut self,
        file: &Dockerfile,
        options: &FrontendOptions,
    ) -> Result<(), FrontendError> {
        let seconds = match epoch::wanted(self, file, options)? {
            Wanted::Nothing => None,
            Wanted::Seconds(seconds) => Some(seconds),
            Wanted::TimeOf(_) => options.named_epoch,
        };
        let Some(seconds) = seconds else {
            self.given.retain(|name, _| name != EPOCH);
            self.global.remove(EPOCH);
            return Ok(());
        };
        self.epoch = Some(seconds);
        // What stages see is the number.
        let text = seconds.to_string();
        if self.global.get(EPOCH).is_some() {
            self.global.set(EPOCH, &text);
        }
        if self.given.contains_key(EPOCH) || options.source_date_epoch == Some(seconds) {
            self.given.insert(EPOCH.to_owned(), text);
        }
        Ok(())
    }

    /// Returns the value an `ARG` without a default has in a stage.
    pub(super) fn inherited(&self, name: &str) -> Option<&str> {
        self.given
            .get(name)
            .map(String::as_str)
            .or_else(|| self.global.get(name))
    }

    /// Returns whether a declared argument becomes a variable of processes.
    pub(super) fn is_variable(name: &str) -> bool {
        !NOT_IN_ENVIRONMENT.contains(&name)
    }

    /// Returns the proxies, in either case of their names; lower case wins.
    pub(super) fn proxies(&self) -> Option<pb::ProxyEnv> {
        let mut proxies = pb::ProxyEnv::default();
        let mut found = false;
        for (name, value) in &self.given {
            let slot = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxies.http_proxy,
                "https_proxy" => &mut proxies.https_proxy,
                "ftp_proxy" => &mut proxies.ftp_proxy,
                "no_proxy" => &mut proxies.no_proxy,
                "all_proxy" => &mut proxies.all_proxy,
                _ => continue,
            };
            slot.clone_from(value);
            found = true;
        }
        found.then_some(proxies)
    }

    /// Warns of given arguments that nothing declares and that have no meaning of their own.
    pub(super) fn unused(&self, file: &Dockerfile) -> Option<Remark> {
        let stages = file.stages.iter().flat_map(|stage| &stage.instructions);
        let declarations: Vec<&ArgInstruction> = file
            .global_args
            .iter()
            .chain(stages)
            .filter_map(|instruction| declaration_in(&instruction.kind))
            .collect();
        let declared: Vec<&str> = declarations
            .iter()
            .flat_map(|arg| {
                arg.args
                    .iter()
                    .map(|declaration| declaration.name.raw.as_str())
            })
            .collect();
        let unused: Vec<&str> = self
            .given
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(name) && !has_own_meaning(name))
            .collect();
        let [first, rest @ ..] = &unused[..] else {
            return None;
        };
        let message = if rest.is_empty() {
            format!("the build argument {first} is not used: no ARG declares it")
        } else {
            let names = unused.join(", ");
            format!("the build arguments {names} are not used: no ARG declares them")
        };
        let help = suggest::did_you_mean(first, declared.iter().copied());
        Some(Remark {
            name: "UnusedBuildArg",
            message,
            help,
        })
    }
}

fn declaration_in(kind: &super::dockerfile::InstructionKind) -> Option<&ArgInstruction> {
    use super::dockerfile::InstructionKind;
    match kind {
        InstructionKind::Arg(arg) => Some(arg),
        InstructionKind::Onbuild(onbuild) => declaration_in(&onbuild.trigger.as_ref()?.kind),
        _ => None,
    }
}

fn has_own_meaning(name: &str) -> bool {
    const PROXIES: [&str; 5] = [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ];
    let platform_part = name
        .strip_prefix("TARGET")
        .or_else(|| name.strip_prefix("BUILD"))
        .unwrap_or_default();
    ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].contains(&platform_part)
        || PROXIES.contains(&name.to_ascii_lowercase().as_str())
        || name.starts_with("BUILDKIT_")
        || name == EPOCH
}

/// Returns the variables that `FROM` may use although no `ARG` declares them.
pub(super) fn predefined(file: &Dockerfile, options: &FrontendOptions) -> Environment {
    let build = options.build_platform();
    let target = options.target_platform();
    let last_stage = file.stages.last().and_then(|stage| stage.name());
    let stage = options.target.clone().or(last_stage);
    let values = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os),
        ("BUILDOSVERSION", build.os_version),
        ("BUILDARCH", build.architecture),
        ("BUILDVARIANT", build.variant),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os),
        ("TARGETOSVERSION", target.os_version),
        ("TARGETARCH", target.architecture),
        ("TARGETVARIANT", target.variant),
        ("TARGETSTAGE", stage.unwrap_or_else(|| "default".to_owned())),
    ];
    let mut environment = Environment::default();
    for (name, value) in values {
        let value = options.build_args.get(name).unwrap_or(&value);
        environment.set(name, value);
    }
    environment
}

/// Expands a word; errors show where it stands.
pub(super) fn expand(
    word: &Word,
    escape: char,
    variables: &Environment,
) -> Result<String, Box<Diagnostic>> {
    Ok(expand_with_missing(word, escape, variables)?.0)
}

/// Expands a word and returns the variables that had no value too.
pub(super) fn expand_with_missing(
    word: &Word,
    escape: char,
    variables: &Environment,
) -> Result<(String, Vec<Missing>), Box<Diagnostic>> {
    let expanded = Expander::new(escape).word(&word.raw, variables);
    let expanded = expanded.map_err(|error| Box::new(error.diagnostic(word)))?;
    Ok((expanded.value, expanded.missing))
}
