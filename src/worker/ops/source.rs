//! The source op: images, local folders, web servers and git, pinned first and fetched later.

use std::path::Path;
use std::sync::Arc;

use super::{blocking, failed, invalid, io_failed};
use crate::llb::{Vertex, pb};
use crate::oci::Reference;
use crate::session::tree::Tree;
use crate::snapshot::LayerInfo;
use crate::solver::{CacheMap, FailureKind, OpContext, OpError};
use crate::source::{self, GitOptions, HttpFile, ResolveMode};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;
use crate::worker::{LocalWorker, OpOutput, keys};

/// Where a source op says its input comes from.
enum Kind<'a> {
    Image(&'a str),
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
        "local" => Ok(Kind::Local(rest)),
        "http" | "https" => Ok(Kind::Http),
        "git" => Ok(Kind::Git),
        other => Err(invalid(format!("sources of the kind {other:?} are not supported"))),
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
        Kind::Image(name) => {
            let image = image(worker, vertex, name).await?;
            // Two images with the same layers are the same file system.
            let layers: Vec<String> = image.layers.iter().map(|(_, id)| id.to_string()).collect();
            Ok(keys::source_map(vertex, &layers.join(" ")))
        }
        Kind::Http => {
            let (file, attributes) = http_file(worker, op)?;
            let pinned = pin_http(worker, &file, context).await;
            let pinned = pinned.map_err(error)?;
            let identity = format!(
                "{} {:?} {} {attributes:?}",
                pinned.content.digest, pinned.filename, pinned.mtime_s
            );
            Ok(keys::source_map(vertex, &identity))
        }
        Kind::Git => {
            let pinned = worker.options.sources.pin_git(&git(worker, op)).await.map_err(error)?;
            Ok(keys::source_map(vertex, &pinned.identity()))
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
        Kind::Image(name) => {
            let image = image(worker, vertex, name).await?;
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
    name: &str,
) -> Result<Arc<source::PinnedImage>, OpError> {
    let reference: Reference =
        name.parse().map_err(|error: crate::oci::InvalidReference| invalid(error.to_string()))?;
    let images = &worker.options.images;
    let mode = ResolveMode::Default;
    let image = images.resolve(&reference, &vertex.platform, mode).await.map_err(error)?;
    worker.options.layers.register(&image);
    Ok(image)
}

async fn local(worker: &LocalWorker, op: &pb::SourceOp, name: &str) -> Result<OpOutput, OpError> {
    let folders = &worker.options.session.build_contexts;
    let folder = folders
        .get(name)
        .ok_or_else(|| invalid(format!("the build context {name:?} was not given")))?
        .clone();
    let excludes: Vec<String> = match op.attrs.get("local.excludepatterns") {
        Some(json) => serde_json::from_str(json)
            .map_err(|_| invalid("the exclude patterns of a local source are not a JSON list"))?,
        None => Vec::new(),
    };
    blocking(move || match Tree::walk(&folder, &excludes) {
        Ok(tree) => Ok(OpOutput::Tree(Arc::new(tree))),
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
        Some(text) => Some(text.parse().map_err(|error: crate::oci::InvalidDigest| {
            invalid(error.to_string())
        })?),
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

async fn pin_http(
    worker: &LocalWorker,
    file: &HttpFile,
    context: &OpContext,
) -> Result<source::PinnedHttp, source::Error> {
    let options = &worker.options;
    source::http::pin(&options.client, &options.content, file, &context.progress).await
}

async fn http(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let (file, attributes) = http_file(worker, op)?;
    let pinned = pin_http(worker, &file, context).await.map_err(error)?;
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
        write().map_err(|error| io_failed(&format!("cannot write {:?}", pinned.filename), error))?;
        let layer = active.commit(LayerInfo { created_ns: (options.now_ns)() }).map_err(failed)?;
        Ok(OpOutput::Stack(vec![layer]))
    })
    .await
}

fn git(worker: &LocalWorker, op: &pb::SourceOp) -> GitOptions {
    GitOptions::from_source(&op.identifier, &op.attrs, &worker.options.session)
}

async fn git_checkout(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let sources = worker.options.sources.clone();
    let options = git(worker, op);
    let pinned = sources.pin_git(&options).await.map_err(error)?;
    let active = worker.options.snapshots.prepare(&[]).map_err(failed)?;
    let folder = active.mounted().map_err(failed)?.to_owned();
    sources.checkout_git(&pinned, &folder, &context.progress).await.map_err(error)?;
    let created_ns = (worker.options.now_ns)();
    let layer = blocking(move || active.commit(LayerInfo { created_ns }).map_err(failed)).await?;
    Ok(OpOutput::Stack(vec![layer]))
}

/// Sorts a source's error by who can do something about it.
pub(in crate::worker) fn error(error: source::Error) -> OpError {
    use source::Error;
    let kind = match &error {
        Error::NotLocal { .. } | Error::InvalidUrl { .. } => FailureKind::User,
        Error::Content(_) | Error::Io { .. } => FailureKind::Config,
        _ => FailureKind::Remote,
    };
    OpError::new(kind, super::chain(&error)).caused_by(error)
}

