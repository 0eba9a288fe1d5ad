//! Signatures of files from web servers (`http.sig.*`).

use std::io::Read;
use std::sync::Arc;

use super::{NS_IN_S, error, pinned_file};
use crate::llb::pb;
use crate::solver::{OpContext, OpError};
use crate::source::{HttpFile, verify_file};
use crate::worker::LocalWorker;
use crate::worker::ops::{blocking, invalid};

/// Attributes with the armored public key and the armored signature.
const KEYS: &str = "http.sig.pubkey";
const SIGNATURE: &str = "http.sig.signature";

/// Fails unless a file is signed as its op wants; the file is fetched for that.
pub(super) async fn check(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    file: &HttpFile,
    context: &OpContext,
) -> Result<(), OpError> {
    let attr = |key: &str| op.attrs.get(key).filter(|text| !text.is_empty()).cloned();
    let (keys, signature) = match (attr(KEYS), attr(SIGNATURE)) {
        (None, None) => return Ok(()),
        (Some(keys), Some(signature)) => (keys, signature),
        (None, Some(_)) => return Err(half(op, SIGNATURE, KEYS)),
        (Some(_), None) => return Err(half(op, KEYS, SIGNATURE)),
    };
    let pinned = pinned_file(worker, file, context).await?;
    let options = Arc::clone(&worker.options);
    blocking(move || {
        let now_s = (options.now_ns)().div_euclid(NS_IN_S);
        let open = || {
            let blob = options.content.open_blob(&pinned.content);
            Ok(Box::new(blob.map_err(std::io::Error::other)?) as Box<dyn Read>)
        };
        verify_file(&pinned.url, (&signature, &keys), &open, now_s).map_err(error)
    })
    .await
}

fn half(op: &pb::SourceOp, given: &str, missing: &str) -> OpError {
    invalid(format!("{}: {given} needs {missing}", op.identifier))
}
