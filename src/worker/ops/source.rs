//! The source op: images, local folders, web servers and git, pinned first and fetched later.

use std::path::Path;
use std::sync::Arc;

use super::{blocking, failed, invalid, io_failed};
use crate::llb::{Vertex, pb};
use crate::oci::Reference;
use crate::session::UPLOAD_URL;
use crate::session::tree::Tree;
use crate::snapshot::LayerInfo;
use crate::solver::{CacheMap, FailureKind, OpContext, OpError};
use crate::source::{self, BlobFolder, GitOptions, GitUrl, HttpFile, PinnedHttp, ResolveMode};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;
use crate::worker::{LocalWorker, OpOutput, keys};

/// Where a source op says its input comes from.
enum Kind<'a> {
    Image(&'a str),
    OciLayout(&'a str),
    Local(&'a str),
    Http,
    Git,
}

fn kind(op: &pb::SourceOp) -> Result<Kind<'_>, OpError> {
    let (scheme, rest) = op
        .identifier
        .split_once("://")
        .ok_or_else(|| invalid(format!("source {:?} has no scheme", op.identifier)))?;
    match scheme {
        "docker-image" => Ok(Kind::Image(rest)),
        "oci-layout" => Ok(Kind::OciLayout(rest)),
        "local" => Ok(Kind::Local(rest)),
        "http" | "https" => Ok(Kind::Http),
        "git" => Ok(Kind::Git),
        other => Err(invalid(format!(
            "sources of the kind {other:?} are not supported"
        ))),
    }
}

/// Finds out what a source is now, without fetching more than that takes.
pub(in crate::worker) async fn pin(
    worker: &LocalWorker,
    vertex: &Vertex,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<CacheMap, OpError> {
    match kind(op)? {
        Kind::Local(_) => Ok(keys::local_map(vertex)),
        Kind::Image(_) | Kind::OciLayout(_) => {
            let image = image(worker, vertex, op).await?;
            // Two images with the same layers are the same file system.
            let layers: Vec<String> = image.layers.iter().map(|(_, id)| id.to_string()).collect();
            Ok(keys::source_map(vertex, &layers.join(" ")))
        }
        Kind::Http => {
            let (file, attributes) = http_file(worker, op)?;
            let pinned = pin_http(worker, op, &file, context).await?;
            let identity = format!(
                "{} {:?} {} {attributes:?}",
                pinned.content.digest, pinned.filename, pinned.mtime_s
            );
            Ok(keys::source_map(vertex, &identity))
        }
        Kind::Git => {
            let (url, options) = git(worker, op)?;
            let (scratch, progress) = (&worker.options.scratch, &context.progress);
            let pin = source::git::pin(&url, &options, scratch, progress);
            let pinned = worker.options.pins.git(op, pin).await.map_err(error)?;
            let identity = format!(
                "{} {:?} keep .git: {} no submodules: {}",
                pinned.commit, url.subdir, url.keep_git_dir, url.skip_submodules
            );
            Ok(keys::source_map(vertex, &identity))
        }
    }
}

/// Brings what was pinned.
pub(super) async fn fetch(
    worker: &LocalWorker,
    vertex: &Vertex,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<Vec<OpOutput>, OpError> {
    let output = match kind(op)? {
        Kind::Local(name) => local(worker, op, name).await?,
        Kind::Image(_) | Kind::OciLayout(_) => {
            let image = image(worker, vertex, op).await?;
            OpOutput::Stack(worker.options.layers.register(&image))
        }
        Kind::Http => http(worker, op, context).await?,
        Kind::Git => git_checkout(worker, op, context).await?,
    };
    Ok(vec![output])
}

async fn image(
    worker: &LocalWorker,
    vertex: &Vertex,
    op: &pb::SourceOp,
) -> Result<Arc<source::PinnedImage>, OpError> {
    let (platform, images) = (&vertex.platform, &worker.options.images);
    let reference = |name: &str| {
        name.parse::<Reference>()
            .map_err(|error| invalid(error.to_string()))
    };
    let image = match kind(op)? {
        Kind::OciLayout(name) => {
            let (reference, folder) = (reference(name)?, oci_layout(worker, op)?);
            let found = images.resolve_in_layout(&reference, platform, folder);
            let image = found.await.map_err(error)?;
            let blobs = BlobFolder::oci_layout(folder);
            images.take_layers(&image, &blobs).await.map_err(error)?;
            image
        }
        Kind::Image(name) => {
            let reference = reference(name)?;
            let found = images.resolve(&reference, platform, ResolveMode::Default);
            found.await.map_err(error)?
        }
        _ => return Err(invalid(format!("{} is no image", op.identifier))),
    };
    worker.options.layers.register(&image);
    Ok(image)
}

/// Finds the folder that a source calls by a name.
fn oci_layout<'a>(worker: &'a LocalWorker, op: &pb::SourceOp) -> Result<&'a Path, OpError> {
    let name = op.attrs.get("oci.store").map_or("", String::as_str);
    match worker.options.session.oci_layouts.get(name) {
        Some(folder) => Ok(folder),
        None => Err(invalid(format!("the OCI layout {name:?} was not given"))),
    }
}

async fn local(worker: &LocalWorker, op: &pb::SourceOp, name: &str) -> Result<OpOutput, OpError> {
    let session = &worker.options.session;
    let ignore = session.ignore_files.get(name).cloned();
    let folder = session
        .build_contexts
        .get(name)
        .ok_or_else(|| invalid(format!("the build context {name:?} was not given")))?
        .clone();
    let excludes: Vec<String> = match op.attrs.get("local.excludepatterns") {
        Some(json) => serde_json::from_str(json)
            .map_err(|_| invalid("the exclude patterns of a local source are not a JSON list"))?,
        None => Vec::new(),
    };
    blocking(move || match Tree::walk(&folder, &excludes) {
        Ok(tree) => Ok(OpOutput::Tree(Arc::new(tree.with_ignore_lines(ignore)))),
        Err(error) => Err(OpError::new(FailureKind::User, error.to_string()).caused_by(error)),
    })
    .await
}

/// What a downloaded file is to look like.
#[derive(Debug, Clone, Copy)]
struct FileAttributes {
    mode: u32,
    uid: u32,
    gid: u32,
}

fn http_file(
    worker: &LocalWorker,
    op: &pb::SourceOp,
) -> Result<(HttpFile, FileAttributes), OpError> {
    let attr = |key: &str| op.attrs.get(key).filter(|value| !value.is_empty());
    let number = |key: &str, radix, default| match attr(key) {
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), radix)
            .map_err(|_| invalid(format!("{key} is not a number: {text:?}"))),
        None => Ok(default),
    };
    let checksum = match attr("http.checksum") {
        Some(text) => Some(
            text.parse()
                .map_err(|error: crate::oci::InvalidDigest| invalid(error.to_string()))?,
        ),
        None => None,
    };
    let authorization = attr("http.authheadersecret").and_then(|id| {
        let value = worker.options.session.secrets.get(id)?;
        let text = String::from_utf8(value.bytes().to_vec()).ok()?;
        Some(source::http::Secret(text))
    });
    let file = HttpFile {
        url: op.identifier.clone(),
        checksum,
        filename: attr("http.filename").cloned(),
        authorization,
        headers: Vec::new(),
    };
    let attributes = FileAttributes {
        mode: number("http.perm", 8, source::http::DEFAULT_MODE)?,
        uid: number("http.uid", 10, 0)?,
        gid: number("http.gid", 10, 0)?,
    };
    Ok((file, attributes))
}

