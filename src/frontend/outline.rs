//! What the user can give to the build of a stage: arguments, secrets, SSH agents.
//!
//! [`Notes`] is filled while stages are lowered, one entry for each thing an instruction asks
//! for; [`outline`] then lists what the target and the stages it needs ask for. Of several
//! things of one name the one nearest to the target counts: its own, that of the stage it starts
//! from, those of stages it takes files from or waits for. Arguments before the first `FROM` count
//! where a `FROM`, an `ARG` or another such argument uses them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::build_args::{self, BuildArgs};
use super::diagnostic::{Source, Span};
use super::dockerfile::instruction::{ArgDeclaration, Instruction};
use super::dockerfile::{self, Dockerfile, Word};
use super::environment::Environment;
use super::error::FrontendError;
use super::expand::Expander;
use super::lower::lower_plan;
use super::lowered::Scope;
use super::options::FrontendOptions;
use super::plan::{Base, Plan, resolve_bases};
use super::resolve::ImageResolver;
use super::subrequest::{self, Location};

/// Name of the SSH agent of mounts that name none.
const DEFAULT_AGENT: &str = "default";

/// What the build of a stage takes from the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Name of the stage; empty where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments, in the order of the text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets, in the order of the text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineMount>,
    /// SSH agents, in the order of the text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineMount>,
    /// The Dockerfile.
    #[serde(rename = "sources", serialize_with = "subrequest::as_base64_list")]
    pub source: String,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The value it has in this build; empty where it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Lines of the `ARG`.
    pub location: Location,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Lines of the first `RUN` that mounts it.
    pub location: Location,
}

/// Lists what the build of the target takes from the user.
///
/// # Errors
///
/// Fails where the build would fail before its first step.
pub async fn outline(
    text: &str,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
) -> Result<Outline, FrontendError> {
    let source = Source::new(options.filename.clone(), text);
    let (file, _) = dockerfile::parse(text)?;
    let args = BuildArgs::new(&file, options)?;
    let mut plan = Plan::new(&file, Scope::Target);
    plan.read(&file, options, &args)?;
    resolve_bases(&mut plan, options, &args, resolver).await?;
    let notes = lower_plan(&plan, &source, options, &args, &mut Vec::new())?.notes;
    let mut collector = Collector {
        plan: &plan,
        globals: globals(&file, options, &args),
        from: file
            .stages
            .iter()
            .map(|stage| used_in_from(stage, &file, &args))
            .collect(),
        notes,
        found: Found::default(),
    };
    collector.stage(plan.target);
    let (args, secrets, ssh) = collector.found.in_order();
    let header = &file.stages[plan.target].header;
    let name = file.stages[plan.target].name().unwrap_or_default();
    let description = header.description(&name).filter(|_| !name.is_empty());
    Ok(Outline {
        description: description.unwrap_or_default().to_owned(),
        name,
        args,
        secrets,
        ssh,
        source: text.to_owned(),
    })
}

impl Outline {
    /// Returns tables for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = match self.name.as_str() {
                "" => "(default)",
                name => name,
            };
            let mut rows = vec![["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(["DESCRIPTION:", &self.description]);
            }
            text += &subrequest::columns(&rows, 1);
            text.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"]];
            let args = self.args.iter();
            rows.extend(args.map(|arg| [&*arg.name, &*arg.value, &*arg.description]));
            text += &subrequest::columns(&rows, 3);
            text.push('\n');
        }
        for (heading, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if mounts.is_empty() {
                continue;
            }
            let mut rows = vec![[heading, "REQUIRED"]];
            let required = |mount: &OutlineMount| if mount.required { "true" } else { "" };
            rows.extend(mounts.iter().map(|mount| [&*mount.name, required(mount)]));
            text += &subrequest::columns(&rows, 3);
            text.push('\n');
        }
        text
    }
}

/// What the instructions of stages ask for.
#[derive(Debug, Default)]
pub(super) struct Notes {
    stages: BTreeMap<usize, StageNotes>,
    stage: usize,
    /// The `FROM` that set off the trigger which is being lowered.
    trigger_of: Option<Span>,
}

/// What the instructions of one stage ask for.
#[derive(Debug, Default)]
struct StageNotes {
    /// Arguments with a value of the stage's own, or that nothing else declares.
    args: BTreeMap<String, Argument>,
    /// Names of all arguments that the stage declares.
    used: BTreeSet<String>,
    secrets: BTreeMap<String, Lent>,
    ssh: BTreeMap<String, Lent>,
}

/// An argument as one `ARG` declares it.
#[derive(Debug, Clone)]
struct Argument {
    value: String,
    description: String,
    span: Span,
    /// The arguments its default is made of.
    parts: BTreeSet<String>,
}

/// A secret or an agent.
#[derive(Debug)]
struct Lent {
    required: bool,
    span: Span,
}

impl Notes {
    /// Says which step of which stage is lowered next.
    pub(super) fn begin(&mut self, stage: usize, trigger_of: Option<Span>) {
        self.stage = stage;
        self.trigger_of = trigger_of;
    }

    /// Notes a declared argument; `is_own` unless it takes its value from before the first `FROM`.
    pub(super) fn arg(
        &mut self,
        instruction: &Instruction,
        declaration: &ArgDeclaration,
        value: Option<&str>,
        is_own: bool,
    ) {
        let span = self.trigger_of.unwrap_or(instruction.span);
        let name = &declaration.name.raw;
        let notes = self.notes();
        notes.used.insert(name.clone());
        if is_own {
            let argument = Argument::new(instruction, name, value.unwrap_or_default(), span);
            notes.args.insert(name.clone(), argument);
        }
    }

