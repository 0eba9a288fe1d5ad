//! Sources of the files of build contexts.
//!
//! Which paths of a local folder are used is known only when everything is lowered; then they
//! are written into its source, so that no more than these needs to be read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lowerer, Lowering};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::options::{ContextSource, FrontendOptions};
use crate::frontend::paths;
use crate::llb::pattern::PatternMatcher;
use crate::llb::state::{About, Builder, FileAction, FileOp, Output, Source};
use crate::llb::{Definition, GitUrl, caps, pb};
use crate::oci::{Digest, Platform};

/// Name under which files of the main context are counted.
const MAIN: &str = "";

/// Name of the file that a context behind a URL consists of.
pub(in crate::frontend) const HTTP_FILE: &str = "context";

/// The contexts used so far.
#[derive(Debug)]
pub(super) struct LocalFiles {
    used: BTreeMap<String, UsedContext>,
    /// What the ignore file of the main context hides, where that can be told from a path alone.
    ignored: Option<PatternMatcher>,
}

impl LocalFiles {
    /// Starts with no context used.
    pub(super) fn new(options: &FrontendOptions) -> Self {
        let ignored = match &options.context {
            ContextSource::Local { excludes, .. } => PatternMatcher::new(excludes).ok(),
            _ => None,
        };
        Self {
            used: BTreeMap::new(),
            // With a negation a hidden folder may still hold files that are not hidden.
            ignored: ignored.filter(|patterns| !patterns.has_negations()),
        }
    }
}

#[derive(Debug)]
struct UsedContext {
    root: Output,
    /// Whether the root is a folder of the client, whose used paths are of interest.
    is_local: bool,
    /// A copy of all of it, made where a file system is wanted.
    layer: Option<Output>,
    paths: BTreeSet<String>,
}