/// Brings a file into the local store: one that the client gave, or one from a web server.
async fn pin_http(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    file: &HttpFile,
    context: &OpContext,
) -> Result<PinnedHttp, OpError> {
    if let Some(name) = file.url.strip_prefix(UPLOAD_URL) {
        let uploads = &worker.options.session.uploads;
        let content = uploads
            .get(name)
            .ok_or_else(|| invalid(format!("the file {name:?} was not given to the build")))?;
        return Ok(PinnedHttp {
            url: file.url.clone(),
            content: content.clone(),
            filename: file
                .filename
                .clone()
                .unwrap_or_else(|| "context".to_owned()),
            mtime_s: 0,
        });
    }
    let options = &worker.options;
    let pin = options.web_files.pin(file, &context.progress);
    options.pins.http(op, pin).await.map_err(error)
}

async fn http(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let (file, attributes) = http_file(worker, op)?;
    let pinned = pin_http(worker, op, &file, context).await?;
    let options = Arc::clone(&worker.options);
    blocking(move || {
        let active = options.snapshots.prepare(&[]).map_err(failed)?;
        let path = Path::new(&pinned.filename);
        let write = || {
            let root = Root::open(active.mounted().map_err(std::io::Error::other)?)?;
            let mut blob = options.content.open_blob(&pinned.content)?;
            std::io::copy(&mut blob, &mut root.create_file(path, attributes.mode)?)?;
            root.set_owner(path, attributes.uid, attributes.gid)?;
            root.set_mode(path, attributes.mode)?;
            root.set_times(path, Timestamp::from_seconds(pinned.mtime_s))
        };
        write()
            .map_err(|error| io_failed(&format!("cannot write {:?}", pinned.filename), error))?;
        let layer = active
            .commit(LayerInfo {
                created_ns: (options.now_ns)(),
            })
            .map_err(failed)?;
        Ok(OpOutput::Stack(vec![layer]))
    })
    .await
}

