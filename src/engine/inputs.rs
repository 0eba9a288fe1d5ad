//! What a build reads first: its contexts, the Dockerfile, the ignore file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{EngineError, ErrorKind};
use super::foreign::lent::{DOCKERFILE_FOLDER, LentDockerfile, ReadDockerfile};
use super::policy::PolicyPlace;
use super::preprocess::preprocessed;
use super::remote::{self, Setup};
use super::request::{BuildContext, BuildRequest, DockerfileSource, NamedContext};
use super::warnings::DEFINITION_STEP;
use crate::frontend::diagnostic::Source;
use crate::frontend::ignore::IgnoreFile;
use crate::frontend::options::{ContextSource, FrontendOptions};
use crate::llb::Definition;
use crate::oci::{Descriptor, Digest};
use crate::session::{IgnoreLines, Session, UPLOAD_URL};
use crate::snapshot::View;
use crate::source::BlobFolder;
use crate::source::local::{self, EmptyContext, LocalError};

/// Name of the main build context in a definition.
const MAIN: &str = "context";
/// Name of the Dockerfile where none is given.
const DOCKERFILE: &str = "Dockerfile";
/// Name that is tried after it.
const CONTAINERFILE: &str = "Containerfile";
/// Name of the ignore file of a folder.
const IGNORE_FILE: &str = ".dockerignore";
/// Name of the ignore file of a folder with a [`CONTAINERFILE`].
const CONTAINER_IGNORE_FILE: &str = ".containerignore";

/// The inputs of one build. Folders that were made for it go when it is dropped.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Name of the Dockerfile, as messages show it.
    pub(super) filename: String,
    /// Its text.
    pub(super) text: String,
    /// Its path, where it is on this machine.
    pub(super) dockerfile: Option<PathBuf>,
    /// The main build context as the frontend names it.
    pub(super) context: ContextSource,
    /// The other contexts.
    pub(super) contexts: BTreeMap<String, ContextSource>,
    /// What the client lends, the folders of the contexts among it.
    pub(super) session: Arc<Session>,
    /// Time of what `SOURCE_DATE_EPOCH` names, in seconds since 1970.
    pub(super) epoch_s: Option<i64>,
    /// What is built instead of a Dockerfile.
    pub(super) definition: Option<Definition>,
    /// Tells the main build context from others, in explanations of cache misses.
    pub(super) place: String,
    /// The Dockerfile as a frontend from an image sees it.
    lent: Option<LentDockerfile>,
    /// What was made for this build.
    _made: Option<EmptyContext>,
}

/// The text of a Dockerfile and where it stands.
struct Found {
    filename: String,
    text: String,
    /// Its path, where it is on this machine.
    path: Option<PathBuf>,
    /// The ignore file of the build context.
    ignore: Option<IgnoreLines>,
    /// The build context, where it comes from elsewhere.
    view: Option<View>,
}

impl Inputs {
    /// Opens contexts and reads the Dockerfile and its ignore file. Of a context on this machine
    /// nothing else is read; one that comes from elsewhere is fetched.
    pub(super) async fn open(
        setup: &Setup<'_>,
        request: &mut BuildRequest,
        mut session: Session,
    ) -> Result<Self, EngineError> {
        let mut contexts = BTreeMap::new();
        for (name, context) in &request.named_contexts {
            let source = named(setup, name, context, &mut session).await?;
            contexts.insert(name.clone(), source);
        }
        let context = std::mem::replace(&mut request.build_context, BuildContext::Empty);
        let (main, made) = main_context(setup, context, &mut session).await?;
        let mut session = Arc::new(session);
        let step = setup.progress.of_vertex(Digest::of(DEFINITION_STEP));
        let is_in_remote = is_in_remote_context(&main, &request.dockerfile);
        judge_dockerfile(setup, is_in_remote).await?;
        let opened = match main {
            Main::Folder(folder) => open_folder(setup, &session, request, &folder).await,
            Main::Remote(source) => open_remote(setup, &session, request, source).await,
        };
        let (mut found, context) = opened.inspect_err(|error| {
            step.start("[internal] load build definition");
            step.complete(Some(error.to_string()));
        })?;
        let place = PolicyPlace {
            filename: found.filename.clone(),
            dockerfile: found.path.clone(),
            is_in_context: is_in_remote,
            folder: session.build_contexts.get(MAIN).cloned(),
            view: found.view.take(),
        };
        setup.guard.load(setup, &session, request, place)?;
        judge_dockerfile(setup, is_in_remote).await?;
        judge_context(setup, request, &context).await?;
        let places = (&context, &contexts);
        let epoch_s = named_epoch(setup, &session, request, &found, places).await?;
        let name = &found.filename;
        step.start(&format!("[internal] load build definition from {name}"));
        step.complete(None);
        if let Some(ignore) = found.ignore.take() {
            let ignore_files = &mut Arc::make_mut(&mut session).ignore_files;
            ignore_files.insert(MAIN.to_owned(), ignore);
        }
        let lent = lent(setup, request, &found, &context)?;
        if let Some(lent) = &lent {
            lent.add_to(Arc::make_mut(&mut session));
        }
        let folder = session.build_contexts.get(MAIN);
        let folder = folder.map(|folder| folder.display().to_string());
        let place = context.shown_url().or(folder).unwrap_or_default();
        Ok(Self {
            filename: found.filename,
            text: found.text,
            dockerfile: found.path,
            context,
            contexts,
            session,
            epoch_s,
            definition: None,
            place,
            lent,
            _made: made,
        })
    }
}