    /// Notes a mounted secret.
    pub(super) fn secret(&mut self, id: &str, required: bool, span: Span) {
        let span = self.trigger_of.unwrap_or(span);
        let secrets = &mut self.notes().secrets;
        secrets
            .entry(id.to_owned())
            .or_insert(Lent { required, span });
    }

    /// Notes a mounted agent.
    pub(super) fn ssh(&mut self, id: &str, required: bool, span: Span) {
        let id = if id.is_empty() { DEFAULT_AGENT } else { id };
        let span = self.trigger_of.unwrap_or(span);
        let ssh = &mut self.notes().ssh;
        ssh.entry(id.to_owned()).or_insert(Lent { required, span });
    }

    fn notes(&mut self) -> &mut StageNotes {
        self.stages.entry(self.stage).or_default()
    }
}

impl Argument {
    fn new(instruction: &Instruction, name: &str, value: &str, span: Span) -> Self {
        let description = instruction.description(name);
        Self {
            value: value.to_owned(),
            description: description.unwrap_or_default().to_owned(),
            span,
            parts: BTreeSet::new(),
        }
    }
}

/// Returns the arguments before the first `FROM`.
fn globals(
    file: &Dockerfile,
    options: &FrontendOptions,
    args: &BuildArgs,
) -> BTreeMap<String, Argument> {
    let mut scope = build_args::predefined(file, options);
    let mut known: BTreeMap<String, Argument> = BTreeMap::new();
    for (instruction, arg) in file.global_args() {
        for declaration in &arg.args {
            let name = &declaration.name.raw;
            let mut parts = BTreeSet::new();
            let value = match (args.given.get(name), &declaration.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => {
                    let (value, used) = expand(word, file, &scope);
                    parts = used;
                    Some(value)
                }
                (None, None) => None,
            };
            if parts.remove(name)
                && let Some(before) = known.get(name)
            {
                parts.extend(before.parts.iter().cloned());
            }
            if let Some(value) = &value {
                scope.set(name, value);
            }
            let value = value.unwrap_or_default();
            let argument = Argument::new(instruction, name, &value, instruction.span);
            known.insert(name.clone(), Argument { parts, ..argument });
        }
    }
    known
}

/// Returns the variables that a `FROM` uses.
fn used_in_from(
    stage: &dockerfile::Stage,
    file: &Dockerfile,
    args: &BuildArgs,
) -> BTreeSet<String> {
    let from = &stage.from;
    let words = std::iter::once(&from.image).chain(&from.platform);
    let used = words
        .chain(&from.after)
        .map(|word| expand(word, file, &args.global).1);
    used.flatten().collect()
}

/// Expands a word and returns the variables it uses; mistakes in it were reported before.
fn expand(word: &Word, file: &Dockerfile, scope: &Environment) -> (String, BTreeSet<String>) {
    match Expander::new(file.escape()).word(&word.raw, scope) {
        Ok(expanded) => (expanded.value, expanded.used),
        Err(_) => (String::new(), BTreeSet::new()),
    }
}

/// Goes from the target through the stages it needs.
struct Collector<'a> {
    plan: &'a Plan<'a>,
    globals: BTreeMap<String, Argument>,
    /// Variables in the `FROM` of each stage.
    from: Vec<BTreeSet<String>>,
    notes: Notes,
    found: Found,
}

/// What was found, by name, and the stages that were looked at.
#[derive(Default)]
struct Found {
    seen: BTreeSet<usize>,
    args: BTreeMap<String, Argument>,
    secrets: BTreeMap<String, Lent>,
    ssh: BTreeMap<String, Lent>,
}

impl Collector<'_> {
    fn stage(&mut self, index: usize) {
        if !self.found.seen.insert(index) {
            return;
        }
        let stage = &self.plan.stages[index];
        let mut notes = self.notes.stages.remove(&index).unwrap_or_default();
        let mut open: Vec<String> = notes.used.iter().cloned().collect();
        if let Some(used) = self.from.get(index) {
            open.extend(used.iter().cloned());
        }
        let mut used = BTreeSet::new();
        while let Some(name) = open.pop() {
            let argument = notes
                .args
                .remove(&name)
                .or_else(|| self.globals.get(&name).cloned());
            if !used.insert(name.clone()) {
                continue;
            }
            if let Some(argument) = argument {
                open.extend(argument.parts.iter().cloned());
                self.found.args.entry(name).or_insert(argument);
            }
        }
        for (id, secret) in notes.secrets {
            self.found.secrets.entry(id).or_insert(secret);
        }
        for (id, agent) in notes.ssh {
            self.found.ssh.entry(id).or_insert(agent);
        }
        if let Base::Stage(base) = stage.base {
            self.stage(base);
        }
        let sources: BTreeSet<usize> = stage
            .steps
            .iter()
            .flat_map(|step| step.sources.iter().copied().flatten())
            .chain(stage.after.iter().copied())
            .collect();
        for source in sources {
            self.stage(source);
        }
    }
}

impl Found {
    /// Sorts by place.
    fn in_order(self) -> (Vec<OutlineArg>, Vec<OutlineMount>, Vec<OutlineMount>) {
        let args = self.args.into_iter().map(|(name, argument)| OutlineArg {
            name,
            description: argument.description,
            value: argument.value,
            location: Location::of(argument.span),
        });
        let mut args: Vec<OutlineArg> = args.collect();
        args.sort_by_key(|arg| arg.location.first_line());
        let mounts = |lent: BTreeMap<String, Lent>| {
            let mounts = lent.into_iter().map(|(name, lent)| OutlineMount {
                name,
                required: lent.required,
                location: Location::of(lent.span),
            });
            let mut mounts: Vec<OutlineMount> = mounts.collect();
            mounts.sort_by_key(|mount| mount.location.first_line());
            mounts
        };
        (args, mounts(self.secrets), mounts(self.ssh))
    }
}
