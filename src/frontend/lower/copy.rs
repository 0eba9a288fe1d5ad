//! `COPY` and `ADD`: copies of files on top of the file system so far, or as a layer of its own
//! with `--link`.

use super::copy_source::CopyFlags;
use super::directory::{is_windows, with_slashes};
use super::{Lowerer, Lowering, StageState, location, text_of};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::Word;
use crate::frontend::dockerfile::instruction::{AddInstruction, CopyInstruction, FileArguments};
use crate::frontend::expand::Expander;
use crate::frontend::paths;
use crate::frontend::plan::Step;
use crate::llb::pb;
use crate::llb::state::{About, FileAction, FileOp, Output, Owner};

/// Permissions of a file whose text stands in the Dockerfile.
const INLINE_FILE_MODE: i32 = 0o644;

/// A copy in the making.
pub(super) struct CopyJob<'a> {
    /// What is common to all sources.
    pub(super) flags: CopyFlags,
    /// Where the sources come from: `--from`; the main context where it is `None`.
    pub(super) from: Option<usize>,
    /// Where the files go.
    pub(super) dest: String,
    /// Whether paths are those of a Windows image.
    pub(super) is_windows: bool,
    /// Name of the step, given to sources behind a URL too.
    pub(super) name: String,
    /// The step.
    pub(super) step: &'a Step<'a>,
    /// The copies.
    pub(super) actions: Vec<FileAction>,
}

impl Lowerer<'_> {
    /// `COPY`
    pub(super) fn copy(
        &mut self,
        state: &mut StageState,
        step: &Step<'_>,
        copy: &CopyInstruction,
    ) -> Lowering<()> {
        let flags = CopyFlags {
            parents: copy.parents,
            ..self.common_flags(state, &copy.files)?
        };
        self.copy_files(state, step, &copy.files, flags)
    }

    /// `ADD`
    pub(super) fn add(
        &mut self,
        state: &mut StageState,
        step: &Step<'_>,
        add: &AddInstruction,
    ) -> Lowering<()> {
        let flags = CopyFlags {
            is_add: true,
            checksum: self.expand_optional(state, add.checksum.as_ref())?,
            checksum_span: add.checksum.as_ref().map(|word| word.span),
            keep_git_dir: add.keep_git_dir,
            unpack: add.unpack,
            ..self.common_flags(state, &add.files)?
        };
        if let (Some(_), Some(word)) = (&flags.checksum, &add.checksum)
            && add.files.sources.len() + add.files.heredocs.len() != 1
        {
            let message = "--checksum is for exactly one source";
            return Err(Box::new(Diagnostic::error(word.span, message)));
        }
        self.copy_files(state, step, &add.files, flags)
    }

    fn common_flags(&mut self, state: &StageState, files: &FileArguments) -> Lowering<CopyFlags> {
        let chmod = self.expand_optional(state, files.chmod.as_ref())?;
        let mode = match (&chmod, &files.chmod) {
            (Some(text), Some(word)) => parse_mode(text, word)?,
            _ => CopyMode::Keep,
        };
        Ok(CopyFlags {
            chown: self.expand_optional(state, files.chown.as_ref())?,
            chmod,
            mode,
            // Patterns are not expanded: a backslash in them protects a wildcard.
            excludes: files.excludes.iter().map(|word| word.raw.clone()).collect(),
            ..CopyFlags::default()
        })
    }

    fn copy_files(
        &mut self,
        state: &mut StageState,
        step: &Step<'_>,
        files: &FileArguments,
        flags: CopyFlags,
    ) -> Lowering<()> {
        let written_dest = self.expand(state, &files.destination)?;
        let mut history = String::from(if flags.is_add { "ADD" } else { "COPY" });
        if flags.parents {
            history += " --parents";
        }
        for (flag, value) in [("chown", &flags.chown), ("chmod", &flags.chmod)] {
            if let Some(value) = value {
                history += &format!(" --{flag}={value}");
            }
        }
        let text = self.shown_text(text_of(&step.instruction), &state.environment);
        let windows = is_windows(state);
        let mut job = CopyJob {
            flags,
            from: step.sources.first().copied().flatten(),
            dest: paths::destination(
                &state.cwd,
                &with_slashes(windows, &written_dest, &files.destination)?,
            ),
            is_windows: windows,
            name: self.name_of(state, step, &text),
            step,
            actions: Vec::with_capacity(files.sources.len() + files.heredocs.len()),
        };
        for word in &files.sources {
            let source = self.expand(state, word)?;
            history += &format!(" {source}");
            self.copy_source(&mut job, &source, word)?;
        }
        for heredoc in &files.heredocs {
            let body = self.heredoc_text(state, heredoc)?;
            history += &format!(" <<{}", heredoc.name);
            let root = self.inline_file(&heredoc.name, body, INLINE_FILE_MODE);
            let path = paths::absolute("/", &heredoc.name);
            job.add(
                Some(root),
                pb::FileActionCopy {
                    src: path,
                    ..pb::FileActionCopy::default()
                },
            );
        }
        history += &format!(" {written_dest} # buildkit");
        let is_linked = files.link == Some(true) && job.flags.chmod.is_none();
        self.finish_copy(state, job, &text, is_linked);
        self.commit_layer(state, history);
        Ok(())
    }

    fn heredoc_text(
        &mut self,
        state: &StageState,
        heredoc: &crate::frontend::dockerfile::instruction::Heredoc,
    ) -> Lowering<String> {
        let body = heredoc.body();
        if !heredoc.expand {
            return Ok(body);
        }
        let word = Word::new(body, heredoc.content_span);
        let expanded = Expander::heredoc_body().word(&word.raw, &state.environment);
        let expanded = expanded.map_err(|error| Box::new(error.diagnostic(&word)))?;
        for missing in &expanded.missing {
            self.warn_undefined(state, missing, &word);
        }
        Ok(expanded.value)
    }

    /// Adds the ops: one for the copies and, with `--link`, one that puts them on top.
    fn finish_copy(&mut self, state: &mut StageState, job: CopyJob<'_>, text: &str, link: bool) {
        let about = About {
            name: job.name.clone(),
            ignore_cache: self.plan.stages[state.index].ignore_cache,
            locations: vec![location(job.step.span())],
            after: state.after.clone(),
            ..About::default()
        };
        self.use_everything(state.root);
        let actions = job.actions;
        let Some(base) = state.root.filter(|_| link) else {
            let base = state.root;
            state.root = Some(self.builder.file(FileOp { base, actions }, about));
            return;
        };
        self.links += 1;
        let group = |weak| {
            Some(pb::ProgressGroup {
                id: format!("link-{}", self.links),
                name: job.name.clone(),
                weak,
            })
        };
        let alone = About {
            progress_group: group(true),
            ..about.clone()
        };
        state.shown -= usize::from(self.plan.stages[state.index].counted > 0);
        let merged = About {
            name: self.name_of(state, job.step, &format!("LINK {text}")),
            progress_group: group(false),
            ..about
        };
        let layer: Option<Output> = Some(self.builder.file(
            FileOp {
                base: None,
                actions,
            },
            alone,
        ));
        state.root = self.builder.merge(&[Some(base), layer], merged);
    }
}

