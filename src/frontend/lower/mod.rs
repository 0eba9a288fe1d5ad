//! Stages → ops and an image config: one function per instruction.
//!
//! Read in order: this file (what is known of a stage while it is lowered, the loop over its
//! steps), `from` (what a stage starts with), `context` (sources of local files), `name` (names
//! of steps), then the instructions: `run`, `run_mount`, `copy`, `copy_source`, `variables`
//! (`ARG`, `ENV`, `LABEL`), `directory` (`WORKDIR`, `USER`), `settings` (everything that only
//! changes the config), `expose`, `signal`; last `scan` (what an SBOM is made of besides the result).
//!
//! | instruction | op | history entry |
//! |---|---|---|
//! | `RUN` | exec | `RUN [\|n A=v …] command # buildkit` |
//! | `COPY`, `ADD` | file; with `--link` file and merge | `COPY src dest # buildkit` |
//! | `WORKDIR` | file (mkdir), unless it is `/` | `WORKDIR /path` |
//! | `ONBUILD` | – | – |
//! | all others | – | the instruction with its values, no layer |
//!
//! Each instruction sees the variables as they were before it.

mod context;
mod copy;
mod copy_source;
mod directory;
mod expose;
mod from;
mod name;
mod run;
mod run_mount;
mod scan;
mod settings;
mod signal;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::build_args::BuildArgs;
use super::diagnostic::{Diagnostic, Source, Span};
use super::dockerfile::{Instruction, InstructionKind, Word};
use super::environment::Environment;
use super::expand::{Expander, Missing};
use super::lint;
use super::options::FrontendOptions;
use super::outline::Notes;
use super::plan::{Base, Plan, Step};
use crate::llb::Definition;
use crate::llb::source_map::{Location, Range, SourceFile};
use crate::llb::state::{Builder, Output};
use crate::oci::{ImageConfig, Platform, Reference};

use context::LocalFiles;
pub(super) use context::{HTTP_FILE, download_definition, remote_definition, source_definition};

/// The result of lowering something, or where it fails.
type Lowering<T> = Result<T, Box<Diagnostic>>;

/// What the target stage became.
#[derive(Debug)]
pub(super) struct LoweredStage {
    /// The ops.
    pub(super) definition: Definition,
    /// The image config.
    pub(super) image: ImageConfig,
    /// The config of the image it starts from, if any.
    pub(super) base_image: Option<ImageConfig>,
    /// Name and digest of that image.
    pub(super) base_name: Option<Reference>,
    /// What the stages take from the user.
    pub(super) notes: Notes,
    /// What else is to be scanned, by name.
    pub(super) scans: Vec<(String, Definition)>,
    /// Names of the arguments that they declare.
    pub(super) arguments: BTreeSet<String>,
}

/// Lowers the stages that are in scope; adds what is noticed to `warnings`.
pub(super) fn lower_plan(
    plan: &Plan<'_>,
    source: &Source,
    options: &FrontendOptions,
    args: &BuildArgs,
    warnings: &mut Vec<Diagnostic>,
) -> Lowering<LoweredStage> {
    let file = SourceFile {
        filename: source.name.clone(),
        language: "Dockerfile".to_owned(),
        text: source.text.clone(),
    };
    let mut lowerer = Lowerer {
        builder: Builder::new(options.target_platform(), vec![file]),
        plan,
        options,
        args,
        files: LocalFiles::new(options),
        states: BTreeMap::new(),
        last_heirs: last_heirs(plan),
        warnings: Vec::new(),
        notes: Notes::default(),
        scans: Vec::new(),
        links: 0,
        here: Span::START,
    };
    let lowered = lowerer.stages();
    warnings.append(&mut lowerer.warnings);
    lowered.map(|()| lowerer.finish())
}

/// Finds the last stage that continues each; nothing for the target, which is the result.
fn last_heirs(plan: &Plan<'_>) -> BTreeMap<usize, usize> {
    let mut heirs = BTreeMap::new();
    for index in plan.needed() {
        if let Base::Stage(earlier) = plan.stages[index].base
            && earlier != plan.target
        {
            heirs.insert(earlier, index);
        }
    }
    heirs
}

/// The graph under construction and what all stages share.
struct Lowerer<'a> {
    builder: Builder,
    plan: &'a Plan<'a>,
    options: &'a FrontendOptions,
    args: &'a BuildArgs,
    files: LocalFiles,
    states: BTreeMap<usize, StageState>,
    /// For each stage that others continue, the last of them.
    last_heirs: BTreeMap<usize, usize>,
    warnings: Vec<Diagnostic>,
    notes: Notes,
    /// What else is to be scanned, by name.
    scans: Vec<(String, Option<Output>)>,
    /// Number of `--link` so far; tells their progress groups apart.
    links: usize,
    /// Where the step that is being lowered stands.
    here: Span,
}