impl Inputs {
    /// Takes a definition for what is built.
    pub(super) fn of_definition(
        name: String,
        definition: Definition,
        session: Arc<Session>,
        place: String,
    ) -> Self {
        Self {
            filename: name,
            text: String::new(),
            dockerfile: None,
            context: ContextSource::Image("scratch".to_owned()),
            contexts: BTreeMap::new(),
            session,
            epoch_s: None,
            definition: Some(definition),
            place,
            lent: None,
            _made: None,
        }
    }

    /// Says whether a frontend from an image sees the Dockerfile apart from the build context.
    pub(super) fn lends_dockerfile(&self) -> bool {
        self.lent.is_some()
    }

    /// Returns the folder that is the main build context, if it is one of the user's.
    pub(super) fn main_folder(&self) -> Option<&Path> {
        let is_local = matches!(self.context, ContextSource::Local { .. });
        let folder = self.session.build_contexts.get(MAIN)?;
        (is_local && self._made.is_none()).then_some(folder)
    }
}

/// Lends the Dockerfile to a frontend from an image, unless it came with the build context, where
/// the frontend finds it too.
fn lent(
    setup: &Setup<'_>,
    request: &BuildRequest,
    found: &Found,
    context: &ContextSource,
) -> Result<Option<LentDockerfile>, EngineError> {
    let is_remote = matches!(context, ContextSource::Git(_) | ContextSource::Http { .. });
    let is_in_context = matches!(
        request.dockerfile,
        DockerfileSource::Default | DockerfileSource::InContext(_)
    );
    if is_remote && is_in_context {
        return Ok(None);
    }
    let read = ReadDockerfile {
        filename: &found.filename,
        text: &found.text,
        path: found.path.as_deref(),
    };
    read.lend(setup.engine, request)
}

/// Tells the time of what `SOURCE_DATE_EPOCH` names, if it names anything.
async fn named_epoch(
    setup: &Setup<'_>,
    session: &Arc<Session>,
    request: &BuildRequest,
    found: &Found,
    (context, contexts): (&ContextSource, &BTreeMap<String, ContextSource>),
) -> Result<Option<i64>, EngineError> {
    if !remote::may_name_epoch(request, &found.text) {
        return Ok(None);
    }
    let options = FrontendOptions {
        build_args: request.build_args.clone(),
        source_date_epoch: request.source_date_epoch_s,
        platform: Some(setup.platform.clone()),
        context: context.clone(),
        contexts: contexts.clone(),
        ..FrontendOptions::default()
    };
    let dockerfile = Source::new(found.filename.clone(), &found.text);
    setup.named_epoch(session, &dockerfile, &options).await
}

/// Has policies judge the Dockerfile, unless that is a part of the build context.
async fn judge_dockerfile(setup: &Setup<'_>, is_in_context: bool) -> Result<(), EngineError> {
    match is_in_context {
        true => Ok(()),
        false => {
            let folder = format!("local://{DOCKERFILE_FOLDER}");
            setup.guard.judge_input(folder, &setup.platform).await
        }
    }
}

