//! The stages of a build as a graph: what each starts from, what it takes files from, which of
//! them the target needs.
//!
//! Read in order: this file (types, and the way from a tree to a graph), `names` (what a name
//! after `FROM`, `--from` and `from=` means), `bases` (looking up base images, and the triggers
//! they bring). A stage is *implicit* when no `FROM` names it: an image or a context that files
//! are copied or mounted from.
//!
//! Invariants: a stage starts from an earlier one only; what it takes files from stands before
//! it, or is implicit. Deliberately absent: ops.

mod bases;
mod names;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::build_args::{self, BuildArgs};
use super::diagnostic::{Diagnostic, Span};
use super::dockerfile::{Dockerfile, Instruction, InstructionKind, Stage};
use super::error::FrontendError;
use super::expand::{Expanded, Expander, Missing};
use super::lint;
use super::lowered::Scope;
use super::options::{ContextSource, FrontendOptions};
use super::suggest;
use crate::oci::{ImageConfig, ImageFile, Platform, Reference};

pub(super) use bases::resolve_bases;

/// The stages of a build.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The stages of the file in order, then the implicit ones.
    pub(super) stages: Vec<PlannedStage<'a>>,
    /// The stage whose result is wanted.
    pub(super) target: usize,
    /// Which stages are wanted beside those that the target needs.
    scope: Scope,
    /// Number of stages that the file has.
    explicit: usize,
    /// Their numbers by name, in rising order.
    named: BTreeMap<String, Vec<usize>>,
    /// Implicit stages by the name they were asked for.
    implicit: BTreeMap<String, usize>,
    /// The escape character of the file.
    pub(super) escape: char,
    /// What was noticed on the way.
    pub(super) warnings: Vec<Diagnostic>,
}

/// A stage and what it needs.
#[derive(Debug)]
pub(super) struct PlannedStage<'a> {
    /// The name after `AS`, in lower case.
    pub(super) name: Option<String>,
    /// What names of steps begin with; empty when there is only one stage.
    pub(super) label: String,
    /// The `FROM`, or the word that names an implicit stage.
    pub(super) span: Span,
    /// Where what it starts from is named: by its `FROM`, or by each instruction that takes files
    /// from an implicit stage.
    uses: Vec<Use>,
    /// The text of the `FROM`.
    pub(super) command: String,
    /// What the stage starts from.
    pub(super) base: Base,
    /// `--platform`.
    pub(super) platform: Option<Platform>,
    /// `--after`: earlier stages that are finished before this one begins.
    pub(super) after: Vec<usize>,
    /// The instructions, triggers of the base first.
    pub(super) steps: Vec<Step<'a>>,
    /// Number of steps that the progress display counts.
    pub(super) counted: usize,
    /// Whether the steps run although their results are known.
    pub(super) ignore_cache: bool,
    /// Whether the triggers of the base have been added.
    has_triggers: bool,
    /// Variables that are known without looking at the base image.
    scope: super::environment::Environment,
}

/// A place where an image is named.
#[derive(Debug)]
struct Use {
    /// The stage it belongs to.
    stage: usize,
    /// The name.
    word: Span,
    /// The instruction that the name is part of.
    instruction: Span,
}

/// What a stage starts from.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(Box<ImageBase>),
    /// A named context that is not an image.
    Context {
        /// The context's key in the options.
        key: String,
        /// Where its files come from.
        source: ContextSource,
    },
}

/// A base image.
#[derive(Debug, Clone)]
pub(super) struct ImageBase {
    /// The name as written, after expansion.
    pub(super) written: String,
    /// The full name.
    pub(super) reference: Reference,
    /// The named context that it comes from.
    pub(super) context: Option<String>,
    /// The OCI layout that it comes from.
    pub(super) oci_layout: Option<String>,
    /// The file that it may come from, if that exists.
    pub(super) file: Option<ImageFile>,
    /// What was found; known once the stage is needed.
    pub(super) resolved: Option<ResolvedBase>,
}

impl ImageBase {
    /// Returns the name where it was written without a registry.
    fn short_name(&self) -> Option<String> {
        let is_name = self.context.is_none() && self.oci_layout.is_none() && self.file.is_none();
        let short = Reference::short_name(&self.written).filter(|_| is_name);
        short.map(str::to_owned)
    }
}

