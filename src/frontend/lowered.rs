//! The front door: text and options in, definition and image config out.

use std::collections::BTreeSet;

use super::build_args::{self, BuildArgs};
use super::diagnostic::{Diagnostic, Source};
use super::dockerfile::{self, Dockerfile};
use super::error::FrontendError;
use super::image_config;
use super::lint::{self, Checks};
use super::lower::lower_plan;
use super::options::FrontendOptions;
use super::plan::{Base, Plan, resolve_bases};
use super::resolve::ImageResolver;
use super::syntax;
use crate::llb::Definition;
use crate::oci::{ImageConfig, Platform, Reference};

/// What a Dockerfile became.
#[derive(Debug)]
pub struct Lowered {
    /// The graph of ops; its result is the file system of the image.
    pub definition: Definition,
    /// The image config, without the layers; new history entries have a time only where
    /// `SOURCE_DATE_EPOCH` gives one.
    pub image: ImageConfig,
    /// The config of the image at the bottom, if there is one.
    pub base_image: Option<ImageConfig>,
    /// What else is to be scanned for an SBOM, by name: stages, and the build context.
    pub scans: Vec<(String, Definition)>,
    /// Name and digest of that image.
    pub base_name: Option<Reference>,
    /// The images that were looked up, each pinned to its digest.
    pub bases: Vec<PinnedBase>,
    /// Names of the arguments that the stages declare.
    pub arguments: BTreeSet<String>,
    /// Time of everything new, in seconds since 1970.
    pub epoch: Option<i64>,
    /// What was noticed, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// What was noticed beside the text.
    pub remarks: Vec<Remark>,
    /// The text that the warnings and the source map point into.
    pub source: Source,
}

impl Lowered {
    /// Takes a definition that no Dockerfile was translated to; its image has no settings.
    pub fn of_definition(definition: Definition, platform: &Platform, epoch: Option<i64>) -> Self {
        Self {
            definition,
            image: image_config::empty(platform),
            base_image: None,
            scans: Vec::new(),
            base_name: None,
            bases: Vec::new(),
            arguments: BTreeSet::new(),
            epoch,
            warnings: Vec::new(),
            remarks: Vec::new(),
            source: Source::new("", ""),
        }
    }
}

/// An image that the build uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedBase {
    /// The name in the Dockerfile, variables expanded.
    pub written: String,
    /// The full name with the digest.
    pub reference: Reference,
    /// The platform it was looked up for.
    pub platform: Platform,
}

/// Why a Dockerfile became nothing.
#[derive(Debug)]
pub struct LowerFailure {
    /// What stopped the work.
    pub error: FrontendError,
    /// What was noticed before, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// Something noticed that has no place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Short name for machines.
    pub name: &'static str,
    /// One sentence.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// Which stages are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that the target needs.
    Target,
    /// All.
    AllStages,
}

/// Translates a Dockerfile.
///
/// # Errors
///
/// Fails when the Dockerfile has mistakes, when an image cannot be looked up, when the target
/// does not exist, and when there are warnings that the file makes errors.
pub async fn lower(
    text: &str,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
) -> Result<Lowered, LowerFailure> {
    lower_scope(text, options, resolver, Scope::Target).await
}

/// Translates the stages in scope.
pub(super) async fn lower_scope(
    text: &str,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
    scope: Scope,
) -> Result<Lowered, LowerFailure> {
    let mut warnings = Vec::new();
    if let Err(error) = syntax::check(text, options) {
        return Err(LowerFailure { error, warnings });
    }
    let (file, findings) = dockerfile::parse_all(text);
    let judged = match Checks::new(&file, options) {
        Err(error) => Err(error),
        Ok(checks) => {
            let findings = lint::of_text(&file, findings, &checks, &mut warnings);
            let job = Job {
                file: &file,
                source: Source::new(options.filename.clone(), text),
                options,
                resolver,
            };
            let lowered = match findings {
                Ok(()) => job.run(scope, &mut warnings).await,
                Err(findings) => Err(findings.into()),
            };
            warnings = checks.kept(warnings);
            lowered.and_then(|lowered| checks.judge(&warnings).map(|()| lowered))
        }
    };
    match judged {
        Ok(lowered) => Ok(Lowered {
            warnings,
            ..lowered
        }),
        Err(error) => Err(LowerFailure { error, warnings }),
    }
}

/// A parsed Dockerfile and what it is to become.
struct Job<'a> {
    file: &'a Dockerfile,
    source: Source,
    options: &'a FrontendOptions,
    resolver: &'a dyn ImageResolver,
}

impl Job<'_> {
    async fn run(
        self,
        scope: Scope,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Lowered, FrontendError> {
        let (file, options) = (self.file, self.options);
        let predefined = build_args::predefined(file, options);
        warnings.extend(lint::names_and_keywords(file));
        warnings.extend(lint::invalid_defaults(file, &predefined));
        let args = BuildArgs::new(file, options)?;
        let mut plan = Plan::new(file, scope);
        let planned = self.plan(&mut plan, &args).await;
        warnings.append(&mut plan.warnings);
        planned?;
        let stage = lower_plan(&plan, &self.source, options, &args, warnings)?;
        Ok(Lowered {
            definition: stage.definition,
            image: stage.image,
            base_image: stage.base_image,
            scans: stage.scans,
            base_name: stage.base_name,
            bases: pinned(&plan),
            arguments: stage.arguments,
            epoch: args.epoch,
            warnings: Vec::new(),
            remarks: args.unused(file).into_iter().collect(),
            source: self.source,
        })
    }

    async fn plan<'a>(
        &'a self,
        plan: &mut Plan<'a>,
        args: &BuildArgs,
    ) -> Result<(), FrontendError> {
        plan.read(self.file, self.options, args)?;
        resolve_bases(plan, self.options, args, self.resolver).await
    }
}

fn pinned(plan: &Plan<'_>) -> Vec<PinnedBase> {
    let mut bases: Vec<PinnedBase> = Vec::new();
    for stage in &plan.stages {
        let Base::Image(image) = &stage.base else {
            continue;
        };
        let Some(resolved) = &image.resolved else {
            continue;
        };
        let base = PinnedBase {
            written: image.written.clone(),
            reference: resolved.reference.clone(),
            platform: resolved.platform.clone(),
        };
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    bases
}