impl Lowerer<'_> {
    /// Returns the files of the main build context.
    pub(super) fn main_context(&mut self, span: Span) -> Lowering<Option<Output>> {
        let source = &self.options.context;
        if matches!(source, ContextSource::Image(image) if image == "scratch") {
            return Ok(None);
        }
        self.context_root(MAIN, source, span).map(Some)
    }

    /// Returns the files of a context; `key` is empty for the main one.
    pub(super) fn context_root(
        &mut self,
        key: &str,
        source: &ContextSource,
        span: Span,
    ) -> Lowering<Output> {
        if let Some(used) = self.files.used.get(key) {
            return Ok(used.root);
        }
        let root = self.new_root(key, source, span)?;
        let used = UsedContext {
            root,
            is_local: matches!(source, ContextSource::Local { .. }),
            layer: None,
            paths: BTreeSet::new(),
        };
        self.files.used.insert(key.to_owned(), used);
        Ok(root)
    }

    fn new_root(&mut self, key: &str, source: &ContextSource, span: Span) -> Lowering<Output> {
        let named = |text: &str, main: &str| match key {
            MAIN => format!("[internal] {main}"),
            key => format!("[context {key}] {text}"),
        };
        match source {
            ContextSource::Local { name, excludes } => {
                let hint = if key == MAIN {
                    name.clone()
                } else {
                    format!("context:{key}-")
                };
                let source = Source::new(format!("local://{name}"), caps::SOURCE_LOCAL)
                    .with_list(
                        "local.excludepatterns",
                        excludes,
                        caps::SOURCE_LOCAL_EXCLUDE_PATTERNS,
                    )
                    .with_cap(
                        "local.sharedkeyhint",
                        hint,
                        caps::SOURCE_LOCAL_SHARED_KEY_HINT,
                    );
                let about = About::named(named("load from client", "load build context"));
                Ok(self.builder.source(source, about))
            }
            ContextSource::Git(_) | ContextSource::Http { .. } => {
                let name = match key {
                    MAIN => main_name(source),
                    key => format!("[context {key}] {}", source.shown_url().unwrap_or_default()),
                };
                let wishes = match key {
                    MAIN => {
                        GitWishes::new(&self.options.build_args, self.options.source_date_epoch)
                    }
                    _ => GitWishes::default(),
                };
                remote_root(&mut self.builder, source, name, wishes)
                    .map_err(|why| Box::new(Diagnostic::error(span, why)))
            }
            ContextSource::Image(_) | ContextSource::OciLayout { .. } => {
                let message = "an image cannot be the main build context";
                Err(Box::new(Diagnostic::error(span, message)))
            }
            ContextSource::Stage(stage) => {
                let message = format!("stage {stage:?} cannot be the main build context");
                Err(Box::new(Diagnostic::error(span, message)))
            }
        }
    }

    /// Returns a file system to run in, to stack and to export: a folder of the client's, which
    /// is read where it lies, is copied for that.
    pub(super) fn with_layers(&mut self, root: Option<Output>) -> Option<Output> {
        let is_root = |used: &&mut UsedContext| used.is_local && Some(used.root) == root;
        let Some(used) = self.files.used.values_mut().find(is_root) else {
            return root;
        };
        used.paths.insert("/".to_owned());
        let source = used.root;
        let copy = pb::FileActionCopy {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            mode: -1,
            timestamp: -1,
            dir_copy_contents: true,
            ..pb::FileActionCopy::default()
        };
        let layer = used.layer.get_or_insert_with(|| {
            let action = FileAction {
                source: Some(source),
                owner: None,
                action: pb::file_action::Action::Copy(copy),
            };
            let file = FileOp {
                base: None,
                actions: vec![action],
            };
            self.builder.file(file, About::default())
        });
        Some(*layer)
    }

    /// Notes that a path below `root` is used, if that is a local folder.
    pub(super) fn use_path(&mut self, root: Option<Output>, path: &str) {
        let used = self
            .files
            .used
            .values_mut()
            .find(|used| Some(used.root) == root);
        if let Some(used) = used {
            used.paths.insert(paths::absolute("/", path));
        }
    }

    /// Returns whether the ignore file hides a source of `COPY` or `ADD`; the path is clean.
    pub(super) fn is_ignored(&self, path: &str) -> bool {
        let Some(patterns) = &self.files.ignored else {
            return false;
        };
        // The root itself cannot be hidden, but everything in it can.
        let is_root = path == "." || path == "/";
        let hides_root = || ["*", "**", "**/*"].iter().any(|all| self.excludes(all));
        (!is_root || hides_root()) && patterns.matches_or_parent(path)
    }

    fn excludes(&self, pattern: &str) -> bool {
        match &self.options.context {
            ContextSource::Local { excludes, .. } => excludes.iter().any(|e| e == pattern),
            _ => false,
        }
    }

    /// Writes the used paths into the sources of local folders.
    pub(super) fn complete_local_files(&mut self) {
        for used in self.files.used.values().filter(|used| used.is_local) {
            if used.paths.contains("/") {
                continue;
            }
            let paths: Vec<String> = used.paths.iter().map(|path| path[1..].to_owned()).collect();
            if let Some(source) = self.builder.source_mut(used.root) {
                let cap = caps::SOURCE_LOCAL_FOLLOW_PATHS;
                *source = std::mem::take(source).with_list("local.followpaths", &paths, cap);
            }
        }
    }

    /// Notes that a file system as a whole is used: changed, run in or wanted as the result.
    pub(super) fn use_everything(&mut self, root: Option<Output>) {
        self.use_path(root, "/");
    }
}

/// Returns the graph of a main build context that comes from a URL, by itself: what the
/// Dockerfile is read from. Its ops are those that the lowered Dockerfile uses.
pub(in crate::frontend) fn remote_definition(
    source: &ContextSource,
    build_args: &BTreeMap<String, String>,
    epoch: Option<i64>,
) -> Result<Definition, String> {
    let mut builder = Builder::new(Platform::host(), Vec::new());
    let (name, wishes) = (main_name(source), GitWishes::new(build_args, epoch));
    let root = remote_root(&mut builder, source, name, wishes)?;
    Ok(builder.finish(Some(root)))
}

