//! How each rule is mended.
//!
//! | rule | what is done | left alone |
//! |---|---|---|
//! | `ConsistentInstructionCasing`, `FromAsCasing` | the keyword in the case of most | – |
//! | `StageNameCasing` | the name and its uses in lower case | uses made of variables |
//! | `LegacyKeyValueFormat` | `name=value`, quoted where it needs to be | quotes and escapes among spaces |
//! | `JSONArgsRecommended` | the words as a JSON list | anything that only a shell knows; `CMD` beside an entry point, `ENTRYPOINT` beside a `CMD` |
//! | `MaintainerDeprecated` | a label | where the stage sets that label |
//! | `NoEmptyContinuation` | the blank lines go | – |
//! | `ExposeProtoCasing` | the protocol in lower case | words with variables |

use std::collections::BTreeSet;

use super::{Edit, instructions, is, replace};
use crate::frontend::check::LintWarning;
use crate::frontend::diagnostic::Span;
use crate::frontend::dockerfile::instruction::{CommandLine, FromInstruction, KeyValue};
use crate::frontend::dockerfile::{Dockerfile, Instruction, InstructionKind, Stage, Word};
use crate::frontend::lint::Casing;

/// The label that holds what `MAINTAINER` held.
const AUTHORS: &str = "org.opencontainers.image.authors";

/// Words that mean something to a shell when they begin a command.
const SHELL_WORDS: [&str; 64] = [
    ".", ":", "[", "[[", "alias", "bg", "break", "builtin", "case", "cd", "command", "continue",
    "coproc", "declare", "dirs", "do", "done", "echo", "elif", "else", "enable", "esac", "eval",
    "exec", "exit", "export", "false", "fg", "fi", "for", "function", "getopts", "hash", "if",
    "jobs", "kill", "let", "local", "popd", "printf", "pushd", "pwd", "read", "readonly", "return",
    "select", "set", "shift", "source", "test", "then", "time", "times", "trap", "true", "type",
    "suspend", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
];

/// Mends the findings of one text.
pub(super) struct Mender<'a> {
    text: &'a str,
    file: &'a Dockerfile,
    /// Stages whose base image is known to bring no entry point.
    without_entrypoint: &'a [usize],
    /// Offsets of the keywords that are in another case than most.
    odd_keywords: BTreeSet<usize>,
}

impl<'a> Mender<'a> {
    pub(super) fn new(
        text: &'a str,
        file: &'a Dockerfile,
        warnings: &[LintWarning],
        without_entrypoint: &'a [usize],
    ) -> Self {
        let odd = warnings
            .iter()
            .filter(|warning| warning.rule.name == "ConsistentInstructionCasing")
            .map(|warning| warning.finding.span.start.offset());
        Self {
            text,
            file,
            without_entrypoint,
            odd_keywords: odd.collect(),
        }
    }

    /// Returns the changes that mend a finding; `None` for one that is left alone.
    pub(super) fn mend(&self, warning: &LintWarning) -> Option<Vec<Edit>> {
        let span = warning.finding.span;
        let edits = match warning.rule.name {
            "ConsistentInstructionCasing" => self.keyword(span),
            "FromAsCasing" => self.as_keyword(span),
            "StageNameCasing" => self.stage_name(span),
            "LegacyKeyValueFormat" => self.legacy_pair(span),
            "JSONArgsRecommended" => self.json_arguments(span),
            "MaintainerDeprecated" => self.maintainer(span),
            "NoEmptyContinuation" => Some(self.blank_lines(span, warning.finding.lines().1)),
            "ExposeProtoCasing" => self.protocol(span),
            _ => None,
        };
        edits.filter(|edits| !edits.is_empty())
    }

    /// Finds the instruction at a place, with the number of its stage.
    fn at(&self, span: Span) -> Option<(Option<usize>, &'a Instruction)> {
        let holds = |instruction: &&Instruction| {
            (instruction.span.start..instruction.span.end).contains(&span.start)
        };
        let stages = self.file.stages.iter().enumerate();
        let in_stages = stages.flat_map(|(index, stage)| {
            let all = std::iter::once(&stage.header).chain(&stage.instructions);
            all.map(move |instruction| (Some(index), instruction))
        });
        let globals = self
            .file
            .global_args
            .iter()
            .map(|instruction| (None, instruction));
        globals
            .chain(in_stages)
            .find(|(_, instruction)| holds(instruction))
    }

    /// Returns the keyword of an instruction as it will be.
    fn keyword_of(&self, instruction: &Instruction) -> String {
        let keyword = instruction.keyword();
        let place = instruction.keyword_span.start.offset();
        if !self.odd_keywords.contains(&place) {
            return keyword.to_owned();
        }
        match Casing::of_most(self.file) {
            Casing::Lower => keyword.to_lowercase(),
            Casing::Upper => keyword.to_uppercase(),
        }
    }

