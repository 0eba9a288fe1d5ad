//! Instructions that only change the config: `CMD`, `ENTRYPOINT`, `HEALTHCHECK`, `MAINTAINER`,
//! `SHELL`, `STOPSIGNAL`, `VOLUME`.

use super::{Lowerer, Lowering, StageState, signal, with_shell};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::Word;
use crate::frontend::dockerfile::instruction::{CommandLine, Healthcheck};
use crate::frontend::image_config::{self, go_list, go_quoted_list};
use crate::frontend::lint;
use crate::oci::Empty;

impl Lowerer<'_> {
    /// `CMD`
    pub(super) fn cmd(&mut self, state: &mut StageState, command: &CommandLine) {
        self.warn_of_earlier(state, "CMD");
        let args = self.arguments(state, "CMD", command);
        let text = format!("CMD {}", go_quoted_list(&args));
        state.image.config.cmd = Some(args).filter(|args| !args.is_empty());
        state.image.config.args_escaped = true;
        self.commit(state, text);
    }

    /// `ENTRYPOINT`; forgets the `CMD` of the base, which was made for another entrypoint.
    pub(super) fn entrypoint(&mut self, state: &mut StageState, command: &CommandLine) {
        self.warn_of_earlier(state, "ENTRYPOINT");
        let args = self.arguments(state, "ENTRYPOINT", command);
        let text = format!("ENTRYPOINT {}", go_quoted_list(&args));
        state.image.config.entrypoint = Some(args).filter(|args| !args.is_empty());
        if !state.last.contains_key("CMD") {
            state.image.config.cmd = None;
        }
        self.commit(state, text);
    }

    /// `HEALTHCHECK`
    pub(super) fn healthcheck(&mut self, state: &mut StageState, check: &Healthcheck) {
        self.warn_of_earlier(state, "HEALTHCHECK");
        let test = match check {
            Healthcheck::None => vec!["NONE".to_owned()],
            Healthcheck::Command(command) => match &command.command {
                CommandLine::Shell(word) => vec!["CMD-SHELL".to_owned(), word.raw.clone()],
                CommandLine::Exec(words) => {
                    let words = words.iter().map(|word| word.raw.clone());
                    std::iter::once("CMD".to_owned()).chain(words).collect()
                }
            },
        };
        let check = image_config::healthcheck(check, test);
        let text = image_config::healthcheck_text(&check);
        state.image.config.healthcheck = Some(check);
        self.commit(state, format!("HEALTHCHECK {text}"));
    }

    /// `MAINTAINER`
    pub(super) fn maintainer(&self, state: &mut StageState, author: &Word) {
        state.image.author.clone_from(&author.raw);
        self.commit(state, format!("MAINTAINER {}", author.raw));
    }

    /// `SHELL`
    pub(super) fn shell(&self, state: &mut StageState, words: &[Word]) {
        let shell: Vec<String> = words.iter().map(|word| word.raw.clone()).collect();
        let text = format!("SHELL {}", go_list(&shell));
        state.image.config.shell = Some(shell);
        self.commit(state, text);
    }

    /// `STOPSIGNAL`
    pub(super) fn stopsignal(&mut self, state: &mut StageState, word: &Word) -> Lowering<()> {
        let signal = self.expand(state, word)?;
        if !signal::is_signal(&signal) {
            let message = format!("{signal:?} is not a signal");
            return Err(Box::new(Diagnostic::error(word.span, message)));
        }
        let text = format!("STOPSIGNAL {signal}");
        state.image.config.stop_signal = signal;
        self.commit(state, text);
        Ok(())
    }

    /// `VOLUME`
    pub(super) fn volume(&mut self, state: &mut StageState, words: &[Word]) -> Lowering<()> {
        let mut paths = Vec::new();
        for word in words {
            let path = self.expand(state, word)?;
            if path.is_empty() {
                let message = "the path of a volume is empty";
                return Err(Box::new(Diagnostic::error(word.span, message)));
            }
            paths.push(path);
        }
        let text = format!("VOLUME {}", go_list(&paths));
        let volumes = state.image.config.volumes.get_or_insert_default();
        volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        self.commit(state, text);
        Ok(())
    }

    fn warn_of_earlier(&mut self, state: &mut StageState, keyword: &'static str) {
        if let Some(earlier) = state.mark(keyword, self.here) {
            self.warnings
                .push(lint::multiple_instructions(keyword, earlier));
        }
    }

    /// Returns the arguments of a command; text for a shell is put behind the shell.
    fn arguments(
        &mut self,
        state: &StageState,
        keyword: &str,
        command: &CommandLine,
    ) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.iter().map(|word| word.raw.clone()).collect(),
            CommandLine::Shell(word) => {
                let shell = state.image.config.shell.as_ref();
                if shell.is_none_or(Vec::is_empty) {
                    self.warnings.push(lint::json_arguments(keyword, word.span));
                }
                with_shell(&state.image, &word.raw)
            }
        }
    }
}
