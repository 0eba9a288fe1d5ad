//! The source op: images, local folders, web servers and git, pinned first and fetched later.

mod blob;
mod described;
mod file;
mod image;
mod local;
mod pinned;
mod signature;

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{blocking, failed, invalid, io_failed};
use crate::llb::{GitSource, Vertex, pb};
use crate::oci::Reference;
use crate::progress::VertexProgress;
use crate::session::UPLOAD_URL;
use crate::snapshot::LayerInfo;
use crate::solver::{CacheMap, FailureKind, OpContext, OpError};
use crate::source::{self, BlobFolder, BundleBlob, GitOptions, HttpFile, PinnedHttp};
use crate::sys::metadata::Metadata;
use crate::sys::root::Root;
use crate::worker::{LocalWorker, OpOutput, buildkit, keys};

use file::FileAttributes;
use image::ImageWish;

pub use described::{DescribedSource, SourceWish};
pub(in crate::worker) use file::number;
pub use pinned::PinnedSource;

/// Mode of the folder that a checkout is, whatever our mask is.
const CHECKOUT_MODE: u32 = 0o755;
/// Nanoseconds in a second.
const NS_IN_S: i64 = 1_000_000_000;
/// Headers that a definition may set, as with BuildKit; others are left out.
const USER_HEADERS: [&str; 2] = ["accept", "user-agent"];

/// Where a source op says its input comes from.
enum Kind<'a> {
    Image(&'a str),
    OciLayout(&'a str),
    Blob(&'a str),
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
        blob::REGISTRY_SCHEME | blob::LAYOUT_SCHEME => Ok(Kind::Blob(rest)),
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
            buildkit::note_image(worker, vertex, &image);
            Ok(keys::source_map(vertex, &layers.join(" ")))
        }
        Kind::Blob(name) => blob::pin(worker, vertex, op, name),
        Kind::Http => {
            let (file, attributes) = http_file(worker, op)?;
            signature::check(worker, op, &file, context).await?;
            let identity = match upload(worker, &file)? {
                Some(given) => format!("{} {:?} 0", given.content.digest, given.filename),
                None => {
                    let web_files = &worker.options.web_files;
                    let identity = web_files.identity(&file, &context.progress);
                    identity.await.map_err(error)?
                }
            };
            buildkit::note_download(worker, vertex, op, &identity);
            Ok(keys::download_map(vertex, &identity, attributes.numbers()))
        }
        Kind::Git => {
            let (source, options) = git(worker, op, &context.progress).await?;
            let (repositories, progress) = (&worker.options.repositories, &context.progress);
            let pinned = repositories.pin(&source, &options, progress).await;
            let pinned = pinned.map_err(error)?;
            let now_s = (worker.options.now_ns)().div_euclid(NS_IN_S);
            let verified = repositories
                .verify(&pinned, &options, progress, now_s)
                .await;
            verified.map_err(error)?;
            let identity = pinned.identity();
            buildkit::note_source(worker, vertex, &identity);
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
        Kind::Local(name) => local::fetch(worker, op, name, context).await?,
        Kind::Image(_) | Kind::OciLayout(_) => {
            let image = image(worker, vertex, op).await?;
            OpOutput::Stack(worker.options.layers.register(&image))
        }
        Kind::Blob(name) => blob::fetch(worker, op, name, context).await?,
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
    let wish = ImageWish::read(op)?;
    let image = match kind(op)? {
        Kind::OciLayout(name) => {
            let (reference, folder) = (reference(name)?, oci_layout(worker, op)?);
            let found = images.resolve_in_layout(&reference, platform, folder);
            let image = found.await.map_err(error)?;
            let image = wish.granted(image)?;
            let blobs = BlobFolder::oci_layout(folder);
            images.take_layers(&image, &blobs).await.map_err(error)?;
            image
        }
        Kind::Image(name) => {
            let reference = reference(name)?;
            let found = images.resolve(&reference, platform, wish.mode(&reference));
            wish.granted(found.await.map_err(error)?)?
        }
        _ => return Err(invalid(format!("{} is no image", op.identifier))),
    };
    worker.options.layers.register(&image);
    Ok(image)
}

fn reference(name: &str) -> Result<Reference, OpError> {
    let parsed = name.parse::<Reference>();
    parsed.map_err(|error| invalid(error.to_string()))
}

/// Finds the folder that a source calls by a name.
fn oci_layout<'a>(worker: &'a LocalWorker, op: &pb::SourceOp) -> Result<&'a Path, OpError> {
    named_layout(worker, op.attrs.get("oci.store").map_or("", String::as_str))
}

fn named_layout<'a>(worker: &'a LocalWorker, name: &str) -> Result<&'a Path, OpError> {
    match worker.options.session.oci_layouts.get(name) {
        Some(folder) => Ok(folder),
        None => Err(
            invalid(format!("the OCI layout {name:?} was not given")).hint(format!(
                "give it with --build-context {name}=oci-layout://FOLDER"
            )),
        ),
    }
}