    fn keyword(&self, span: Span) -> Option<Vec<Edit>> {
        let (_, instruction) = self.at(span)?;
        let keyword = self.keyword_of(instruction);
        if is(instruction, "MAINTAINER") {
            // The whole instruction is replaced where it can be.
            if let Some(edits) = self.maintainer(instruction.keyword_span) {
                return Some(edits);
            }
        }
        let mut edits = vec![replace(self.text, span, instruction.keyword(), keyword)?];
        if let InstructionKind::From(from) = &instruction.kind
            && from.as_keyword.is_some()
        {
            edits.extend(self.matching_as(instruction, from));
        }
        Some(edits)
    }

    fn as_keyword(&self, span: Span) -> Option<Vec<Edit>> {
        let (_, instruction) = self.at(span)?;
        let InstructionKind::From(from) = &instruction.kind else {
            return None;
        };
        self.matching_as(instruction, from).map(|edit| vec![edit])
    }

    /// Writes `AS` as its `FROM` will be written.
    fn matching_as(&self, instruction: &Instruction, from: &FromInstruction) -> Option<Edit> {
        let word = from.as_keyword.as_ref()?;
        let expected = match Casing::of(&self.keyword_of(instruction))? {
            Casing::Lower => "as",
            Casing::Upper => "AS",
        };
        replace(self.text, word.span, &word.raw, expected)
    }

    fn stage_name(&self, span: Span) -> Option<Vec<Edit>> {
        let stage = self.file.stages.iter().find(|stage| {
            let name = stage.from.name.as_ref();
            name.is_some_and(|name| name.span == span)
        })?;
        let name = stage.from.name.as_ref()?;
        let lower = name.raw.to_lowercase();
        let mut edits = vec![replace(self.text, span, &name.raw, lower.clone())?];
        for later in &self.file.stages {
            edits.extend(self.use_in_word(&later.from.image, &lower));
            for instruction in &later.instructions {
                match &instruction.kind {
                    InstructionKind::Copy(copy) => {
                        let from = copy.from.as_ref();
                        edits.extend(from.and_then(|word| self.use_in_word(word, &lower)));
                    }
                    InstructionKind::Run(run) => {
                        let mounts = run.mounts.iter();
                        edits.extend(mounts.filter_map(|word| self.use_in_mount(word, &lower)));
                    }
                    _ => {}
                }
            }
        }
        Some(edits)
    }

    /// Writes a word in lower case that is the name of a stage.
    fn use_in_word(&self, word: &Word, name: &str) -> Option<Edit> {
        if word.raw == name || word.raw.to_lowercase() != name {
            return None;
        }
        replace(self.text, word.span, &word.raw, name)
    }

    /// Writes the name of a stage in a mount in lower case.
    fn use_in_mount(&self, word: &Word, name: &str) -> Option<Edit> {
        let field = |field: &str| {
            let (key, value) = field.split_once('=')?;
            let is_use = key == "from" && value != name && value.to_lowercase() == name;
            Some(format!("{key}={name}")).filter(|_| is_use)
        };
        let fields: Vec<&str> = word.raw.split(',').collect();
        let changed = |text: &&str| field(text).unwrap_or_else(|| (*text).to_owned());
        let mended: Vec<String> = fields.iter().map(changed).collect();
        let mended = mended.join(",");
        if mended == word.raw || word.raw.contains('"') {
            return None;
        }
        replace(self.text, word.span, &word.raw, mended)
    }

    fn legacy_pair(&self, span: Span) -> Option<Vec<Edit>> {
        let (_, instruction) = self.at(span)?;
        let (InstructionKind::Env(pairs) | InstructionKind::Label(pairs)) = &instruction.kind
        else {
            return None;
        };
        let [KeyValue { key, value, .. }] = pairs.as_slice() else {
            return None;
        };
        let is_plain = |ch: char| ch.is_ascii_alphanumeric() || "_.-/".contains(ch);
        if !key.raw.chars().all(is_plain) {
            return None;
        }
        let quoted = assigned(&value.raw, self.file.escape())?;
        let between = self
            .text
            .get(key.span.end.offset()..value.span.start.offset())?;
        if between.contains('\n') {
            return None;
        }
        let whole = key.span.join(value.span);
        let expected = format!("{}{between}{}", key.raw, value.raw);
        let edit = replace(self.text, whole, &expected, format!("{}={quoted}", key.raw))?;
        Some(vec![edit])
    }

