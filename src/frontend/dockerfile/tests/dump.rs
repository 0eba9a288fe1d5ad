//! A tree as text, one line per thing, for comparing.

use std::fmt::Write as _;

use crate::frontend::dockerfile::ast::{Dockerfile, Word};
use crate::frontend::dockerfile::instruction::{
    CommandLine, FileArguments, Healthcheck, Heredoc, Instruction, InstructionKind, KeyValue,
};

/// The whole tree.
pub(super) fn dump(dockerfile: &Dockerfile) -> String {
    let mut out = Dump::default();
    let directives = &dockerfile.directives;
    out.optional("directive syntax", directives.syntax.as_ref());
    out.optional("directive escape", directives.escape.as_ref());
    out.optional("directive check", directives.check.as_ref());
    for instruction in &dockerfile.global_args {
        out.instruction(instruction);
    }
    for stage in &dockerfile.stages {
        out.line(format!("stage {}", stage.name().unwrap_or_default()).trim_end());
        out.depth += 1;
        out.instruction(&stage.header);
        for instruction in &stage.instructions {
            out.instruction(instruction);
        }
        out.depth -= 1;
    }
    out.text
}

#[derive(Default)]
struct Dump {
    text: String,
    depth: usize,
}

impl Dump {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(self.depth));
    }

    fn word(&mut self, name: &str, word: &Word) {
        self.line(&format!("{name} {:?} @{}", word.raw, word.span));
    }

    fn words(&mut self, name: &str, words: &[Word]) {
        for word in words {
            self.word(name, word);
        }
    }

    fn optional(&mut self, name: &str, word: Option<&Word>) {
        if let Some(word) = word {
            self.word(name, word);
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        self.words("# ", &instruction.comments);
        let Instruction {
            span,
            original,
            kind,
            ..
        } = instruction;
        self.line(&format!("{} @{span} {original:?}", kind.keyword()));
        assert!(instruction.keyword().eq_ignore_ascii_case(kind.keyword()));
        self.depth += 1;
        self.kind(kind);
        self.depth -= 1;
    }

    fn kind(&mut self, kind: &InstructionKind) {
        match kind {
            InstructionKind::From(from) => {
                self.word("image", &from.image);
                self.optional("platform", from.platform.as_ref());
                self.words("after", &from.after);
                self.optional("as", from.as_keyword.as_ref());
                self.optional("name", from.name.as_ref());
            }
            InstructionKind::Copy(copy) => {
                self.optional("from", copy.from.as_ref());
                self.given("parents", copy.parents.then_some(true));
                self.files(&copy.files);
            }
            InstructionKind::Add(add) => {
                self.optional("checksum", add.checksum.as_ref());
                self.given("keep-git-dir", add.keep_git_dir);
                self.given("unpack", add.unpack);
                self.files(&add.files);
            }
            InstructionKind::Arg(arg) => {
                for declaration in &arg.args {
                    self.word("name", &declaration.name);
                    self.optional("default", declaration.value.as_ref());
                }
            }
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
                self.command(command);
            }
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => self.pairs(pairs),
            InstructionKind::Expose(words)
            | InstructionKind::Shell(words)
            | InstructionKind::Volume(words) => self.words("word", words),
            InstructionKind::Healthcheck(check) => self.healthcheck(check),
            InstructionKind::Maintainer(word)
            | InstructionKind::Stopsignal(word)
            | InstructionKind::User(word)
            | InstructionKind::Workdir(word) => self.word("word", word),
            InstructionKind::Onbuild(onbuild) => {
                self.line(&format!("expression {:?}", onbuild.expression));
                match &onbuild.trigger {
                    Some(trigger) => self.instruction(trigger),
                    None => self.line("not an instruction"),
                }
            }
            InstructionKind::Run(run) => {
                self.words("mount", &run.mounts);
                self.optional("network", run.network.as_ref());
                self.optional("security", run.security.as_ref());
                self.words("device", &run.devices);
                self.command(&run.command);
                self.heredocs(&run.heredocs);
                if run.sole_heredoc().is_some() {
                    self.line("the heredoc is the script");
                }
            }
        }
    }

    fn given(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.line(&format!("{name} {value}"));
        }
    }

    fn files(&mut self, files: &FileArguments) {
        self.optional("chown", files.chown.as_ref());
        self.optional("chmod", files.chmod.as_ref());
        self.given("link", files.link);
        self.words("exclude", &files.excludes);
        self.words("source", &files.sources);
        self.heredocs(&files.heredocs);
        self.word("destination", &files.destination);
    }

    fn heredocs(&mut self, heredocs: &[Heredoc]) {
        for heredoc in heredocs {
            let Heredoc {
                name,
                file_descriptor,
                expand,
                strip_tabs,
                span,
                content_span,
                ..
            } = heredoc;
            self.line(&format!(
                "heredoc {name:?} @{span} descriptor={file_descriptor} expand={expand} \
                 strip_tabs={strip_tabs}"
            ));
            self.line(&format!("  body {:?} @{content_span}", heredoc.body()));
        }
    }

    fn pairs(&mut self, pairs: &[KeyValue]) {
        for pair in pairs {
            self.word(if pair.legacy { "legacy key" } else { "key" }, &pair.key);
            self.word("value", &pair.value);
        }
    }

    fn command(&mut self, command: &CommandLine) {
        match command {
            CommandLine::Shell(text) => self.word("shell", text),
            CommandLine::Exec(words) if words.is_empty() => self.line("exec nothing"),
            CommandLine::Exec(words) => self.words("exec", words),
        }
    }

    fn healthcheck(&mut self, check: &Healthcheck) {
        let Healthcheck::Command(check) = check else {
            return self.line("none");
        };
        let durations = [
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("start-period", check.start_period),
            ("start-interval", check.start_interval),
        ];
        for (name, duration) in durations {
            if let Some(duration) = duration {
                self.line(&format!("{name} {duration:?}"));
            }
        }
        if let Some(retries) = check.retries {
            self.line(&format!("retries {retries}"));
        }
        self.command(&check.command);
    }
}
