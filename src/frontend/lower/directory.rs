//! `WORKDIR` and `USER`.

use super::{Lowerer, Lowering, StageState, location};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::Word;
use crate::frontend::plan::Step;
use crate::frontend::{lint, paths, windows};
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
        let written = self.expand(state, word)?;
        let path = with_slashes(is_windows(state), &written, word)?;
        if !std::mem::replace(&mut state.has_workdir, true) && !path.starts_with('/') {
            let warning = lint::relative_workdir(&written, word.span);
            self.warnings.push(warning);
        }
        let path = if is_windows(state) {
            paths::absolute(&state.cwd, &path)
        } else {
            paths::working_directory(&state.image.config.working_dir, &path)
        };
        Self::set_working_directory(state, path.clone());
        let makes_layer = path != "/";
        if makes_layer {
            self.make_directory(state, step);
            self.commit_layer(state, format!("WORKDIR {path}"));
        } else {
            self.commit(state, format!("WORKDIR {path}"));
        }
        Ok(())
    }

    /// Sets where steps run and relative paths count from.
    pub(super) fn set_working_directory(state: &mut StageState, path: String) {
        state.cwd = paths::clean(&path);
        state.image.config.working_dir = match is_windows(state) {
            true => windows::to_backslashes(&path),
            false => path,
        };
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

/// Says whether paths are those of a Windows image.
pub(super) fn is_windows(state: &StageState) -> bool {
    state.image.os == "windows"
}

/// Reads a path of the image or the context: in a file for a Windows image it looks different.
pub(super) fn with_slashes(is_windows: bool, path: &str, word: &Word) -> Lowering<String> {
    if !is_windows {
        return Ok(path.to_owned());
    }
    let fail = |message| Box::new(Diagnostic::error(word.span, message));
    windows::to_slashes(path).map_err(fail)
}