    fn json_arguments(&self, span: Span) -> Option<Vec<Edit>> {
        let (stage, instruction) = self.at(span)?;
        let has = |keyword| instructions(self.file).any(|other| is(other, keyword));
        let command = match &instruction.kind {
            // What an entry point makes of its arguments is its own business.
            InstructionKind::Cmd(command) => {
                let known = self.without_entrypoint;
                let is_alone = stage.is_some_and(|stage| known.contains(&stage));
                (is_alone && !has("ENTRYPOINT")).then_some(command)?
            }
            // A shell ignores what JSON would pass on.
            InstructionKind::Entrypoint(command) => (!has("CMD")).then_some(command)?,
            _ => return None,
        };
        let CommandLine::Shell(word) = command else {
            return None;
        };
        let is_separator = |ch: char| ch == ' ' || ch == '\t';
        let words: Vec<&str> = word
            .raw
            .split(is_separator)
            .filter(|w| !w.is_empty())
            .collect();
        if word.span != span || !is_plain_command(&words) {
            return None;
        }
        let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let list = format!("[{}]", quoted.join(", "));
        Some(vec![replace(self.text, span, &word.raw, list)?])
    }

    fn maintainer(&self, span: Span) -> Option<Vec<Edit>> {
        let (stage, instruction) = self.at(span)?;
        let InstructionKind::Maintainer(author) = &instruction.kind else {
            return None;
        };
        let stage = self.file.stages.get(stage?)?;
        if sets_authors(stage) {
            return None;
        }
        let escape = self.file.escape();
        let mut quoted = String::new();
        for ch in author.raw.chars() {
            if ch == '"' || ch == '$' || ch == escape {
                quoted.push(escape);
            }
            quoted.push(ch);
        }
        let keyword = match Casing::of(&self.keyword_of(instruction)) {
            Some(Casing::Lower) => "label",
            _ => "LABEL",
        };
        let from = instruction.keyword_span;
        let between = self
            .text
            .get(from.end.offset()..author.span.start.offset())?;
        if between.contains('\n') {
            return None;
        }
        let whole = from.join(author.span);
        let expected = format!("{}{between}{}", instruction.keyword(), author.raw);
        let label = format!("{keyword} {AUTHORS}=\"{quoted}\"");
        Some(vec![replace(self.text, whole, &expected, label)?])
    }

    /// Takes the blank lines out that stand from a place to a line.
    fn blank_lines(&self, span: Span, last: u32) -> Vec<Edit> {
        let first = span.start.line;
        let lines = (1..).zip(self.text.lines());
        lines
            .filter(|(number, line)| (first..=last).contains(number) && line.trim().is_empty())
            .map(|(number, _)| Edit::Remove(number))
            .collect()
    }

    fn protocol(&self, span: Span) -> Option<Vec<Edit>> {
        let (_, instruction) = self.at(span)?;
        let InstructionKind::Expose(ports) = &instruction.kind else {
            return None;
        };
        let port = ports.iter().find(|port| port.span == span)?;
        let (number, protocol) = port.raw.rsplit_once('/')?;
        if port.raw.contains('$') {
            return None;
        }
        let mended = format!("{number}/{}", protocol.to_lowercase());
        Some(vec![replace(self.text, span, &port.raw, mended)?])
    }
}

/// Returns a value as it stands behind `=`, so that it is read as before; `None` where that
/// cannot be told.
fn assigned(value: &str, escape: char) -> Option<String> {
    let is_special = |ch: char| ch == '"' || ch == '\'' || ch == escape;
    let has_space = value.contains(char::is_whitespace);
    match (has_space, value.contains(is_special)) {
        (true, true) => None,
        (true, false) => Some(format!("\"{value}\"")),
        // A quote that is not closed would reach over what follows.
        (false, true) if !is_balanced(value, escape) => None,
        (false, _) => Some(value.to_owned()),
    }
}

/// Says whether every quote is closed and nothing is escaped.
fn is_balanced(value: &str, escape: char) -> bool {
    let mut quote = None;
    for ch in value.chars() {
        match quote {
            Some(open) if ch == open => quote = None,
            None if ch == '"' || ch == '\'' => quote = Some(ch),
            _ => {}
        }
    }
    quote.is_none() && !value.contains(escape)
}

/// Says whether a shell would run exactly these words, and no word of its own.
fn is_plain_command(words: &[&str]) -> bool {
    let Some(program) = words.first() else {
        return false;
    };
    let is_plain = |ch: char| ch.is_ascii_alphanumeric() || "_./:=@%+,-".contains(ch);
    words.iter().all(|word| word.chars().all(is_plain))
        && !program.contains(['=', '%', ','])
        && !SHELL_WORDS.contains(program)
}

/// Says whether a stage sets the label that holds its author.
fn sets_authors(stage: &Stage) -> bool {
    let is_authors = |pair: &KeyValue| pair.key.raw.trim_matches(['"', '\'']) == AUTHORS;
    stage
        .instructions
        .iter()
        .any(|instruction| match &instruction.kind {
            InstructionKind::Label(pairs) => pairs.iter().any(is_authors),
            _ => false,
        })
}
