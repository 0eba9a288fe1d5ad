//! Keyword, flags and arguments → a typed instruction.
//!
//! One function per instruction or family. `files` holds COPY and ADD, `command` what runs
//! processes. ONBUILD is not here: reading its trigger needs the lines that follow.

mod command;
mod files;

use super::ast::Word;
use super::flags::{Flag, Flags};
use super::instruction::{
    ArgDeclaration, ArgInstruction, FromInstruction, Heredoc, InstructionKind, KeyValue,
};
use super::json;
use super::keyword::Keyword;
use super::lexer::Slice;
use super::words::{split_assignment, split_first, split_key, split_plain, split_quoted};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::suggest::nearest;

/// An instruction that was cut into its parts.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// The keyword as written.
    pub(super) keyword_slice: Slice<'a>,
    /// Its flags.
    pub(super) flags: Vec<Flag<'a>>,
    /// What stands behind the flags.
    pub(super) arguments: Slice<'a>,
    /// The heredocs below it.
    pub(super) heredocs: Vec<Heredoc>,
}

/// The parts of an instruction whose keyword and flags are known.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    keyword: Keyword,
    /// The keyword as written, for findings about the whole instruction.
    keyword_slice: Slice<'a>,
    /// Its checked flags.
    flags: Flags<'a>,
    /// What stands behind the flags.
    slice: Slice<'a>,
    /// Its heredocs.
    heredocs: Vec<Heredoc>,
    /// The escape character of the file.
    escape: char,
}

impl<'a> Arguments<'a> {
    /// Checks the flags of an instruction.
    ///
    /// # Errors
    ///
    /// Fails for flags the instruction does not know.
    pub(super) fn new(
        keyword: Keyword,
        parts: Parts<'a>,
        escape: char,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let flags = if looks_at_flags(keyword, parts.arguments) {
            Flags::check(parts.flags, keyword.flags(), keyword.name())?
        } else {
            warnings.extend(parts.flags.first().map(|flag| flag.ignored(keyword.name())));
            Flags::none()
        };
        Ok(Self {
            keyword,
            keyword_slice: parts.keyword_slice,
            flags,
            slice: parts.arguments,
            heredocs: parts.heredocs,
            escape,
        })
    }