/// Returns the graph of a source by itself.
pub(in crate::frontend) fn source_definition(source: Source) -> Definition {
    let mut builder = Builder::new(Platform::host(), Vec::new());
    let root = builder.source(source, About::default());
    builder.finish(Some(root))
}

/// Returns the graph of a download by itself, or of the files in it.
pub(in crate::frontend) fn download_definition(
    url: &str,
    checksum: Option<&Digest>,
    unpack: bool,
) -> Definition {
    let mut builder = Builder::new(Platform::host(), Vec::new());
    let root = download(&mut builder, url, checksum, unpack, About::default());
    builder.finish(Some(root))
}

/// Adds a download, or the files in it.
fn download(
    builder: &mut Builder,
    url: &str,
    checksum: Option<&Digest>,
    unpack: bool,
    about: About,
) -> Output {
    let mut source = Source::new(url, caps::SOURCE_HTTP).with("http.filename", HTTP_FILE);
    if let Some(checksum) = checksum {
        let cap = caps::SOURCE_HTTP_CHECKSUM;
        source = source.with_cap("http.checksum", checksum.to_string(), cap);
    }
    let file = builder.source(source, about);
    match unpack {
        true => unpacked(builder, file),
        false => file,
    }
}

fn main_name(source: &ContextSource) -> String {
    match (source, source.shown_url()) {
        (ContextSource::Git(_), Some(url)) => format!("[internal] load git source {url}"),
        _ => "[internal] load remote build context".to_owned(),
    }
}

/// What build arguments ask of a git repository that is the main build context.
#[derive(Debug, Clone, Copy, Default)]
struct GitWishes {
    keep_git_dir: bool,
    commit_times: bool,
}

impl GitWishes {
    fn new(build_args: &BTreeMap<String, String>, epoch: Option<i64>) -> Self {
        let given = |name: &str| build_args.get(name).map_or("", String::as_str);
        Self {
            // The ways in which Go spells "true".
            keep_git_dir: ["1", "t", "T", "true", "TRUE", "True"]
                .contains(&given("BUILDKIT_CONTEXT_KEEP_GIT_DIR")),
            commit_times: epoch.is_some() || !given("SOURCE_DATE_EPOCH").is_empty(),
        }
    }
}

/// Adds the files behind a URL.
fn remote_root(
    builder: &mut Builder,
    source: &ContextSource,
    name: String,
    wishes: GitWishes,
) -> Result<Output, String> {
    match source {
        ContextSource::Git(url) => {
            let parsed = GitUrl::parse_build_context(url);
            let parsed = parsed.ok_or_else(|| format!("{url:?} names no git repository"))?;
            let mut parsed = parsed.map_err(|error| format!("{url}: {error}"))?;
            if wishes.keep_git_dir {
                parsed.keep_git_dir = Some(true);
            }
            let mut source = parsed.source();
            if wishes.commit_times && !source.attrs.contains_key("git.mtime") {
                source = source.with_cap("git.mtime", "commit", caps::SOURCE_GIT_MTIME);
            }
            Ok(builder.source(source, About::named(name)))
        }
        ContextSource::Http { url, unpack } => {
            Ok(download(builder, url, None, *unpack, About::named(name)))
        }
        _ => Err("the build context comes from no URL".to_owned()),
    }
}

fn unpacked(builder: &mut Builder, archive: Output) -> Output {
    let copy = pb::FileActionCopy {
        src: format!("/{HTTP_FILE}"),
        dest: "/".to_owned(),
        mode: -1,
        timestamp: -1,
        attempt_unpack_docker_compatibility: true,
        ..pb::FileActionCopy::default()
    };
    let file = FileOp {
        base: None,
        actions: vec![FileAction {
            source: Some(archive),
            owner: None,
            action: pb::file_action::Action::Copy(copy),
        }],
    };
    builder.file(file, About::default())
}