/// A stage between two instructions.
#[derive(Debug, Clone)]
struct StageState {
    /// The stage's number in the plan.
    index: usize,
    /// The file system.
    root: Option<Output>,
    /// The image config.
    image: ImageConfig,
    /// The config of the image at the bottom.
    base_image: Option<Arc<ImageConfig>>,
    base_name: Option<Arc<Reference>>,
    /// What must be finished before a step of the stage runs.
    after: Vec<Output>,
    /// What the stage is for.
    platform: Arc<Platform>,
    /// Variables that processes get and words may use.
    environment: Environment,
    /// Working directory.
    cwd: String,
    /// Arguments declared so far, with the values they got.
    declared: Vec<(String, Option<String>)>,
    /// Whether a `WORKDIR` stands in the file above.
    has_workdir: bool,
    /// Steps of the progress display so far.
    shown: usize,
    /// Where the instruction of which only the last counts stood last, by keyword.
    last: BTreeMap<&'static str, Span>,
}

impl StageState {
    /// Remembers an instruction of which only the last counts; returns the one before.
    fn mark(&mut self, keyword: &'static str, span: Span) -> Option<Span> {
        self.last.insert(keyword, span)
    }
}

impl Lowerer<'_> {
    fn stages(&mut self) -> Lowering<()> {
        let (explicit, implicit): (Vec<usize>, Vec<usize>) = self
            .plan
            .needed()
            .into_iter()
            .partition(|index| *index < self.plan.explicit_count());
        for index in implicit.into_iter().chain(explicit) {
            let state = self.stage(index)?;
            self.note_scans(&state)?;
            self.states.insert(index, state);
        }
        Ok(())
    }

    fn stage(&mut self, index: usize) -> Lowering<StageState> {
        let mut state = self.start(index)?;
        let plan = self.plan;
        for step in &plan.stages[index].steps {
            let warned = self.warnings.len();
            self.notes.begin(index, step.trigger_of);
            self.here = step.span();
            let lowered = self.step(&mut state, step);
            if let Some(span) = step.trigger_of {
                for warning in &mut self.warnings[warned..] {
                    warning.span = span;
                    warning.instruction_lines = Some(span.lines());
                }
            }
            lint::attribute(&mut self.warnings, warned, &step.instruction);
            lowered.map_err(|error| match step.trigger_of {
                Some(span) => {
                    let Diagnostic { message, help, .. } = *error;
                    let text = &step.instruction.original;
                    let message = format!("in the trigger {text:?} of the base: {message}");
                    Box::new(Diagnostic::error(span, message).with_help_if(help.map(String::from)))
                }
                None => error,
            })?;
        }
        Ok(state)
    }

    fn step(&mut self, state: &mut StageState, step: &Step<'_>) -> Lowering<()> {
        let instruction = &*step.instruction;
        if needs_layers(&instruction.kind) {
            state.root = self.with_layers(state.root);
        }
        match &instruction.kind {
            InstructionKind::Add(add) => self.add(state, step, add),
            InstructionKind::Copy(copy) => self.copy(state, step, copy),
            InstructionKind::Run(run) => self.run(state, step, run),
            InstructionKind::Workdir(path) => self.workdir(state, step, path),
            InstructionKind::Arg(arg) => self.arg(state, instruction, arg),
            InstructionKind::Env(pairs) => self.env(state, instruction, pairs),
            InstructionKind::Label(pairs) => self.label(state, instruction, pairs),
            InstructionKind::User(user) => self.user(state, user),
            InstructionKind::Cmd(command) => {
                self.cmd(state, command);
                Ok(())
            }
            InstructionKind::Entrypoint(command) => {
                self.entrypoint(state, command);
                Ok(())
            }
            InstructionKind::Expose(ports) => self.expose(state, ports),
            InstructionKind::Healthcheck(check) => {
                self.healthcheck(state, check);
                Ok(())
            }
            InstructionKind::Maintainer(author) => {
                self.maintainer(state, author);
                Ok(())
            }
            InstructionKind::Onbuild(onbuild) => {
                let trigger = onbuild.expression.clone();
                state.image.config.on_build.push(trigger);
                Ok(())
            }
            InstructionKind::Shell(words) => {
                self.shell(state, words);
                Ok(())
            }
            InstructionKind::Stopsignal(signal) => self.stopsignal(state, signal),
            InstructionKind::Volume(paths) => self.volume(state, paths),
            InstructionKind::From(_) => {
                let message = "FROM cannot stand inside a stage";
                Err(Box::new(Diagnostic::error(instruction.span, message)))
            }
        }
    }

    /// Expands a word with the stage's variables and warns of those that nothing sets.
    fn expand(&mut self, state: &StageState, word: &Word) -> Lowering<String> {
        let variables = &state.environment;
        let expanded = Expander::new(self.plan.escape).word(&word.raw, variables);
        let expanded = match expanded {
            Ok(expanded) => expanded,
            Err(error) => {
                let unset = |missing: &Missing| variables.get(&missing.name).is_none();
                if let Some(missing) = error.required().filter(unset) {
                    self.warn_undefined(state, &missing, word);
                }
                return Err(Box::new(error.diagnostic(word)));
            }
        };
        for missing in expanded.missing {
            self.warn_undefined(state, &missing, word);
        }
        Ok(expanded.value)
    }

    /// Expands a word that may be absent.
    fn expand_optional(
        &mut self,
        state: &StageState,
        word: Option<&Word>,
    ) -> Lowering<Option<String>> {
        let text = word.map(|word| self.expand(state, word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn warn_undefined(&mut self, state: &StageState, missing: &Missing, word: &Word) {
        let is_declared = state.declared.iter().any(|(name, _)| *name == missing.name);
        if !is_declared && BuildArgs::is_variable(&missing.name) {
            let known = state.environment.names();
            self.warnings
                .push(lint::undefined_var(missing, word, known));
        }
    }

    /// Adds a history entry of an instruction that changes the config only.
    fn commit(&self, state: &mut StageState, created_by: String) {
        super::image_config::commit(&mut state.image, created_by, false, self.args.epoch);
    }

    /// Adds a history entry of an instruction that makes a layer.
    fn commit_layer(&self, state: &mut StageState, created_by: String) {
        super::image_config::commit(&mut state.image, created_by, true, self.args.epoch);
    }

    /// Completes the sources of local files and encodes the graph.
    fn finish(mut self) -> LoweredStage {
        let declared = self.states.values().flat_map(|state| &state.declared);
        let arguments = declared.map(|(name, _)| name.clone()).collect();
        let target = self.states.remove(&self.plan.target);
        let Some(state) = target else {
            unreachable!("the target is among the stages that it needs");
        };
        let root = self.with_layers(state.root);
        self.use_everything(root);
        let scanned = self.scanned();
        self.complete_local_files();
        let mut image = state.image;
        if !self.options.labels.is_empty() {
            let labels = image.config.labels.get_or_insert_default();
            labels.extend(self.options.labels.clone());
        }
        if let Some(platform) = &self.options.platform {
            set_platform(&mut image, platform);
        }
        let platform = image.platform().normalized();
        image.set_platform(&platform);
        let scan = |(name, root)| (name, self.builder.clone().finish(root));
        LoweredStage {
            scans: scanned.into_iter().map(scan).collect(),
            definition: self.builder.finish(root),
            image,
            base_image: state.base_image.map(Arc::unwrap_or_clone),
            base_name: state.base_name.map(Arc::unwrap_or_clone),
            notes: self.notes,
            arguments,
        }
    }
}

/// Returns whether the instruction takes the stage's files as they are, and cannot copy them
/// into a layer in passing.
fn needs_layers(kind: &InstructionKind) -> bool {
    match kind {
        InstructionKind::Run(_) => true,
        InstructionKind::Copy(copy) => copy.files.link == Some(true),
        InstructionKind::Add(add) => add.files.link == Some(true),
        _ => false,
    }
}

/// Names the platform that was asked for; details that it leaves open stay as the base has them.
fn set_platform(image: &mut ImageConfig, platform: &Platform) {
    let is_same = image.os == platform.os && image.architecture == platform.architecture;
    image.os.clone_from(&platform.os);
    image.architecture.clone_from(&platform.architecture);
    if !platform.variant.is_empty() || !is_same {
        image.variant.clone_from(&platform.variant);
    }
    if !platform.os_version.is_empty() || !is_same {
        image.os_version.clone_from(&platform.os_version);
    }
    if !platform.os_features.is_empty() {
        image.os_features.clone_from(&platform.os_features);
    }
}

/// Returns where a span stands, for the source map.
fn location(span: Span) -> Location {
    // A span may end at the start of the line behind it.
    let ends_before = span.end.column == 1 && span.end.line > span.start.line;
    let column = |column: u32| column.saturating_sub(1);
    Location {
        file: 0,
        ranges: vec![Range {
            start_line: span.start.line,
            start_column: column(span.start.column),
            end_line: span.end.line - u32::from(ends_before),
            end_column: if ends_before {
                0
            } else {
                column(span.end.column)
            },
        }],
    }
}

/// Returns the instruction's text with its keyword in upper case.
fn with_upper_keyword(text: String) -> String {
    let (keyword, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    match keyword.bytes().all(|byte| byte.is_ascii_uppercase()) {
        true => text,
        false => keyword.to_uppercase() + rest,
    }
}

/// Returns the shell command as a list of arguments.
fn with_shell(image: &ImageConfig, command: &str) -> Vec<String> {
    let mut args = match &image.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ if image.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
        _ => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
    };
    args.push(command.to_owned());
    args
}

/// Returns the text of an instruction, for names of steps.
fn text_of(instruction: &Instruction) -> &str {
    instruction.original.trim()
}