/// What is known of a base image.
#[derive(Debug, Clone)]
pub(super) struct ResolvedBase {
    /// The full name with the digest.
    pub(super) reference: Reference,
    /// The config for the stage's platform.
    pub(super) config: ImageConfig,
    /// The platform of the stage.
    pub(super) platform: Platform,
}

impl ResolvedBase {
    /// Returns whether the image has no layers, so that nothing needs to be fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.config.rootfs.diff_ids.is_empty()
            && self.config.history.iter().all(|entry| entry.empty_layer)
    }
}

/// An instruction in a stage.
#[derive(Debug)]
pub(super) struct Step<'a> {
    /// The instruction.
    pub(super) instruction: Cow<'a, Instruction>,
    /// The stages it takes files from: one of `COPY --from`, or one per `--mount` of `RUN`.
    pub(super) sources: Vec<Option<usize>>,
    /// For a trigger of the base: the `FROM` that set it off.
    pub(super) trigger_of: Option<Span>,
}

impl Step<'_> {
    /// Returns where to look for the reason of the step.
    pub(super) fn span(&self) -> Span {
        self.trigger_of.unwrap_or(self.instruction.span)
    }
}

impl<'a> Plan<'a> {
    /// Starts a plan that has no stages yet.
    pub(super) fn new(file: &Dockerfile, scope: Scope) -> Self {
        Self {
            stages: Vec::new(),
            target: 0,
            scope,
            explicit: file.stages.len(),
            named: BTreeMap::new(),
            implicit: BTreeMap::new(),
            escape: file.escape(),
            warnings: Vec::new(),
        }
    }

    /// Finds the stages and what they need; base images are not looked up yet.
    pub(super) fn read(
        &mut self,
        file: &'a Dockerfile,
        options: &FrontendOptions,
        args: &BuildArgs,
    ) -> Result<(), FrontendError> {
        for stage in &file.stages {
            let warned = self.warnings.len();
            let planned = self.stage(stage, options, args);
            lint::attribute(&mut self.warnings, warned, &stage.header);
            let planned = planned?;
            if let Some(name) = &planned.name {
                let numbers = self.named.entry(name.clone()).or_default();
                numbers.push(self.stages.len());
            }
            self.stages.push(planned);
        }
        self.target = self.find_target(options)?;
        self.add_steps(file, options, args)?;
        self.refuse_cycles()?;
        if self.stages.len() == 1 {
            self.stages[0].label.clear();
        }
        Ok(())
    }