    /// Reads what the instruction says; findings that do not stop the build go to `warnings`.
    ///
    /// # Errors
    ///
    /// Fails when the arguments are not what the instruction takes.
    pub(super) fn read(
        self,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<InstructionKind, Diagnostic> {
        Ok(match self.keyword {
            Keyword::Add => InstructionKind::Add(Box::new(files::add(self, warnings)?)),
            Keyword::Copy => InstructionKind::Copy(Box::new(files::copy(self, warnings)?)),
            Keyword::Arg => InstructionKind::Arg(self.arg()?),
            Keyword::Cmd => InstructionKind::Cmd(command::command_line(&self, warnings)?),
            Keyword::Entrypoint => {
                InstructionKind::Entrypoint(command::command_line(&self, warnings)?)
            }
            Keyword::Env => InstructionKind::Env(self.key_values()?),
            Keyword::Label => InstructionKind::Label(self.key_values()?),
            Keyword::Expose => InstructionKind::Expose(self.expose()?),
            Keyword::From => InstructionKind::From(Box::new(self.from()?)),
            Keyword::Healthcheck => {
                InstructionKind::Healthcheck(command::healthcheck(&self, warnings)?)
            }
            Keyword::Maintainer => InstructionKind::Maintainer(self.one("a name")?),
            Keyword::Onbuild => return Err(self.error("ONBUILD cannot be read here")),
            Keyword::Run => InstructionKind::Run(Box::new(command::run(self, warnings)?)),
            Keyword::Shell => InstructionKind::Shell(self.shell()?),
            Keyword::Stopsignal => {
                InstructionKind::Stopsignal(self.one("a signal, for example SIGTERM")?)
            }
            Keyword::User => {
                InstructionKind::User(self.one("a user, for example app or 1000:1000")?)
            }
            Keyword::Volume => InstructionKind::Volume(self.volume(warnings)?),
            Keyword::Workdir => InstructionKind::Workdir(self.one("a path")?),
        })
    }

    /// An error about the keyword.
    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.keyword_slice.span(), message)
    }

    /// The error for an instruction without arguments.
    fn nothing(&self, needs: &str) -> Diagnostic {
        let name = self.keyword.name();
        self.error(format!("{name} needs {needs}"))
            .with_label("nothing follows")
    }

    /// All of the text as the one argument.
    fn one(&self, needs: &str) -> Result<Word, Diagnostic> {
        if self.slice.text.is_empty() {
            return Err(self.nothing(needs));
        }
        Ok(self.slice.word())
    }

    fn expose(&self) -> Result<Vec<Word>, Diagnostic> {
        if self.slice.text.is_empty() {
            return Err(self.nothing("a port, for example 8080/tcp"));
        }
        let mut ports: Vec<Word> = split_plain(self.slice).iter().map(Slice::word).collect();
        // The order of the image's history.
        ports.sort_by(|left, right| left.raw.cmp(&right.raw));
        Ok(ports)
    }

    fn volume(&self, warnings: &mut Vec<Diagnostic>) -> Result<Vec<Word>, Diagnostic> {
        let paths = match json::parse_list(self.slice)? {
            Some(list) => list,
            None => {
                command::warn_about_lost_list(self.slice, "paths", warnings);
                split_plain(self.slice).iter().map(Slice::word).collect()
            }
        };
        if let Some(blank) = paths.iter().find(|path| path.raw.trim().is_empty()) {
            return Err(Diagnostic::error(blank.span, "empty path of a volume"));
        }
        if paths.is_empty() {
            return Err(self.nothing("a path"));
        }
        let trim = |path: Word| Word::new(path.raw.trim(), path.span);
        Ok(paths.into_iter().map(trim).collect())
    }

    fn shell(&self) -> Result<Vec<Word>, Diagnostic> {
        let help = "write for example `SHELL [\"/bin/bash\", \"-c\"]`";
        match json::parse_list(self.slice)? {
            Some(list) if list.is_empty() => Err(self.nothing("a program").with_help(help)),
            Some(list) => Ok(list),
            None if self.slice.text.is_empty() => {
                Err(self.nothing("a program and its arguments").with_help(help))
            }
            None => Err(
                Diagnostic::error(self.slice.span(), "SHELL takes a JSON list only")
                    .with_label("not a JSON list")
                    .with_help(help),
            ),
        }
    }

    fn arg(&self) -> Result<ArgInstruction, Diagnostic> {
        let words = split_quoted(self.slice, self.escape);
        if words.is_empty() {
            return Err(self
                .nothing("a name")
                .with_help("write `ARG NAME` or `ARG NAME=default`"));
        }
        let mut args = Vec::with_capacity(words.len());
        for word in words {
            let (name, value) = split_assignment(word);
            if name.text.is_empty() {
                return Err(Diagnostic::error(word.span(), "ARG without a name")
                    .with_help("write `NAME=default` without a space before the `=`"));
            }
            args.push(ArgDeclaration {
                name: name.word(),
                value: value.map(|value| value.word()),
            });
        }
        Ok(ArgInstruction { args })
    }

    /// The pairs of ENV and LABEL.
    fn key_values(&self) -> Result<Vec<KeyValue>, Diagnostic> {
        let name = self.keyword.name();
        let (pairs, legacy) = pairs(name, self.slice, self.escape)?;
        if pairs.is_empty() {
            return Err(self
                .nothing("a name and a value")
                .with_help(format!("write `{name} KEY=value`")));
        }
        let pair = |(key, value): (Slice<'a>, Slice<'a>)| {
            if key.text.is_empty() {
                let message = format!("{name} pair without a name");
                return Err(Diagnostic::error(key.span().join(value.span()), message)
                    .with_help("write `KEY=value` without a space before the `=`"));
            }
            Ok(KeyValue {
                key: key.word(),
                value: value.word(),
                legacy,
            })
        };
        let mut read = Vec::with_capacity(pairs.len());
        for each in pairs {
            read.push(pair(each)?);
        }
        Ok(read)
    }

    fn from(&self) -> Result<FromInstruction, Diagnostic> {
        let words = split_plain(self.slice);
        let platform = self.flags.value("platform");
        let (image, as_keyword, name) = match words.as_slice() {
            [] => {
                return Err(self
                    .nothing("an image")
                    .with_help("write `FROM image` or `FROM scratch`"));
            }
            [image] => (image, None, None),
            [image, word, name] if word.text.eq_ignore_ascii_case("as") => {
                (image, Some(word), Some(name))
            }
            [image, rest @ ..] => return Err(from_rest(image.text, rest)),
        };
        if let Some(name) = name {
            check_stage_name(name)?;
        }
        Ok(FromInstruction {
            image: image.word(),
            platform,
            after: self.flags.values("after"),
            as_keyword: as_keyword.map(Slice::word),
            name: name.map(Slice::word),
        })
    }
}

