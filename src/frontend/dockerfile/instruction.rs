//! The instructions of a Dockerfile, one type each.
//!
//! A [`Word`] is text that is not expanded yet; the lowering expands those the language expands
//! (see the table in `expand`). Flags that hold no variable in the language (booleans, durations,
//! counts) are parsed here. What may only be read after expansion (`--mount`, `--chmod`,
//! `--network` …) stays a [`Word`], beside a pure function that reads the expanded text.

use std::time::Duration;

use super::ast::Word;
use crate::frontend::diagnostic::Span;

/// One instruction and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The place of the keyword.
    pub keyword_span: Span,
    /// The whole instruction, from the keyword to its last line, heredoc bodies included.
    pub span: Span,
    /// The instruction as one line: keyword, flags and arguments, continuations joined,
    /// comments taken out, heredoc bodies not included.
    pub original: String,
    /// Comment lines above, back to the last instruction or empty comment, without `#` and
    /// surrounding space.
    pub comments: Vec<Word>,
    /// What it says.
    pub kind: InstructionKind,
}

impl Instruction {
    /// The keyword as written, in whatever case.
    pub fn keyword(&self) -> &str {
        // Keywords differ in case only.
        let length = self.kind.keyword().len();
        self.original.get(..length).unwrap_or_default()
    }

    /// The description of `name` in the comments above: a comment `name text` describes `name`.
    pub fn description(&self, name: &str) -> Option<&str> {
        let mut comments = self.comments.iter();
        comments.find_map(|comment| comment.raw.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// What an instruction says, by keyword.
///
/// Files may have millions of instructions, so what is large stands behind a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `FROM`; only in a stage's header, never among a stage's instructions.
    From(Box<FromInstruction>),
    /// `ADD`
    Add(Box<AddInstruction>),
    /// `ARG`
    Arg(ArgInstruction),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Box<CopyInstruction>),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `EXPOSE`: ports, each perhaps expanding to several words.
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`: the author.
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Box<OnbuildInstruction>),
    /// `RUN`
    Run(Box<RunInstruction>),
    /// `SHELL`: the argument list, at least one.
    Shell(Vec<Word>),
    /// `STOPSIGNAL`
    Stopsignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`: paths.
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

impl InstructionKind {
    /// The keyword in upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

impl InstructionKind {
    /// The heredocs that belong to it, those of a trigger included.
    pub fn heredocs(&self) -> &[Heredoc] {
        match self {
            Self::Run(run) => &run.heredocs,
            Self::Copy(copy) => &copy.files.heredocs,
            Self::Add(add) => &add.files.heredocs,
            Self::Onbuild(onbuild) => &onbuild.heredocs,
            _ => &[],
        }
    }
}

/// `FROM [--platform=P] [--after=stage …] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromInstruction {
    /// Image, earlier stage, named context or `scratch`; expanded with the global arguments.
    pub image: Word,
    /// `--platform`; expanded with the global arguments.
    pub platform: Option<Word>,
    /// Values of `--after`, in order: stages that are finished first; expanded as well.
    pub after: Vec<Word>,
    /// The word `AS` as written, for the casing rule.
    pub as_keyword: Option<Word>,
    /// The stage's name as written; names are compared in lower case.
    pub name: Option<Word>,
}

/// `ARG name[=value] …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgInstruction {
    /// The arguments it declares, in order.
    pub args: Vec<ArgDeclaration>,
}

/// One `name[=value]` of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name, to be expanded like the value.
    pub name: Word,
    /// The default, unexpanded; `None` when there is no `=`.
    pub value: Option<Word>,
}

/// A `key=value` of `ENV` or `LABEL`; both sides are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub key: Word,
    /// The value, quotes still in place.
    pub value: Word,
    /// Whether it was written `key value`, without `=`.
    pub legacy: bool,
}