/// Has policies judge a build context from elsewhere, out of which some of them came.
async fn judge_context(
    setup: &Setup<'_>,
    request: &BuildRequest,
    context: &ContextSource,
) -> Result<(), EngineError> {
    let epoch_s = request.source_date_epoch_s;
    match context.remote_definition(&request.build_args, epoch_s) {
        // A folder, or an image: it is judged when something is taken from it.
        Err(_) => Ok(()),
        Ok(definition) => setup.guard.judge_definition(definition).await.map(drop),
    }
}

/// Says whether the Dockerfile comes with a build context from elsewhere.
fn is_in_remote_context(main: &Main, dockerfile: &DockerfileSource) -> bool {
    let is_in_context = matches!(
        dockerfile,
        DockerfileSource::Default | DockerfileSource::InContext(_)
    );
    is_in_context && matches!(main, Main::Remote(_))
}

/// The main build context before anything of it is read.
enum Main {
    Folder(PathBuf),
    Remote(ContextSource),
}

/// Lends an archive in the store to the build, as if it had been uploaded.
fn uploaded(content: Descriptor, session: &mut Session) -> ContextSource {
    let name = content.digest.hex().to_owned();
    let url = format!("{UPLOAD_URL}{name}");
    session.uploads.insert(name, content);
    ContextSource::Http { url, unpack: true }
}

async fn main_context(
    setup: &Setup<'_>,
    context: BuildContext,
    session: &mut Session,
) -> Result<(Main, Option<EmptyContext>), EngineError> {
    let (folder, made) = match context {
        BuildContext::Directory(path) => (absolute(&path)?, None),
        BuildContext::Empty => {
            let made = EmptyContext::new(&setup.engine.dir("tmp"))?;
            (made.path().to_owned(), Some(made))
        }
        BuildContext::Tar(reader) => {
            let content = remote::keep_stream(setup.engine, reader).await?;
            return Ok((Main::Remote(uploaded(content, session)), None));
        }
        BuildContext::Object(object) => {
            let content = setup.keep_object(session, &object).await?;
            return Ok((Main::Remote(uploaded(content, session)), None));
        }
        BuildContext::Remote(url) => return Ok((Main::Remote(remote::source(&url)?), None)),
    };
    session
        .build_contexts
        .insert(MAIN.to_owned(), folder.clone());
    Ok((Main::Folder(folder), made))
}

async fn open_folder(
    setup: &Setup<'_>,
    session: &Arc<Session>,
    request: &BuildRequest,
    folder: &Path,
) -> Result<(Found, ContextSource), EngineError> {
    let found = match given_dockerfile(setup, session, request).await? {
        Some(found) => found,
        None => {
            let mut found = dockerfile_in(folder, &request.dockerfile)?;
            found.path = Some(folder.join(&found.filename));
            found
        }
    };
    let (excludes, ignore) = match &request.ignore_file {
        Some(path) => {
            let text = local::read_text(path)?;
            patterns_of(path, &text.ok_or_else(|| no_ignore_file(path))?)?
        }
        None => {
            let name = match request.dockerfile {
                DockerfileSource::Default => found.filename.as_str(),
                _ => DOCKERFILE,
            };
            read_ignore(folder, found.path.as_deref(), name)?
        }
    };
    let context = ContextSource::Local {
        name: MAIN.to_owned(),
        excludes,
    };
    Ok((Found { ignore, ..found }, context))
}

/// Opens a context that comes from elsewhere. As with BuildKit, ignore files say nothing about
/// it.
async fn open_remote(
    setup: &Setup<'_>,
    session: &Arc<Session>,
    request: &BuildRequest,
    source: ContextSource,
) -> Result<(Found, ContextSource), EngineError> {
    let given = given_dockerfile(setup, session, request).await?;
    let (source, view) = setup.open(session, request, source).await?;
    let found = match given {
        Some(found) => found,
        None if matches!(source, ContextSource::Http { unpack: false, .. }) => {
            // The only file there is.
            let name = DockerfileSource::InContext(ContextSource::HTTP_FILE.to_owned());
            dockerfile_in(view.path(), &name)?
        }
        None => dockerfile_in(view.path(), &request.dockerfile)?,
    };
    let view = Some(view);
    Ok((Found { view, ..found }, source))
}