fn http_file(
    worker: &LocalWorker,
    op: &pb::SourceOp,
) -> Result<(HttpFile, FileAttributes), OpError> {
    let attr = |key: &str| op.attrs.get(key).filter(|value| !value.is_empty());
    let checksum = match attr("http.checksum") {
        Some(text) => Some(
            text.parse()
                .map_err(|error: crate::oci::InvalidDigest| invalid(error.to_string()))?,
        ),
        None => None,
    };
    let headers = USER_HEADERS.iter().filter_map(|name| {
        let value = attr(&format!("http.header.{name}"))?;
        Some(((*name).to_owned(), value.clone()))
    });
    let mut file = HttpFile {
        url: op.identifier.clone(),
        checksum,
        filename: attr("http.filename").cloned(),
        authorization: None,
        headers: headers.collect(),
    };
    let secret = attr("http.authheadersecret").map(String::as_str);
    file.authorize(secret, &worker.options.session)
        .map_err(error)?;
    Ok((file, FileAttributes::read(op)?))
}

/// Finds a file that the client gave on a stream, if the URL names one.
fn upload(worker: &LocalWorker, file: &HttpFile) -> Result<Option<PinnedHttp>, OpError> {
    let Some(name) = file.url.strip_prefix(UPLOAD_URL) else {
        return Ok(None);
    };
    let content = worker.options.session.uploads.get(name);
    let content =
        content.ok_or_else(|| invalid(format!("the file {name:?} was not given to the build")))?;
    let filename = file.filename.clone();
    Ok(Some(PinnedHttp {
        url: file.url.clone(),
        content: content.clone(),
        filename: filename.unwrap_or_else(|| name.to_owned()),
        mtime_s: 0,
    }))
}

/// Brings a file from a web server, or from the client.
async fn pinned_file(
    worker: &LocalWorker,
    file: &HttpFile,
    context: &OpContext,
) -> Result<PinnedHttp, OpError> {
    match upload(worker, file)? {
        Some(given) => Ok(given),
        None => {
            let pinned = worker.options.web_files.pin(file, &context.progress);
            pinned.await.map_err(error)
        }
    }
}

async fn http(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let (file, attributes) = http_file(worker, op)?;
    let pinned = pinned_file(worker, &file, context).await?;
    let named = (pinned.filename, pinned.mtime_s);
    file::written(worker, pinned.content, named, attributes).await
}

/// Reads a git source: what it is, and with what it may be fetched.
async fn git(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    progress: &VertexProgress,
) -> Result<(GitSource, GitOptions), OpError> {
    let (source, options) = (GitSource::read(op), Arc::clone(&worker.options));
    let bundle = match BundleBlob::of(&source).map_err(error)? {
        Some(bundle) => Some(blob::bundle(worker, op, bundle, progress).await?),
        None => None,
    };
    // An agent for keys is a program that has to start.
    blocking(move || {
        let lent = GitOptions::lent(&source, &options.session, &options.scratch);
        let mut lent = lent.map_err(error)?;
        lent.bundle = bundle.map(Arc::new);
        Ok((source, lent))
    })
    .await
}

async fn git_checkout(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let (source, git_options) = git(worker, op, &context.progress).await?;
    let options = Arc::clone(&worker.options);
    let (repositories, progress) = (&options.repositories, &context.progress);
    let pinned = repositories.pin(&source, &git_options, progress).await;
    let pinned = pinned.map_err(error)?;
    let work = tempfile::tempdir_in(&options.scratch)
        .map_err(|error| io_failed("cannot make a folder for git", error))?;
    let folder = work.path().join("checkout");
    let fetched = repositories.fetch(&pinned, &git_options, &folder, progress);
    fetched.await.map_err(error)?;
    let (cancel, now_ns) = (context.cancel.clone(), (options.now_ns)());
    blocking(move || {
        let active = options.snapshots.prepare(&[]).map_err(failed)?;
        let target = active.mounted().map_err(failed)?;
        move_tree(&folder, target, &cancel)?;
        drop(work);
        let layer = active
            .commit(LayerInfo { created_ns: now_ns })
            .map_err(failed)?;
        Ok(OpOutput::Stack(vec![layer]))
    })
    .await
}

/// Moves what a folder holds into another one, or copies it to another file system.
fn move_tree(folder: &Path, target: &Path, cancel: &CancellationToken) -> Result<(), OpError> {
    let read = Metadata::of_path(folder);
    let metadata = read.map_err(|error| io_failed("cannot read a checkout", error))?;
    let moving = || {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            std::fs::rename(entry.path(), target.join(entry.file_name()))?;
        }
        Ok::<_, std::io::Error>(())
    };
    match moving() {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            super::copy_tree(folder, "/", target, cancel).map_err(super::file_error)?;
        }
        moved => moved.map_err(|error| io_failed("cannot move the files of a checkout", error))?,
    }
    let finish = || {
        let root = Root::open(target)?;
        root.set_mode(Path::new("."), CHECKOUT_MODE)?;
        root.set_times(Path::new("."), metadata.mtime)
    };
    finish().map_err(|error| io_failed("cannot finish a checkout", error))
}

/// Sorts a source's error by who can do something about it.
pub(in crate::worker) fn error(error: source::Error) -> OpError {
    use source::Error;
    let kind = match &error {
        Error::NotLocal { .. }
        | Error::InvalidUrl { .. }
        | Error::Bundle { .. }
        | Error::NoSecret { .. }
        | Error::NotInGit { .. }
        | Error::Unsigned { .. }
        | Error::Session(_) => FailureKind::User,
        Error::Content(_) | Error::Io { .. } | Error::NoGit { .. } => FailureKind::Config,
        _ => FailureKind::Remote,
    };
    OpError::new(kind, crate::solver::error::chain(&error)).caused_by(error)
}
