//! Sources that are one file: from a web server, from a registry, from an OCI layout.

use std::path::Path;
use std::sync::Arc;

use crate::llb::pb;
use crate::oci::Descriptor;
use crate::snapshot::LayerInfo;
use crate::solver::OpError;
use crate::source;
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;
use crate::worker::ops::{blocking, failed, invalid, io_failed};
use crate::worker::{LocalWorker, OpOutput};

/// What the file is to look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileAttributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl FileAttributes {
    /// Reads the attributes of an op.
    pub(super) fn read(op: &pb::SourceOp) -> Result<Self, OpError> {
        let read = |key: &str, default| match op.attrs.get(key).filter(|text| !text.is_empty()) {
            Some(text) => {
                number(text).ok_or_else(|| invalid(format!("{key} is no number: {text:?}")))
            }
            None => Ok(default),
        };
        Ok(Self {
            mode: read("http.perm", source::http::DEFAULT_MODE)?,
            uid: read("http.uid", 0)?,
            gid: read("http.gid", 0)?,
        })
    }

    /// Lists them for a cache key.
    pub(super) fn numbers(self) -> [u32; 3] {
        [self.mode, self.uid, self.gid]
    }
}

/// Reads a number as C does: octal after a `0` or `0o`, otherwise decimal.
pub(in crate::worker) fn number(text: &str) -> Option<u32> {
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'));
    match octal {
        Some(digits) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Makes a file system with one file, whose content is in the store.
pub(super) async fn written(
    worker: &LocalWorker,
    content: Descriptor,
    (filename, mtime_s): (String, i64),
    attributes: FileAttributes,
) -> Result<OpOutput, OpError> {
    let options = Arc::clone(&worker.options);
    blocking(move || {
        let active = options.snapshots.prepare(&[]).map_err(failed)?;
        let path = Path::new(&filename);
        let write = || {
            let root = Root::open(active.mounted().map_err(std::io::Error::other)?)?;
            let mut blob = options.content.open_blob(&content)?;
            std::io::copy(&mut blob, &mut root.create_file(path, attributes.mode)?)?;
            root.set_owner(path, attributes.uid, attributes.gid)?;
            root.set_mode(path, attributes.mode)?;
            root.set_times(path, Timestamp::from_seconds(mtime_s))
        };
        write().map_err(|error| io_failed(&format!("cannot write {filename:?}"), error))?;
        let created_ns = (options.now_ns)();
        let layer = active.commit(LayerInfo { created_ns }).map_err(failed)?;
        Ok(OpOutput::Stack(vec![layer]))
    })
    .await
}
