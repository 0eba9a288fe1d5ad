//! Base images: looking them up, and the triggers they bring.
//!
//! A trigger may name further images and stages, so looking up goes on in rounds until nothing
//! new is needed. In each round all images are asked for at the same time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Base, ImageBase, Plan, ResolvedBase, Step, is_counted, names};
use crate::frontend::build_args::BuildArgs;
use crate::frontend::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::dockerfile::{InstructionKind, parse_trigger};
use crate::frontend::error::FrontendError;
use crate::frontend::options::FrontendOptions;
use crate::frontend::resolve::{
    ImageRequest, ImageResolver, RequestPlatform, ResolveError, ResolvedImage, resolve_all,
};
use crate::frontend::{lint, suggest};
use crate::oci::{ImageConfig, Platform};

/// Images that a mistyped name may mean.
const COMMON_IMAGES: [&str; 9] = [
    "alpine", "busybox", "debian", "ubuntu", "fedora", "golang", "node", "python", "rust",
];

/// Looks up every base image that the target needs and adds the triggers they bring.
pub(in crate::frontend) async fn resolve_bases(
    plan: &mut Plan<'_>,
    options: &FrontendOptions,
    args: &BuildArgs,
    resolver: &dyn ImageResolver,
) -> Result<(), FrontendError> {
    loop {
        let wanted = plan.unresolved(options);
        let requests = wanted.values().cloned();
        let mut answers = resolve_all(requests, resolver).await;
        for (index, request) in wanted {
            let answer = match answers.get(&request) {
                Some(Ok(image)) => Ok(image.clone()),
                _ => Err(answers.remove(&request)),
            };
            match answer {
                Ok(image) => plan.set_resolved(index, &request, image, options),
                Err(error) => {
                    let error = error.and_then(Result::err);
                    let error = error.unwrap_or_else(|| ResolveError::new("no answer"));
                    return Err(plan.unresolvable(index, error));
                }
            }
        }
        if !plan.add_triggers(options, args)? {
            break;
        }
    }
    plan.refuse_cycles()?;
    plan.refuse_later_sources()
}