/// Finds the folder of a build context.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, EngineError> {
    path.canonicalize().map_err(|error| {
        let text = format!(
            "cannot use {} as the build context: {error}",
            path.display()
        );
        EngineError::new(ErrorKind::User, text).with_source(error)
    })
}

/// Reads a Dockerfile that does not come out of the build context.
async fn given_dockerfile(
    setup: &Setup<'_>,
    session: &Arc<Session>,
    request: &BuildRequest,
) -> Result<Option<Found>, EngineError> {
    let (filename, text, path) = match &request.dockerfile {
        DockerfileSource::Default | DockerfileSource::InContext(_) => return Ok(None),
        DockerfileSource::Text(text) => (DOCKERFILE.to_owned(), text.clone(), None),
        DockerfileSource::Url(url) => {
            let source = ContextSource::Http {
                url: url.clone(),
                unpack: false,
            };
            let view = setup.files(session, request, &source).await?;
            let path = Path::new(ContextSource::HTTP_FILE);
            let text = local::read_text_in(view.path(), path)?;
            let name = url.split(['?', '#']).next().unwrap_or(url);
            let name = name.rsplit('/').next().unwrap_or(name);
            let name = if name.is_empty() { DOCKERFILE } else { name };
            (name.to_owned(), text.ok_or_else(|| missing(url))?, None)
        }
        DockerfileSource::Files(paths) => read_several(paths, &request.cpp_flags)?,
        DockerfileSource::File(path) => {
            let found = alternatives(path).into_iter().find_map(|path| {
                local::read_text(&path)
                    .map(|text| Some((path, text?)))
                    .transpose()
            });
            let (path, text) = found.ok_or_else(|| missing(&path.to_string_lossy()))??;
            let text = preprocessed(&path, text, &request.cpp_flags)?;
            (shown_name(&path), text, Some(path))
        }
    };
    Ok(Some(Found {
        filename,
        text,
        path,
        ignore: None,
        view: None,
    }))
}

/// Reads several Dockerfiles as one, which goes by the name of the first.
fn read_several(
    paths: &[PathBuf],
    cpp_flags: &[String],
) -> Result<(String, String, Option<PathBuf>), EngineError> {
    let mut whole = String::new();
    for path in paths {
        let text = local::read_text(path)?;
        let text = text.ok_or_else(|| missing(&path.to_string_lossy()))?;
        whole += &preprocessed(path, text, cpp_flags)?;
        if !whole.ends_with('\n') {
            whole.push('\n');
        }
    }
    let first = paths.first();
    let name = first.map_or_else(|| DOCKERFILE.to_owned(), |path| shown_name(path));
    Ok((name, whole, first.cloned()))
}

/// Returns the name of a file as messages show it.
fn shown_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Reads the Dockerfile out of a build context.
fn dockerfile_in(folder: &Path, source: &DockerfileSource) -> Result<Found, EngineError> {
    let name = match source {
        DockerfileSource::InContext(name) => name.as_str(),
        _ => DOCKERFILE,
    };
    let mut paths = alternatives(Path::new(name));
    if *source == DockerfileSource::Default {
        paths.push(CONTAINERFILE.into());
    }
    for path in paths {
        if let Some(text) = local::read_text_in(folder, &path)? {
            return Ok(Found {
                filename: path.to_string_lossy().into_owned(),
                text,
                path: None,
                ignore: None,
                view: None,
            });
        }
    }
    Err(missing(name))
}

/// Returns the names to try for a Dockerfile: `dockerfile` does where `Dockerfile` was meant.
fn alternatives(path: &Path) -> Vec<PathBuf> {
    let mut paths = vec![path.to_owned()];
    if path.file_name().is_some_and(|name| name == DOCKERFILE) {
        paths.push(path.with_file_name(DOCKERFILE.to_lowercase()));
    }
    paths
}

fn missing(name: &str) -> EngineError {
    let text = format!("failed to read dockerfile: {name}: no such file or directory");
    EngineError::new(ErrorKind::User, text)
        .with_hint("name the Dockerfile with -f, or the folder that holds it")
}

/// Returns the path of a Dockerfile's own ignore file.
fn ignore_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(IGNORE_FILE);
    PathBuf::from(name)
}

fn no_ignore_file(path: &Path) -> EngineError {
    let text = format!("the ignore file {} does not exist", path.display());
    EngineError::new(ErrorKind::User, text).with_hint("name another one with --ignorefile")
}

