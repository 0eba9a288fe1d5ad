//! What a build reads first: its contexts, the Dockerfile, the ignore file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Engine;
use super::error::{EngineError, ErrorKind};
use super::request::{BuildContext, BuildRequest, DockerfileSource, NamedContext};
use crate::frontend::diagnostic::Source;
use crate::frontend::ignore::IgnoreFile;
use crate::frontend::options::ContextSource;
use crate::oci::Digest;
use crate::progress::Progress;
use crate::source::local::{self, LocalError, UnpackedContext};

/// Name of the main build context in a definition.
const MAIN: &str = "context";
/// Names of the Dockerfile where none is given, in order.
const DOCKERFILE_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];
/// Name of the ignore file of a folder.
const IGNORE_FILE: &str = ".dockerignore";

/// The inputs of one build. Folders that were made for it go when it is dropped.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Name of the Dockerfile, as messages show it.
    pub(super) filename: String,
    /// Its text.
    pub(super) text: String,
    /// Folders by the name a definition calls them by.
    pub(super) folders: BTreeMap<String, PathBuf>,
    /// The main build context as the frontend names it.
    pub(super) context: ContextSource,
    /// The other contexts.
    pub(super) contexts: BTreeMap<String, ContextSource>,
    /// What was unpacked for this build.
    _unpacked: Option<UnpackedContext>,
}

impl Inputs {
    /// Opens contexts and reads the Dockerfile and its ignore file, and nothing else.
    pub(super) fn open(
        engine: &Engine,
        request: &mut BuildRequest,
        progress: &Progress,
    ) -> Result<Self, EngineError> {
        let context = std::mem::replace(&mut request.build_context, BuildContext::Empty);
        let (folder, unpacked) = match context {
            BuildContext::Directory(path) => (absolute(&path)?, None),
            BuildContext::Empty => made(UnpackedContext::empty(&engine.dir("tmp"))?),
            BuildContext::Tar(reader) => made(UnpackedContext::unpack(reader, &engine.dir("tmp"))?),
        };
        let step = progress.of_vertex(Digest::of(b"load build definition"));
        let (filename, text, ignore_beside) = read_dockerfile(&request.dockerfile, &folder)
            .inspect_err(|error| {
                step.start("[internal] load build definition");
                step.complete(Some(error.to_string()));
            })?;
        step.start(&format!("[internal] load build definition from {filename}"));
        step.complete(None);
        let excludes = read_ignore(&folder, ignore_beside.as_deref())?;
        let mut folders = BTreeMap::from([(MAIN.to_owned(), folder)]);
        let mut contexts = BTreeMap::new();
        for (name, context) in &request.named_contexts {
            contexts.insert(name.clone(), named(name, context, &mut folders)?);
        }
        let context = ContextSource::Local {
            name: MAIN.to_owned(),
            excludes,
        };
        Ok(Self {
            filename,
            text,
            folders,
            context,
            contexts,
            _unpacked: unpacked,
        })
    }
}

fn made(context: UnpackedContext) -> (PathBuf, Option<UnpackedContext>) {
    (context.path().to_owned(), Some(context))
}

fn absolute(path: &Path) -> Result<PathBuf, EngineError> {
    path.canonicalize().map_err(|error| {
        let text = format!(
            "cannot use {} as the build context: {error}",
            path.display()
        );
        EngineError::new(ErrorKind::User, text).with_source(error)
    })
}

/// Returns name and text of the Dockerfile, and where an ignore file of its own would be.
fn read_dockerfile(
    source: &DockerfileSource,
    folder: &Path,
) -> Result<(String, String, Option<PathBuf>), EngineError> {
    let missing = |name: &str| {
        let text = format!("failed to read dockerfile: {name}: no such file or directory");
        EngineError::new(ErrorKind::User, text)
            .with_hint("name the Dockerfile with -f, or the folder that holds it")
    };
    let beside = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(IGNORE_FILE);
        PathBuf::from(name)
    };
    match source {
        DockerfileSource::Text(text) => Ok(("Dockerfile".to_owned(), text.clone(), None)),
        DockerfileSource::Default => {
            for name in DOCKERFILE_NAMES {
                if let Some(text) = local::read_text_in(folder, Path::new(name))? {
                    return Ok((name.to_owned(), text, Some(beside(&folder.join(name)))));
                }
            }
            Err(missing(DOCKERFILE_NAMES[0]))
        }
        DockerfileSource::InContext(name) => match local::read_text_in(folder, Path::new(name))? {
            Some(text) => Ok((name.clone(), text, Some(beside(&folder.join(name))))),
            None => Err(missing(name)),
        },
        DockerfileSource::File(path) => match local::read_text(path)? {
            Some(text) => {
                let shown = path
                    .file_name()
                    .unwrap_or(path.as_os_str())
                    .to_string_lossy();
                Ok((shown.into_owned(), text, Some(beside(path))))
            }
            None => Err(missing(&path.to_string_lossy())),
        },
    }
}

/// Reads the ignore file beside the Dockerfile, or else that of the folder.
fn read_ignore(folder: &Path, beside: Option<&Path>) -> Result<Vec<String>, EngineError> {
    let own = match beside {
        Some(path) => local::read_text(path)?.map(|text| (path, text)),
        None => None,
    };
    let found = match own {
        Some(found) => Some(found),
        None => {
            let path = Path::new(IGNORE_FILE);
            local::read_text_in(folder, path)?.map(|text| (path, text))
        }
    };
    let Some((path, text)) = found else {
        return Ok(Vec::new());
    };
    let file = IgnoreFile::parse(&text).map_err(|findings| {
        let source = Source::new(path.to_string_lossy(), text.as_str());
        let text = format!("{} cannot be used", path.display());
        EngineError::new(ErrorKind::User, text).with_diagnostic(findings.render(&source))
    })?;
    Ok(file.patterns())
}

fn named(
    name: &str,
    context: &NamedContext,
    folders: &mut BTreeMap<String, PathBuf>,
) -> Result<ContextSource, EngineError> {
    match context {
        NamedContext::Directory(path) => {
            let folder = absolute(path)?;
            let excludes = read_ignore(&folder, None)?;
            folders.insert(name.to_owned(), folder);
            Ok(ContextSource::Local {
                name: name.to_owned(),
                excludes,
            })
        }
        NamedContext::Image(reference) => Ok(ContextSource::Image(reference.to_string())),
        NamedContext::OciLayout { .. } | NamedContext::Stage(_) => {
            let text = format!("build context {name:?}: only folders and images are supported");
            Err(EngineError::new(ErrorKind::User, text)
                .with_hint("load the layout with `cooper load` and name the image"))
        }
    }
}

impl From<LocalError> for EngineError {
    fn from(error: LocalError) -> Self {
        Self::new(ErrorKind::User, crate::solver::error::chain(&error)).with_source(error)
    }
}
