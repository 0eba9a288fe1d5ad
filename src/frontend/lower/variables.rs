//! `ARG`, `ENV`, `LABEL`.

use super::{Lowerer, Lowering, StageState};
use crate::frontend::build_args::BuildArgs;
use crate::frontend::dockerfile::Instruction;
use crate::frontend::dockerfile::instruction::{ArgInstruction, KeyValue};
use crate::frontend::{image_config, lint};

impl Lowerer<'_> {
    /// `ARG`: the given value, else the default, else what is in scope of `FROM`.
    ///
    /// A value becomes a variable of the processes that follow, but not of the image. Like any
    /// later setting it wins over an earlier `ENV`.
    pub(super) fn arg(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        arg: &ArgInstruction,
    ) -> Lowering<()> {
        let args = self.args;
        let mut shown = Vec::new();
        for declaration in &arg.args {
            let name = &declaration.name.raw;
            self.warnings
                .extend(lint::secret_name("ARG", name, declaration.name.span));
            let value = match (args.given.get(name), &declaration.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(word)) => Some(self.expand(state, word)?),
                (None, None) => args.inherited(name).map(str::to_owned),
            };
            let is_own = declaration.value.is_some()
                || args.given.contains_key(name)
                || args.global.get(name).is_none();
            self.notes
                .arg(instruction, declaration, value.as_deref(), is_own);
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            if let Some(value) = &value
                && BuildArgs::is_variable(name)
            {
                state.environment.set(name, value);
            }
            state.declared.push((name.clone(), value));
        }
        self.commit(state, format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    /// `ENV`
    pub(super) fn env(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Lowering<()> {
        self.warn_of_legacy_pairs(instruction, pairs);
        let written = pairs;
        let pairs = self.pairs(state, written)?;
        let mut text = String::from("ENV");
        for ((name, value), written) in pairs.iter().zip(written) {
            self.warnings
                .extend(lint::secret_name("ENV", name, written.key.span));
            text += &format!(" {name}={value}");
            state.environment.set(name, value);
            image_config::set_env(&mut state.image, name, value);
        }
        self.commit(state, text);
        Ok(())
    }

    /// `LABEL`
    pub(super) fn label(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> Lowering<()> {
        self.warn_of_legacy_pairs(instruction, pairs);
        let pairs = self.pairs(state, pairs)?;
        let mut text = String::from("LABEL");
        let labels = state.image.config.labels.get_or_insert_default();
        for (name, value) in pairs {
            text += &format!(" {name}={value}");
            labels.insert(name, value);
        }
        self.commit(state, text);
        Ok(())
    }

    fn warn_of_legacy_pairs(&mut self, instruction: &Instruction, pairs: &[KeyValue]) {
        let keyword = instruction.keyword();
        for pair in pairs {
            let span = pair.key.span.join(pair.value.span);
            self.warnings.extend(lint::legacy_pair(keyword, pair, span));
        }
    }

    /// Expands both sides of all pairs before any of them counts.
    fn pairs(&mut self, state: &StageState, pairs: &[KeyValue]) -> Lowering<Vec<(String, String)>> {
        let mut expanded = Vec::new();
        for pair in pairs {
            expanded.push((
                self.expand(state, &pair.key)?,
                self.expand(state, &pair.value)?,
            ));
        }
        Ok(expanded)
    }
}
