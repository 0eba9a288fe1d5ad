//! The Dockerfile as a frontend from an image sees it: a folder with the file, and maybe with its
//! ignore file.
//!
//! A file of the user is shown where it lies, like every frontend is used to; a text that came
//! from elsewhere, or was put together, is written into a folder of its own.

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::request::BuildRequest;
use crate::frontend::FrontendOptions;
use crate::frontend::syntax;
use crate::session::Session;
use crate::source::local::{self, EmptyContext, LocalError};

/// Name of the folder in a definition.
pub(in crate::engine) const DOCKERFILE_FOLDER: &str = "dockerfile";
/// Ends the name of a Dockerfile's own ignore file.
const IGNORE_FILE: &str = ".dockerignore";

/// A Dockerfile that was read.
#[derive(Debug)]
pub(in crate::engine) struct ReadDockerfile<'a> {
    /// Its name.
    pub(in crate::engine) filename: &'a str,
    /// Its text, as it is to be understood.
    pub(in crate::engine) text: &'a str,
    /// Where it lies, if that is on this machine.
    pub(in crate::engine) path: Option<&'a Path>,
}

/// What the folder is, where one is lent.
#[derive(Debug)]
pub(in crate::engine) struct LentDockerfile {
    folder: PathBuf,
    /// Set where the folder was made for this build.
    _made: Option<EmptyContext>,
}

impl ReadDockerfile<'_> {
    /// Makes the folder, if a frontend from an image is going to read the file.
    pub(in crate::engine) fn lend(
        &self,
        engine: &Engine,
        request: &BuildRequest,
    ) -> Result<Option<LentDockerfile>, EngineError> {
        let options = FrontendOptions {
            build_args: request.build_args.clone(),
            ..FrontendOptions::default()
        };
        if syntax::foreign(self.text, &options).is_none() {
            return Ok(None);
        }
        if request.ignore_file.is_none()
            && let Some(folder) = self.users_folder()?
        {
            return Ok(Some(LentDockerfile {
                folder,
                _made: None,
            }));
        }
        let made = EmptyContext::new(&engine.dir("tmp"))?;
        let write = |name: &str, text: &str| {
            let path = made.path().join(name);
            let parent = path.parent().unwrap_or(made.path());
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|source| LocalError::Io { path, source })
        };
        write(self.filename, self.text)?;
        if let Some(path) = &request.ignore_file {
            let text = local::read_text(path)?.unwrap_or_default();
            write(&format!("{}{IGNORE_FILE}", self.filename), &text)?;
        }
        Ok(Some(LentDockerfile {
            folder: made.path().to_owned(),
            _made: Some(made),
        }))
    }

    /// Returns the folder of the user in which the file lies under its name, word for word.
    fn users_folder(&self) -> Result<Option<PathBuf>, EngineError> {
        let Some(path) = self.path.filter(|path| path.ends_with(self.filename)) else {
            return Ok(None);
        };
        if local::read_text(path)?.as_deref() != Some(self.text) {
            return Ok(None);
        }
        let depth = Path::new(self.filename).components().count();
        let folder = path.ancestors().nth(depth).unwrap_or(Path::new(""));
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let found = folder.canonicalize().map_err(|source| LocalError::Io {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Some(found))
    }
}

impl LentDockerfile {
    /// Lends the folder to the build.
    pub(in crate::engine) fn add_to(&self, session: &mut Session) {
        let folders = &mut session.build_contexts;
        folders.insert(DOCKERFILE_FOLDER.to_owned(), self.folder.clone());
    }
}