    /// Reads a `FROM`.
    fn stage(
        &mut self,
        stage: &'a Stage,
        options: &FrontendOptions,
        args: &BuildArgs,
    ) -> Result<PlannedStage<'a>, FrontendError> {
        let from = &stage.from;
        let index = self.stages.len();
        let image = self.expand_from(&from.image, args)?.value;
        if image.is_empty() {
            let message = format!("the base image {:?} is empty", from.image.raw);
            return Err(self.empty_from(message, &from.image, args).into());
        }
        let platform = self.platform(stage, args)?;
        let after = self.after(stage, args)?;
        let wanted = platform
            .clone()
            .unwrap_or_else(|| options.target_platform());
        let name = stage.name();
        let replaced = name
            .as_deref()
            .and_then(|name| options.named_context(name, &wanted));
        let (base, is_replaced) = match replaced {
            Some((key, source)) => (self.context_base(key, source, from.image.span)?, true),
            None => (self.base(&image, from.image.span, &wanted, options)?, false),
        };
        let scope = match base {
            Base::Stage(earlier) => self.stages[earlier].scope.clone(),
            _ => super::environment::Environment::default(),
        };
        let starts_from_image = matches!(base, Base::Image(_) | Base::Context { .. });
        let counted = stage
            .instructions
            .iter()
            .filter(|step| is_counted(step))
            .count();
        Ok(PlannedStage {
            label: name.clone().unwrap_or_else(|| format!("stage-{index}")),
            span: stage.header.span,
            uses: vec![Use {
                stage: index,
                word: from.image.span,
                instruction: stage.header.span,
            }],
            command: stage.header.original.clone(),
            base,
            platform,
            after,
            steps: Vec::new(),
            counted: if is_replaced {
                0
            } else {
                counted + usize::from(starts_from_image)
            },
            ignore_cache: options.no_cache.applies_to(name.as_deref()),
            has_triggers: is_replaced,
            scope,
            name,
        })
    }

    /// Reads `--platform`.
    fn platform(
        &mut self,
        stage: &Stage,
        args: &BuildArgs,
    ) -> Result<Option<Platform>, FrontendError> {
        let Some(word) = &stage.from.platform else {
            return Ok(None);
        };
        let expanded = self.expand_from(word, args)?;
        let redundant = lint::redundant_platform(word, &expanded, &args.global);
        self.warnings.extend(redundant);
        let text = &expanded.value;
        if text.is_empty() {
            let message = format!("the platform {:?} is empty", word.raw);
            return Err(self.empty_from(message, word, args).into());
        }
        let parsed = text.parse::<Platform>();
        let platform = parsed.map_err(|error| {
            let known = || args.global.names();
            let near = |m: &Missing| suggest::variable(&m.name, known());
            let near = expanded.missing.iter().find_map(near);
            Diagnostic::error(word.span, error.to_string())
                .with_help_if(near.map(|name| format!("did you mean `${name}`?")))
        })?;
        let name = stage.name();
        let constant = lint::constant_platform(word, &expanded, &platform, name.as_deref());
        self.warnings.extend(constant);
        Ok(Some(platform))
    }

    /// Reads `--after`: names or numbers of earlier stages.
    fn after(&mut self, stage: &Stage, args: &BuildArgs) -> Result<Vec<usize>, FrontendError> {
        let mut after = Vec::new();
        for word in &stage.from.after {
            let name = self.expand_from(word, args)?.value;
            after.push(self.earlier_stage(&name, word.span)?);
        }
        Ok(after)
    }

    /// Expands a word of `FROM` and warns of names that nothing declares.
    fn expand_from(
        &mut self,
        word: &super::dockerfile::Word,
        args: &BuildArgs,
    ) -> Result<Expanded<String>, FrontendError> {
        let expanded = Expander::new(self.escape).word(&word.raw, &args.global);
        let missing = match &expanded {
            Ok(expanded) => expanded.missing.clone(),
            Err(error) => error.required().into_iter().collect(),
        };
        for missing in missing {
            let is_set = args.global.get(&missing.name).is_some();
            if is_set || args.declared.contains(&missing.name) {
                continue;
            }
            let declared = args.declared.iter().map(String::as_str);
            let known = args.global.names().chain(declared);
            self.warnings
                .push(lint::undefined_arg_in_from(&missing, word, known));
        }
        Ok(expanded.map_err(|error| error.diagnostic(word))?)
    }

    /// Explains a `FROM` whose word expands to nothing.
    fn empty_from(
        &self,
        message: String,
        word: &super::dockerfile::Word,
        args: &BuildArgs,
    ) -> Diagnostic {
        let error = Diagnostic::error(word.span, message);
        let missing = build_args::expand_with_missing(word, self.escape, &args.global);
        let missing = missing.map(|(_, missing)| missing).unwrap_or_default();
        match missing.first() {
            Some(missing) => {
                let near = suggest::did_you_mean(&missing.name, args.global.names());
                let declare = format!("declare it before the first FROM: ARG {}=…", missing.name);
                error.with_help(near.unwrap_or(declare))
            }
            None => error,
        }
    }

    fn find_target(&self, options: &FrontendOptions) -> Result<usize, FrontendError> {
        let Some(target) = &options.target else {
            return Ok(self.explicit - 1);
        };
        if let Some(index) = self.stage_named(target, self.explicit) {
            return Ok(index);
        }
        if let Ok(index) = target.parse::<usize>()
            && index < self.explicit
        {
            return Ok(index);
        }
        let stages: Vec<String> = self.stages.iter().filter_map(|s| s.name.clone()).collect();
        let suggestion = suggest::nearest(target, stages.iter().map(String::as_str));
        Err(FrontendError::UnknownTarget {
            target: target.clone(),
            suggestion: suggestion.map(str::to_owned),
            stages,
        })
    }

    fn add_steps(
        &mut self,
        file: &'a Dockerfile,
        options: &FrontendOptions,
        args: &BuildArgs,
    ) -> Result<(), FrontendError> {
        for (index, stage) in file.stages.iter().enumerate() {
            if self.stages[index].has_triggers {
                continue;
            }
            if let Base::Stage(earlier) = self.stages[index].base {
                self.stages[index].scope = self.stages[earlier].scope.clone();
            }
            for instruction in &stage.instructions {
                names::follow(
                    &mut self.stages[index].scope,
                    instruction,
                    self.escape,
                    args,
                );
                let sources = self.sources(index, instruction, options)?;
                self.stages[index].steps.push(Step {
                    instruction: Cow::Borrowed(instruction),
                    sources,
                    trigger_of: None,
                });
            }
        }
        Ok(())
    }

    /// Returns the number of stages that the file has; those behind them are implicit.
    pub(super) fn explicit_count(&self) -> usize {
        self.explicit
    }

    /// Returns the stages that are in scope, those they need among them.
    pub(super) fn needed(&self) -> BTreeSet<usize> {
        match self.scope {
            Scope::Target => self.needed_by([self.target]),
            Scope::AllStages => self.needed_by(0..self.explicit),
        }
    }

    /// Returns the stages that these need, themselves among them.
    fn needed_by(&self, stages: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<usize> = stages.into_iter().collect();
        while let Some(index) = open.pop() {
            if needed.insert(index) {
                open.extend(self.stages[index].requirements());
            }
        }
        needed
    }

    /// Refuses stages that need themselves.
    fn refuse_cycles(&self) -> Result<(), FrontendError> {
        for (index, stage) in self.stages.iter().enumerate() {
            for step in &stage.steps {
                for source in step.sources.iter().copied().flatten() {
                    if let Some(path) = self.path(source, index) {
                        return Err(self.cycle(index, &path, step.span()).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds a way along requirements; only stages that need a later one can be on a cycle.
    fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        if from < to || from >= self.explicit {
            return None;
        }
        let mut came_from = BTreeMap::from([(from, from)]);
        let mut open = vec![from];
        while let Some(index) = open.pop() {
            if index == to {
                let mut path = vec![to];
                while let Some(&last) = path.last()
                    && last != from
                {
                    path.push(came_from[&last]);
                }
                path.reverse();
                return Some(path);
            }
            for next in self.stages[index].requirements() {
                if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                    entry.insert(index);
                    open.push(next);
                }
            }
        }
        None
    }

    fn cycle(&self, stage: usize, path: &[usize], span: Span) -> Diagnostic {
        let name = &self.stages[stage].label;
        if path.len() == 1 {
            let message = format!("stage {name:?} takes files from itself");
            return Diagnostic::error(span, message);
        }
        let names = std::iter::once(&stage)
            .chain(path)
            .map(|i| self.stages[*i].label.as_str());
        let chain = names.collect::<Vec<_>>().join(" → ");
        Diagnostic::error(span, format!("stages need each other: {chain}"))
    }

    /// Refuses, among the needed stages, those that take files from a later one.
    pub(super) fn refuse_later_sources(&self) -> Result<(), FrontendError> {
        for index in self.needed() {
            for step in &self.stages[index].steps {
                let mut sources = step.sources.iter().copied().flatten();
                if let Some(later) = sources.find(|s| *s >= index && *s < self.explicit) {
                    let (name, later) = (&self.stages[index].label, &self.stages[later].label);
                    let message =
                        format!("stage {later:?} must stand before stage {name:?}, which uses it");
                    return Err(Diagnostic::error(step.span(), message).into());
                }
            }
        }
        Ok(())
    }
}

impl PlannedStage<'_> {
    fn requirements(&self) -> impl Iterator<Item = usize> {
        let base = match self.base {
            Base::Stage(index) => Some(index),
            _ => None,
        };
        let sources = self.steps.iter().flat_map(|step| &step.sources);
        let sources = sources.copied().flatten();
        base.into_iter()
            .chain(self.after.iter().copied())
            .chain(sources)
    }
}

/// Returns whether the progress display counts the instruction as a step.
fn is_counted(instruction: &Instruction) -> bool {
    matches!(
        instruction.kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}