/// Whether the language looks at the flags of an instruction; those of the others mean nothing.
fn looks_at_flags(keyword: Keyword, arguments: Slice<'_>) -> bool {
    match keyword {
        Keyword::Arg | Keyword::Stopsignal => false,
        Keyword::Healthcheck => !split_first(arguments).0.text.eq_ignore_ascii_case("NONE"),
        _ => true,
    }
}

/// Checks what even an instruction that is not looked at yet must hold to: a JSON list holds
/// strings, ENV and LABEL have values.
///
/// # Errors
///
/// Fails when the arguments do not.
pub(super) fn check_shape(
    keyword: Keyword,
    arguments: Slice<'_>,
    escape: char,
) -> Result<(), Diagnostic> {
    match keyword {
        Keyword::Add
        | Keyword::Cmd
        | Keyword::Copy
        | Keyword::Entrypoint
        | Keyword::Run
        | Keyword::Shell
        | Keyword::Volume => json::parse_list(arguments).map(|_| ()),
        Keyword::Healthcheck => json::parse_list(split_first(arguments).1).map(|_| ()),
        Keyword::Env | Keyword::Label => pairs(keyword.name(), arguments, escape).map(|_| ()),
        _ => Ok(()),
    }
}

/// Cuts the arguments of ENV or LABEL into keys and values; whether they have the old form.
fn pairs<'a>(
    name: &str,
    arguments: Slice<'a>,
    escape: char,
) -> Result<(Vec<(Slice<'a>, Slice<'a>)>, bool), Diagnostic> {
    let words = split_quoted(arguments, escape);
    if words.first().is_some_and(|first| !first.text.contains('=')) {
        let (key, value) = split_key(arguments);
        if value.text.is_empty() {
            let message = format!("`{}` has no value", key.text);
            return Err(Diagnostic::error(key.span(), message)
                .with_help(format!("write `{name} {}=…`", key.text)));
        }
        return Ok((vec![(key, value)], true));
    }
    let mut pairs = Vec::new();
    for word in words {
        let (key, Some(value)) = split_assignment(word) else {
            let message = format!("{name} pair without `=`");
            return Err(Diagnostic::error(word.span(), message)
                .with_label("not a pair")
                .with_help("put a value with spaces in double quotes: `KEY=\"two words\"`"));
        };
        pairs.push((key, value));
    }
    Ok((pairs, false))
}

/// The error for what may not stand behind the image of FROM.
fn from_rest(image: &str, rest: &[Slice<'_>]) -> Diagnostic {
    let is_as = |word: &Slice<'_>| word.text.eq_ignore_ascii_case("as");
    match rest {
        [word] if is_as(word) => Diagnostic::error(word.span(), "AS needs the name of the stage"),
        [word, _, extra, ..] if is_as(word) => {
            Diagnostic::error(extra.span(), "unexpected word after the name of the stage")
                .with_help("the name of a stage is a single word")
        }
        [word, ..] if word.text.starts_with("--") => {
            Diagnostic::error(word.span(), "flags stand before the image")
                .with_help(format!("write `FROM {} {image}`", word.text))
        }
        [word, ..] => {
            let help = match nearest(word.text, ["AS"]) {
                Some(_) => "did you mean `AS`?".to_owned(),
                None => format!("to name the stage, write `FROM {image} AS {}`", word.text),
            };
            Diagnostic::error(word.span(), "unexpected word after the image").with_help(help)
        }
        [] => Diagnostic::error(
            crate::frontend::diagnostic::Span::START,
            "FROM needs an image",
        ),
    }
}

fn check_stage_name(name: &Slice<'_>) -> Result<(), Diagnostic> {
    let mut letters = name.text.chars();
    let starts_well = letters.next().is_some_and(|ch| ch.is_ascii_alphabetic());
    let goes_on_well =
        letters.all(|ch| ch.is_ascii_alphanumeric() || matches!(ch, '-' | '_' | '.'));
    if starts_well && goes_on_well {
        return Ok(());
    }
    Err(Diagnostic::error(
        name.span(),
        format!("`{}` cannot be the name of a stage", name.text),
    )
    .with_help("start with a letter; use letters, digits, `-`, `_` and `.`"))
}