/// The command of `RUN`, `CMD`, `ENTRYPOINT` or `HEALTHCHECK CMD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell. Never expanded here.
    Shell(Word),
    /// Arguments from the JSON form, decoded. Never expanded. May be empty (`CMD []`).
    Exec(Vec<Word>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstruction {
    /// The command. With heredocs, the shell text holds only the line with the markers.
    pub command: CommandLine,
    /// Heredoc bodies, in the order of their markers.
    pub heredocs: Vec<Heredoc>,
    /// Values of `--mount`, in order; expand, then read with `parse_mount`.
    pub mounts: Vec<Word>,
    /// `--network`; `default`, `none` or `host`, see `parse_network`.
    pub network: Option<Word>,
    /// `--security`; `sandbox` or `insecure`, see `parse_security`.
    pub security: Option<Word>,
    /// Values of `--device`, in order; expand, then read with `parse_device`.
    pub devices: Vec<Word>,
}

impl RunInstruction {
    /// The heredoc that is the whole command, if there is one: `RUN <<EOF`.
    ///
    /// Its body then is the script (run by the program its `#!` line names, if it has one).
    pub fn sole_heredoc(&self) -> Option<&Heredoc> {
        match (&self.command, self.heredocs.as_slice()) {
            (CommandLine::Shell(text), [heredoc]) if text.span == heredoc.span => Some(heredoc),
            _ => None,
        }
    }

    /// The text for the shell with the heredoc bodies behind it, for a shell that reads them.
    ///
    /// Returns nothing for the JSON form.
    pub fn shell_text(&self) -> Option<String> {
        let CommandLine::Shell(command) = &self.command else {
            return None;
        };
        let mut text = command.raw.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        Some(text)
    }
}

/// What `COPY` and `ADD` have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileArguments {
    /// Source paths, patterns or URLs in order, heredocs not among them.
    pub sources: Vec<Word>,
    /// Files given in the text itself.
    pub heredocs: Vec<Heredoc>,
    /// Where they go.
    pub destination: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`, octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`; `None` when not given.
    pub link: Option<bool>,
    /// Values of `--exclude`, in order.
    pub excludes: Vec<Word>,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Sources, destination and common flags.
    pub files: FileArguments,
    /// `--from`: stage name, stage number, image or named context.
    pub from: Option<Word>,
    /// `--parents`: keep the folders of the sources.
    pub parents: bool,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddInstruction {
    /// Sources, destination and common flags.
    pub files: FileArguments,
    /// `--checksum` of a remote source.
    pub checksum: Option<Word>,
    /// `--keep-git-dir` of a git source; `None` when not given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; `None` when not given: local archives are unpacked, remote ones are not.
    pub unpack: Option<bool>,
}

/// A here-document: `<<[-]NAME`, its body and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The name, without quotes.
    pub name: String,
    /// The descriptor it is bound to; 0 unless a number stands before `<<`.
    pub file_descriptor: u32,
    /// Whether variables are expanded in the body: the name was not quoted.
    pub expand: bool,
    /// Whether leading tabs of each line go (`<<-`); `content` still has them.
    pub strip_tabs: bool,
    /// The body as written, last line feed included, terminator not.
    pub content: String,
    /// The marker in the instruction's line.
    pub span: Span,
    /// The body, terminator not included.
    pub content_span: Span,
}

impl Heredoc {
    /// The body with leading tabs taken off when the marker asks for it.
    pub fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: forget the base image's check.
    None,
    /// `HEALTHCHECK [flags] CMD …`
    Command(Box<HealthcheckCommand>),
}

/// `HEALTHCHECK [flags] CMD …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckCommand {
    /// The command that checks.
    pub command: CommandLine,
    /// `--interval`
    pub interval: Option<Duration>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--start-period`
    pub start_period: Option<Duration>,
    /// `--start-interval`
    pub start_interval: Option<Duration>,
    /// `--retries`
    pub retries: Option<u32>,
}

/// `ONBUILD instruction`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnbuildInstruction {
    /// The instruction to run in images built from this one; `None` for text that is none, which
    /// only shows when it is triggered.
    pub trigger: Option<Box<Instruction>>,
    /// The heredocs below it.
    pub heredocs: Vec<Heredoc>,
    /// The text stored in the image's configuration: the trigger as one line, with heredoc
    /// bodies behind it. Parsing it again gives the trigger.
    pub expression: String,
}