impl Plan<'_> {
    /// Returns what must be asked about the needed stages.
    fn unresolved(&self, options: &FrontendOptions) -> BTreeMap<usize, ImageRequest> {
        let mut wanted = BTreeMap::new();
        for index in self.needed() {
            let stage = &self.stages[index];
            let Base::Image(image) = &stage.base else {
                continue;
            };
            if image.resolved.is_some() {
                continue;
            }
            let platform = stage.platform.clone();
            let platform = platform.unwrap_or_else(|| options.target_platform());
            let request = ImageRequest {
                log_name: log_name(image, &platform, options),
                reference: image.reference.clone(),
                short_name: image.short_name(),
                platform: RequestPlatform(platform),
                mode: options.resolve_mode,
                oci_layout: image.oci_layout.clone(),
                file: image.file.clone(),
            };
            wanted.insert(index, request);
        }
        wanted
    }

    fn set_resolved(
        &mut self,
        index: usize,
        request: &ImageRequest,
        found: ResolvedImage,
        options: &FrontendOptions,
    ) {
        let stage = &mut self.stages[index];
        let Base::Image(image) = &mut stage.base else {
            return;
        };
        let mut platform = request.platform.0.clone();
        if stage.platform.is_none() && options.platform.is_none() {
            platform = implied_platform(&found.config, platform, &options.build_platforms);
        }
        let resolved = ResolvedBase {
            reference: found.reference.with_digest(found.digest),
            config: found.config,
            platform,
        };
        image.resolved = Some(resolved);
        self.compare_platforms(index);
    }

    /// Warns, wherever a stage that is needed names it, of an image for another platform.
    fn compare_platforms(&mut self, index: usize) {
        let stage = &self.stages[index];
        let Base::Image(image) = &stage.base else {
            return;
        };
        let Some(resolved) = &image.resolved else {
            return;
        };
        if image.context.is_some() || resolved.is_empty() {
            return;
        }
        let (name, wanted) = (&image.written, &resolved.platform);
        if lint::base_image_platform(name, wanted, &resolved.config, stage.span).is_none() {
            return;
        }
        let needed = self.needed();
        for place in stage
            .uses
            .iter()
            .filter(|place| needed.contains(&place.stage))
        {
            let warning = lint::base_image_platform(name, wanted, &resolved.config, place.word);
            self.warnings
                .extend(warning.map(|warning| warning.about(place.instruction)));
        }
    }

    fn unresolvable(&self, index: usize, source: ResolveError) -> FrontendError {
        let stage = &self.stages[index];
        let Base::Image(image) = &stage.base else {
            return Diagnostic::error(stage.span, source.message).into();
        };
        let message = format!("cannot resolve {}: {source}", image.written);
        let mut finding = Diagnostic::error(stage.span, message);
        if source.not_found {
            let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
            let help = suggest::did_you_mean(&image.written, names.chain(COMMON_IMAGES));
            finding = finding.with_help_if(help);
        }
        FrontendError::Image {
            image: image.written.clone(),
            finding: Box::new(finding),
            source,
        }
    }

    /// Adds the triggers of bases to the needed stages; returns whether there were any.
    fn add_triggers(
        &mut self,
        options: &FrontendOptions,
        args: &BuildArgs,
    ) -> Result<bool, FrontendError> {
        let mut has_new = false;
        for index in self.needed_by([self.target]) {
            if std::mem::replace(&mut self.stages[index].has_triggers, true) {
                continue;
            }
            let mut steps = Vec::new();
            let scope = self.stages[index].scope.clone();
            for expression in self.triggers_of_base(index) {
                let step = self.trigger(index, &expression, options, args)?;
                steps.push(step);
            }
            self.stages[index].scope = scope;
            has_new |= !steps.is_empty();
            let stage = &mut self.stages[index];
            stage.counted += steps
                .iter()
                .filter(|step| is_counted(&step.instruction))
                .count();
            stage.steps.splice(..0, steps);
        }
        Ok(has_new)
    }

    fn triggers_of_base(&self, index: usize) -> Vec<String> {
        match &self.stages[index].base {
            Base::Stage(earlier) => {
                let steps = self.stages[*earlier].steps.iter();
                let triggers = steps.filter_map(|step| match &step.instruction.kind {
                    InstructionKind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                    _ => None,
                });
                triggers.collect()
            }
            Base::Image(image) => match &image.resolved {
                Some(resolved) => resolved.config.config.on_build.clone(),
                None => Vec::new(),
            },
            Base::Scratch | Base::Context { .. } => Vec::new(),
        }
    }

    fn trigger(
        &mut self,
        index: usize,
        expression: &str,
        options: &FrontendOptions,
        args: &BuildArgs,
    ) -> Result<Step<'static>, FrontendError> {
        let span = self.stages[index].span;
        let explain = |findings: &[Diagnostic]| {
            let why = findings
                .first()
                .map_or("", |finding| finding.message.as_str());
            let message = format!("the trigger {expression:?} of the base image fails: {why}");
            Diagnostic::error(span, message)
        };
        let parsed = parse_trigger(expression);
        let (instruction, _) = parsed.map_err(|Diagnostics(findings)| explain(&findings))?;
        let escape = self.escape;
        names::follow(&mut self.stages[index].scope, &instruction, escape, args);
        let sources = self.sources(index, &instruction, options);
        let sources = sources.map_err(|error| explain(error.findings()))?;
        Ok(Step {
            instruction: Cow::Owned(instruction),
            sources,
            trigger_of: Some(span),
        })
    }
}

fn log_name(image: &ImageBase, platform: &Platform, options: &FrontendOptions) -> String {
    let reference = match &image.file {
        Some(_) => image.written.clone(),
        None => image.reference.to_string(),
    };
    match &image.context {
        Some(context) => format!("[context {context}] load metadata for {reference}"),
        None if options.multi_platform => {
            format!("[{platform} internal] load metadata for {reference}")
        }
        None => format!("[internal] load metadata for {reference}"),
    }
}

/// Takes the platform of an image that does not exist for the wanted one, if processes of that
/// platform can run here.
fn implied_platform(config: &ImageConfig, wanted: Platform, can_run: &[Platform]) -> Platform {
    let is_of = |platform: &Platform| {
        platform.os == config.os && platform.architecture == config.architecture
    };
    if is_of(&wanted) {
        return wanted;
    }
    can_run
        .iter()
        .find(|platform| is_of(platform))
        .cloned()
        .unwrap_or(wanted)
}