/// Reads the ignore file beside the Dockerfile, or else that of the folder. A folder whose build
/// is described in buildah's way, in a `Containerfile`, may have its ignore file too.
fn read_ignore(
    folder: &Path,
    dockerfile: Option<&Path>,
    name: &str,
) -> Result<(Vec<String>, Option<IgnoreLines>), EngineError> {
    let beside = dockerfile.map(ignore_name);
    let own = match &beside {
        Some(path) => local::read_text(path)?.map(|text| (path.as_path(), text)),
        None => None,
    };
    let found = match own {
        Some(found) => Some(found),
        None => {
            let mut names = vec![IGNORE_FILE];
            if name == CONTAINERFILE {
                names.push(CONTAINER_IGNORE_FILE);
            }
            let read = |name| local::read_text_in(folder, Path::new(name)).transpose();
            let mut texts = names
                .into_iter()
                .filter_map(|name| Some((name, read(name)?)));
            match texts.next() {
                Some((name, text)) => Some((Path::new(name), text?)),
                None => None,
            }
        }
    };
    match found {
        Some((path, text)) => patterns_of(path, &text),
        None => Ok((Vec::new(), None)),
    }
}

/// Reads the patterns of an ignore file.
fn patterns_of(path: &Path, text: &str) -> Result<(Vec<String>, Option<IgnoreLines>), EngineError> {
    let file = IgnoreFile::parse(text).map_err(|findings| {
        let source = Source::new(path.to_string_lossy(), text);
        let text = format!("{} cannot be used", path.display());
        EngineError::new(ErrorKind::User, text).with_diagnostic(findings.render(&source))
    })?;
    let rules = file.rules().iter();
    let lines = IgnoreLines {
        path: path.to_owned(),
        patterns: rules
            .map(|rule| (rule.span.start.line, rule.written.clone()))
            .collect(),
    };
    Ok((file.patterns(), Some(lines)))
}

async fn named(
    setup: &Setup<'_>,
    name: &str,
    context: &NamedContext,
    session: &mut Session,
) -> Result<ContextSource, EngineError> {
    match context {
        NamedContext::Directory(path) => {
            let folder = absolute(path)?;
            let (excludes, ignore) = read_ignore(&folder, None, DOCKERFILE)?;
            // The main build context and the folder of the Dockerfile have these names.
            let lent = match name {
                MAIN => "_context",
                DOCKERFILE_FOLDER => "_dockerfile",
                name => name,
            };
            if let Some(ignore) = ignore {
                session.ignore_files.insert(lent.to_owned(), ignore);
            }
            session.build_contexts.insert(lent.to_owned(), folder);
            Ok(ContextSource::Local {
                name: lent.to_owned(),
                excludes,
            })
        }
        // The empty image has no registry.
        NamedContext::Image(reference) if reference.familiar() == "scratch:latest" => {
            Ok(ContextSource::Image("scratch".to_owned()))
        }
        NamedContext::Image(reference) => Ok(ContextSource::Image(reference.to_string())),
        NamedContext::OciLayout { path, tag, digest } => {
            let folder = absolute(path)?;
            let blobs = BlobFolder::oci_layout(&folder);
            let found = blobs.find(tag.as_deref(), digest.as_ref());
            let found = found.map_err(|error| {
                let reason = crate::solver::error::chain(&error);
                let text = format!("build context {name:?}: {}: {reason}", folder.display());
                EngineError::new(ErrorKind::User, text).with_source(error)
            })?;
            session.oci_layouts.insert(name.to_owned(), folder);
            Ok(ContextSource::OciLayout {
                store: name.to_owned(),
                digest: found.digest,
            })
        }
        NamedContext::File(file) => {
            let platform = setup.platform.clone();
            let image = setup.images.resolve_file(file, &platform).await?;
            Ok(ContextSource::Image(image.pinned_reference().to_string()))
        }
        NamedContext::Remote(url) => remote::source(url),
        NamedContext::Object(object) => {
            let content = setup.keep_object(session, object).await?;
            Ok(uploaded(content, session))
        }
        NamedContext::Stage(stage) => Ok(ContextSource::Stage(stage.clone())),
    }
}

impl From<LocalError> for EngineError {
    fn from(error: LocalError) -> Self {
        Self::new(ErrorKind::User, crate::solver::error::chain(&error)).with_source(error)
    }
}
