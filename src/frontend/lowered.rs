//! The front door: text and options in, definition and image config out.

use super::build_args::{self, BuildArgs};
use super::diagnostic::{Diagnostic, Diagnostics, Source};
use super::dockerfile::{self, Dockerfile};
use super::error::FrontendError;
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
    /// The images that were looked up, each pinned to its digest.
    pub bases: Vec<PinnedBase>,
    /// Time of everything new, in seconds since 1970.
    pub epoch: Option<i64>,
    /// What was noticed, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// The text that the warnings and the source map point into.
    pub source: Source,
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

/// Translates a Dockerfile.
///
/// # Errors
///
/// Fails when the Dockerfile has mistakes, when an image cannot be looked up, and when the target
/// does not exist.
pub async fn lower(
    text: &str,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
) -> Result<Lowered, FrontendError> {
    let source = Source::new(options.filename.clone(), text);
    syntax::check(text, options)?;
    let (file, mut warnings) = dockerfile::parse(text)?;
    let checks = Checks::new(&file, options)?;
    warnings.extend(lint::names_and_keywords(&file));
    warnings.extend(lint::invalid_defaults(
        &file,
        &build_args::predefined(&file, options),
    ));
    let args = BuildArgs::new(&file, options)?;
    let mut plan = Plan::new(&file, options, &args)?;
    resolve_bases(&mut plan, options, &args, resolver).await?;
    let stage = lower_plan(&plan, &source, options, &args)?;
    warnings.append(&mut plan.warnings);
    warnings.extend(stage.warnings);
    warnings.extend(args.unused(&file));
    let warnings = checks.judge(warnings).map_err(Diagnostics)?;
    Ok(Lowered {
        definition: stage.definition,
        image: stage.image,
        base_image: stage.base_image,
        bases: pinned(&plan),
        epoch: args.epoch,
        warnings,
        source,
    })
}

/// Describes a stage to someone who chooses a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    /// Name of the stage; stages without one are chosen by number.
    pub name: Option<String>,
    /// What the comment above it says of it.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// Line of its `FROM`.
    pub line: u32,
}

/// Lists the stages of a parsed Dockerfile.
pub fn targets(file: &Dockerfile) -> Vec<TargetInfo> {
    let stages = file.stages.iter().enumerate().map(|(index, stage)| {
        let name = stage.name();
        let description = name
            .as_deref()
            .and_then(|name| stage.header.description(name));
        TargetInfo {
            description: description.map(str::to_owned),
            name,
            base: stage.from.image.raw.clone(),
            platform: stage.from.platform.as_ref().map(|word| word.raw.clone()),
            is_default: index + 1 == file.stages.len(),
            line: stage.header.span.start.line,
        }
    });
    stages.collect()
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
