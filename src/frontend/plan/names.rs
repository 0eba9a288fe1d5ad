//! What a name means: an earlier stage, a named context, an image.

use super::{Base, ImageBase, Plan, PlannedStage, Use};
use crate::frontend::build_args::{self, BuildArgs};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::mount::{CacheMount, parse_mount_with};
use crate::frontend::dockerfile::{Instruction, InstructionKind, MountKind, Word};
use crate::frontend::environment::Environment;
use crate::frontend::error::FrontendError;
use crate::frontend::expand::Expander;
use crate::frontend::options::{ContextSource, FrontendOptions};
use crate::frontend::suggest;
use crate::oci::{Platform, Reference, Transported};

type Found<T> = Result<T, Box<Diagnostic>>;

const SCRATCH: &str = "scratch";

impl Plan<'_> {
    /// Finds a stage of the file by name; the last of several before stage number `before`.
    pub(super) fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let numbers = self.named.get(&name.to_lowercase())?;
        let above = numbers.partition_point(|number| *number < before);
        numbers[..above].last().copied()
    }

    /// Finds the stage above that `--after` names.
    pub(super) fn earlier_stage(&self, name: &str, span: Span) -> Found<usize> {
        let here = self.stages.len();
        let number = || name.parse::<usize>().ok().filter(|number| *number < here);
        if let Some(stage) = self.stage_named(name, here).or_else(number) {
            return Ok(stage);
        }
        let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
        let help = suggest::did_you_mean(name, names);
        let help = help.unwrap_or_else(|| "name a stage that stands above this FROM".to_owned());
        let message = format!("no stage above has the name {name:?}");
        Err(Box::new(Diagnostic::error(span, message).with_help(help)))
    }

    /// Finds out what the text after `FROM` means.
    pub(super) fn base(
        &self,
        text: &str,
        span: Span,
        platform: &Platform,
        options: &FrontendOptions,
    ) -> Found<Base> {
        if text == SCRATCH {
            return Ok(Base::Scratch);
        }
        // Names of stages are in lower case, and `FROM` takes them exactly.
        let earlier = self.stage_named(text, self.stages.len());
        if let Some(earlier) = earlier.filter(|_| text == text.to_lowercase()) {
            return Ok(Base::Stage(earlier));
        }
        if let Some((key, source)) = options.named_context(text, platform) {
            return self.context_base(key, source, span);
        }
        self.image_base(text, span)
    }

    /// Turns a named context into the base of a stage.
    pub(super) fn context_base(
        &self,
        key: &str,
        source: &ContextSource,
        span: Span,
    ) -> Found<Base> {
        let ContextSource::Stage(stage) = source else {
            return context_base(key, source, span);
        };
        if let Some(index) = self.stage_named(stage, self.stages.len()) {
            return Ok(Base::Stage(index));
        }
        let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
        let help = suggest::did_you_mean(stage, names);
        let message = format!("the build context {key:?} is stage {stage:?}, which is not above");
        Err(Box::new(
            Diagnostic::error(span, message).with_help_if(help),
        ))
    }

    /// Finds the stages an instruction takes files from, adding implicit ones.
    pub(super) fn sources(
        &mut self,
        stage: usize,
        instruction: &Instruction,
        options: &FrontendOptions,
    ) -> Result<Vec<Option<usize>>, FrontendError> {
        match &instruction.kind {
            InstructionKind::Copy(copy) => {
                let Some(word) = &copy.from else {
                    return Ok(Vec::new());
                };
                let name = self.expand_name(word, stage)?;
                let source = self.source(&name, word.span, options)?;
                self.note_use(source, stage, word, instruction);
                Ok(vec![Some(source)])
            }
            InstructionKind::Run(run) => {
                let mut sources = Vec::new();
                for word in &run.mounts {
                    let from = self.mount_from(word, stage)?;
                    sources.push(match from {
                        Some(name) => {
                            let source = self.source(&name, word.span, options)?;
                            self.note_use(source, stage, word, instruction);
                            Some(source)
                        }
                        None => {
                            // BuildKit counts a stage for each mount; the count decides whether
                            // names of steps carry the stage's name.
                            self.implicit_stage(SCRATCH, Base::Scratch, word.span);
                            None
                        }
                    });
                }
                Ok(sources)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Remembers where an implicit stage is named.
    fn note_use(&mut self, source: usize, stage: usize, word: &Word, instruction: &Instruction) {
        if source >= self.explicit {
            self.stages[source].uses.push(Use {
                stage,
                word: word.span,
                instruction: instruction.span,
            });
        }
    }

    /// Expands the name in `--from`, with the variables that the file itself sets.
    fn expand_name(&self, word: &Word, stage: usize) -> Found<String> {
        let scope = &self.stages[stage].scope;
        let (name, missing) = build_args::expand_with_missing(word, self.escape, scope)?;
        match missing.iter().find(|missing| !missing.has_fallback) {
            Some(missing) => {
                let message = format!("the variable {} has no value here", missing.name);
                let help = "a name in --from may use ARG and ENV of the same stage";
                Err(Box::new(
                    Diagnostic::error(missing.span(word), message).with_help(help),
                ))
            }
            None if name.is_empty() => {
                let message = format!("the name {:?} is empty", word.raw);
                Err(Box::new(Diagnostic::error(word.span, message)))
            }
            None => Ok(name),
        }
    }

    /// Returns the name in `from=` of a mount.
    ///
    /// Mistakes in the mount are left to the lowering, which knows all variables.
    fn mount_from(&self, word: &Word, stage: usize) -> Found<Option<String>> {
        let scope = &self.stages[stage].scope;
        let expander = Expander::new(self.escape);
        let mount = parse_mount_with(&word.raw, &mut |value| {
            let expanded = expander
                .word(value, scope)
                .map_err(|error| error.to_string())?;
            Ok(expanded.value)
        });
        let from = match mount.map(|mount| mount.kind) {
            Ok(MountKind::Bind { from, .. } | MountKind::Cache(CacheMount { from, .. })) => from,
            _ => None,
        };
        match from {
            Some(from) if from.is_empty() => {
                let message = "the name after from= is empty";
                Err(Box::new(Diagnostic::error(word.span, message)))
            }
            from => Ok(from),
        }
    }

    /// Finds the stage that a name in `--from` or `from=` means.
    fn source(&mut self, name: &str, span: Span, options: &FrontendOptions) -> Found<usize> {
        // Of several stages with the name it is the last, wherever the instruction stands.
        if let Some(named) = self.stage_named(name, self.explicit) {
            return Ok(named);
        }
        if name.bytes().all(|b| b.is_ascii_digit()) {
            let index = name
                .parse::<usize>()
                .ok()
                .filter(|index| *index < self.explicit);
            return index.ok_or_else(|| {
                let last = self.explicit - 1;
                let message = format!("there is no stage number {name}; the last one is {last}");
                Box::new(Diagnostic::error(span, message))
            });
        }
        if let Some(known) = self.implicit.get(name) {
            return Ok(*known);
        }
        let platform = options.target_platform();
        let base = if name == SCRATCH {
            Base::Scratch
        } else if let Some((key, source)) = options.named_context(name, &platform) {
            self.context_base(key, source, span)?
        } else {
            self.image_base(name, span)?
        };
        if let Base::Stage(index) = base {
            return Ok(index);
        }
        Ok(self.implicit_stage(name, base, span))
    }

    /// Reads the name of an image.
    fn image_base(&self, text: &str, span: Span) -> Found<Base> {
        let parse = |name: &str| {
            name.parse::<Reference>().map_err(|error| {
                let names = self.stages.iter().filter_map(|stage| stage.name.as_deref());
                let help = suggest::did_you_mean(name, names).or_else(|| spelling(name));
                Box::new(Diagnostic::error(span, error.to_string()).with_help_if(help))
            })
        };
        let (reference, file) = match Transported::parse(text) {
            None => (parse(text)?, None),
            Some(Transported::Registry(name)) => (parse(&name)?, None),
            Some(Transported::Unsupported(transport)) => {
                let message = format!("images of the transport {transport} cannot be read");
                let help = "push the image to a registry, or save it and name it as \
                            oci-archive:path or docker-archive:path";
                return Err(Box::new(Diagnostic::error(span, message).with_help(help)));
            }
            Some(Transported::File(file)) => {
                // The image's own name becomes known when the file is read.
                let name = if file.is_certain {
                    file.transport()
                } else {
                    text
                };
                (parse(name)?, Some(file))
            }
        };
        Ok(Base::Image(Box::new(ImageBase {
            written: text.to_owned(),
            reference: reference.with_default_tag(),
            context: None,
            oci_layout: None,
            file,
            resolved: None,
        })))
    }

    fn implicit_stage(&mut self, name: &str, base: Base, span: Span) -> usize {
        if let Some(known) = self.implicit.get(name) {
            return *known;
        }
        let index = self.stages.len();
        self.stages.push(PlannedStage {
            name: None,
            label: String::new(),
            span,
            uses: Vec::new(),
            command: String::new(),
            base,
            platform: None,
            after: Vec::new(),
            steps: Vec::new(),
            counted: 0,
            ignore_cache: false,
            has_triggers: true,
            scope: Environment::default(),
        });
        self.implicit.insert(name.to_owned(), index);
        index
    }
}

fn context_base(key: &str, source: &ContextSource, span: Span) -> Found<Base> {
    let parse = |text: &str| {
        text.parse::<Reference>().map_err(|error| {
            let message = format!("the build context {key:?} is not usable: {error}");
            Box::new(Diagnostic::error(span, message))
        })
    };
    let (reference, oci_layout) = match source {
        ContextSource::Image(image) if image == SCRATCH => return Ok(Base::Scratch),
        ContextSource::Image(image) => (parse(image)?.with_default_tag(), None),
        ContextSource::OciLayout { store, digest } => {
            // The layout has no name for the image, so the context's name stands for it.
            let name = key.split_once("::").map_or(key, |(name, _)| name);
            (
                parse(name)?.with_digest(digest.clone()),
                Some(store.clone()),
            )
        }
        source => {
            return Ok(Base::Context {
                key: key.to_owned(),
                source: source.clone(),
            });
        }
    };
    Ok(Base::Image(Box::new(ImageBase {
        written: key.to_owned(),
        reference,
        context: Some(key.to_owned()),
        oci_layout,
        file: None,
        resolved: None,
    })))
}

/// Keeps track of the variables that `ARG` and `ENV` set; what cannot be expanded is passed over,
/// since the lowering reports it.
pub(super) fn follow(
    scope: &mut Environment,
    instruction: &Instruction,
    escape: char,
    args: &BuildArgs,
) {
    let expand = |word: &Word, scope: &Environment| build_args::expand(word, escape, scope).ok();
    match &instruction.kind {
        InstructionKind::Arg(arg) => {
            for declaration in &arg.args {
                let name = &declaration.name.raw;
                let value = match (args.given.get(name), &declaration.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(word)) => expand(word, scope),
                    (None, None) => args.inherited(name).map(str::to_owned),
                };
                if let Some(value) = value {
                    scope.set(name, &value);
                }
            }
        }
        InstructionKind::Env(pairs) => {
            let before = scope.clone();
            for pair in pairs {
                let expanded = (expand(&pair.key, &before), expand(&pair.value, &before));
                if let (Some(key), Some(value)) = expanded {
                    scope.set(&key, &value);
                }
            }
        }
        _ => {}
    }
}

/// Says how the name of an image is written, where that is all that is wrong with it.
fn spelling(name: &str) -> Option<String> {
    let is_name = |name: &str| name.parse::<Reference>().is_ok();
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    let lower = bare.to_lowercase();
    match (bare != name, lower != bare) {
        (true, _) if is_name(bare) => Some(format!("write it without a scheme: `{bare}`")),
        (_, true) if is_name(&lower) => Some(format!("write it in lower case: `{lower}`")),
        _ => None,
    }
}