impl CopyJob<'_> {
    /// Adds a copy; what is common to all sources is filled in.
    pub(super) fn add(&mut self, source: Option<Output>, copy: pb::FileActionCopy) {
        let flags = &self.flags;
        let (mode, mode_str) = match &flags.mode {
            CopyMode::Keep => (-1, String::new()),
            CopyMode::Octal(mode) => (*mode, String::new()),
            CopyMode::Symbolic(text) => (0, text.clone()),
        };
        let copy = pb::FileActionCopy {
            dest: self.dest.clone(),
            mode,
            mode_str,
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: flags.excludes.clone(),
            ..copy
        };
        self.actions.push(FileAction {
            source,
            owner: flags.chown.as_deref().map(Owner::parse),
            action: pb::file_action::Action::Copy(copy),
        });
    }
}

/// What `--chmod` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// Nothing.
    #[default]
    Keep,
    /// These permissions.
    Octal(i32),
    /// A change of permissions: `u=rwX,go=rX`.
    Symbolic(String),
}

fn parse_mode(text: &str, word: &Word) -> Lowering<CopyMode> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        let mode = i32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
        let error = || {
            let message = format!("{text:?} is not a mode: expected octal digits up to 7777");
            Box::new(Diagnostic::error(word.span, message))
        };
        return mode.map(CopyMode::Octal).ok_or_else(error);
    }
    if text.split(',').all(is_symbolic_clause) {
        return Ok(CopyMode::Symbolic(text.to_owned()));
    }
    let message = format!("{text:?} is not a mode");
    let help = "write octal digits (755) or changes (u=rwX,go=rX)";
    Err(Box::new(
        Diagnostic::error(word.span, message).with_help(help),
    ))
}

/// Checks `[ugoa]*([-+=][rwxXstugo]*)+`.
fn is_symbolic_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(behind) = rest.strip_prefix(['-', '+', '=']) {
        rest = behind.trim_start_matches(['r', 'w', 'x', 'X', 's', 't', 'u', 'g', 'o']);
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::diagnostic::Span;

    #[test]
    fn modes_are_octal_or_symbolic() {
        let word = Word::new("x", Span::START);
        for (text, expected) in [
            ("755", CopyMode::Octal(0o755)),
            ("07777", CopyMode::Octal(0o7777)),
            ("+x", CopyMode::Symbolic("+x".to_owned())),
            ("u=rwX,go=rX", CopyMode::Symbolic("u=rwX,go=rX".to_owned())),
            ("a+r-w=u", CopyMode::Symbolic("a+r-w=u".to_owned())),
            ("go=", CopyMode::Symbolic("go=".to_owned())),
        ] {
            assert_eq!(parse_mode(text, &word).unwrap(), expected, "{text}");
        }
        for bad in [
            "8",
            "10000",
            "x",
            "u",
            "u=q",
            "u=r,,g=r",
            "rwx",
            "99999999999",
        ] {
            assert!(parse_mode(bad, &word).is_err(), "{bad}");
        }
    }
}