/// Reads a git source: what it is, and with what it may be fetched.
fn git(worker: &LocalWorker, op: &pb::SourceOp) -> Result<(GitUrl, GitOptions), OpError> {
    let attr = |key: &str| {
        op.attrs
            .get(key)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    };
    let (_, fragment) = op
        .identifier
        .split_once('#')
        .unwrap_or((&op.identifier, ""));
    let full = attr("git.fullurl").unwrap_or(&op.identifier);
    let text = match fragment {
        "" => full.to_owned(),
        fragment => format!("{full}#{fragment}"),
    };
    let mut url = GitUrl::parse(&text, &source::git_url::PROTOCOLS).map_err(error)?;
    url.keep_git_dir |= attr("git.keepgitdir") == Some("true");
    url.skip_submodules |= attr("git.skipsubmodules") == Some("true");
    url.checksum = attr("git.checksum").map(str::to_owned).or(url.checksum);
    let session = &worker.options.session;
    let secret = |key: &str| {
        let ids = attr(key)?.split(',');
        let value = ids.filter_map(|id| session.secrets.get(id)).next()?;
        Some(source::http::Secret(
            String::from_utf8(value.bytes().to_vec()).ok()?,
        ))
    };
    let options = GitOptions {
        auth_token: secret("git.authtokensecret"),
        auth_header: secret("git.authheadersecret"),
        ..GitOptions::default()
    };
    Ok((url, options))
}

async fn git_checkout(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let (url, mut git_options) = git(worker, op)?;
    let options = Arc::clone(&worker.options);
    let agent = match options.session.ssh.contains("default") {
        true => Some(
            options
                .session
                .ssh
                .forward("default", &options.scratch)
                .map_err(failed)?,
        ),
        false => None,
    };
    git_options.ssh_auth_sock = agent.as_ref().map(|agent| agent.socket().to_owned());
    let progress = &context.progress;
    let pin = source::git::pin(&url, &git_options, &options.scratch, progress);
    let pinned = options.pins.git(op, pin).await.map_err(error)?;
    let work = tempfile::tempdir_in(&options.scratch)
        .map_err(|error| io_failed("cannot make a folder for git", error))?;
    let folder = work.path().join("checkout");
    source::git::fetch(&pinned, &git_options, &folder, progress)
        .await
        .map_err(error)?;
    let (cancel, now_ns) = (context.cancel.clone(), (options.now_ns)());
    blocking(move || {
        let active = options.snapshots.prepare(&[]).map_err(failed)?;
        let target = active.mounted().map_err(failed)?;
        super::copy_tree(&folder, "/", target, &cancel).map_err(super::file_error)?;
        drop(work);
        let layer = active
            .commit(LayerInfo { created_ns: now_ns })
            .map_err(failed)?;
        Ok(OpOutput::Stack(vec![layer]))
    })
    .await
}

/// Sorts a source's error by who can do something about it.
pub(in crate::worker) fn error(error: source::Error) -> OpError {
    use source::Error;
    let kind = match &error {
        Error::NotLocal { .. } | Error::InvalidUrl { .. } | Error::Bundle { .. } => {
            FailureKind::User
        }
        Error::Content(_) | Error::Io { .. } => FailureKind::Config,
        _ => FailureKind::Remote,
    };
    OpError::new(kind, crate::solver::error::chain(&error)).caused_by(error)
}
