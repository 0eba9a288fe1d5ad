//! `WORKDIR` and `USER`.

use super::{Lowerer, Lowering, StageState, location};
use crate::frontend::dockerfile::Word;
use crate::frontend::plan::Step;
use crate::frontend::{lint, paths};
use crate::llb::pb;
use crate::llb::state::{About, FileAction, FileOp, Owner};

/// Permissions of a working directory that is created.
const DIRECTORY_MODE: i32 = 0o755;

impl Lowerer<'_> {
    /// `WORKDIR`: creates the directory, owned by the current user.
    pub(super) fn workdir(
        &mut self,
        state: &mut StageState,
        step: &Step<'_>,
        word: &Word,
    ) -> Lowering<()> {
        let path = self.expand(state, word)?;
        if !std::mem::replace(&mut state.has_workdir, true) && !path.starts_with('/') {
            self.warnings.push(lint::relative_workdir(&path, word.span));
        }
        let path = paths::working_directory(&state.image.config.working_dir, &path);
        state.image.config.working_dir.clone_from(&path);
        state.cwd = paths::clean(&path);
        let makes_layer = path != "/";
        if makes_layer {
            self.make_directory(state, step);
            self.commit_layer(state, format!("WORKDIR {path}"));
        } else {
            self.commit(state, format!("WORKDIR {path}"));
        }
        Ok(())
    }

    fn make_directory(&mut self, state: &mut StageState, step: &Step<'_>) {
        let user = &state.image.config.user;
        let owner = (!user.is_empty()).then(|| Owner::parse(user));
        let seconds = self.args.epoch;
        let mkdir = pb::FileActionMkDir {
            path: state.cwd.clone(),
            mode: DIRECTORY_MODE,
            make_parents: true,
            owner: None,
            timestamp: seconds.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let file = FileOp {
            base: state.root,
            actions: vec![FileAction {
                source: None,
                owner,
                action: pb::file_action::Action::Mkdir(mkdir),
            }],
        };
        let text = self.shown_text(step.instruction.original.trim(), &state.environment);
        let about = About {
            name: self.name_of(state, step, &text),
            locations: vec![location(step.span())],
            after: state.after.clone(),
            ..About::default()
        };
        self.use_everything(state.root);
        state.root = Some(self.builder.file(file, about));
    }

    /// `USER`
    pub(super) fn user(&mut self, state: &mut StageState, word: &Word) -> Lowering<()> {
        let user = self.expand(state, word)?;
        state.image.config.user.clone_from(&user);
        self.commit(state, format!("USER {user}"));
        Ok(())
    }
}
