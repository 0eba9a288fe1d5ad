//! Bodies of requests out of blobs: read on a thread of their own, a bounded distance ahead.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use reqwest::Body;
use tokio::sync::mpsc;

use super::{Error, lock};
use crate::content::{self, ContentStore};
use crate::oci::Descriptor;

/// Size of the portions in which a blob is read and sent.
const PORTION_BYTES: usize = 128 * 1024;
/// Portions that may wait between the disk and the network.
const QUEUE_LENGTH: usize = 16;

/// What went wrong while a blob was read.
pub(super) type Trouble = Arc<Mutex<Option<content::Error>>>;

/// Makes a body out of bytes of a blob. With it come the number of bytes that have left, and
/// what went wrong. A body that reaches the end of the blob holds its last bytes back until the
/// whole is known to be right, so a corrupt blob never arrives.
pub(super) fn of_blob(
    store: &ContentStore,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<(Body, Arc<AtomicU64>, Trouble), Error> {
    let (sent, trouble) = (Arc::<AtomicU64>::default(), Trouble::default());
    if range.is_empty() {
        return Ok((Body::from(""), sent, trouble));
    }
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE_LENGTH);
    let noted = trouble.clone();
    let mut feed: Box<dyn FnMut() -> io::Result<()> + Send> = match range.end == descriptor.size {
        true => {
            let mut reader = store.open_blob(descriptor)?;
            let sender = sender.clone();
            Box::new(move || checked(&mut reader, range.start, &sender))
        }
        false => {
            let file = store.open_part(descriptor, range.start)?;
            let mut reader = file.take(range.end - range.start);
            let sender = sender.clone();
            Box::new(move || plain(&mut reader, &sender))
        }
    };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = feed() {
            let text = error.to_string();
            *lock(&noted) = error.downcast::<content::Error>().ok();
            // Breaks the request, so that the registry does not take a part for the whole.
            let _ = sender.blocking_send(Err(io::Error::other(text)));
        }
    });
    let portions = (receiver, Arc::clone(&sent));
    let portions = stream::unfold(portions, |(mut receiver, sent)| async move {
        let portion = receiver.recv().await?;
        if let Ok(bytes) = &portion {
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Some((portion, (receiver, sent)))
    });
    Ok((Body::wrap_stream(portions), sent, trouble))
}

/// Reads a blob from its beginning and hands over what lies from byte `begin` on. The last
/// portion leaves only when the whole blob is known to be right.
fn checked(
    reader: &mut impl Read,
    begin: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut skip = begin;
    let mut held = Bytes::new();
    loop {
        let mut portion = vec![0; PORTION_BYTES];
        let count = reader.read(&mut portion)?;
        // A request that has ended takes nothing more; whoever sent it knows why.
        if !held.is_empty() && sender.blocking_send(Ok(held)).is_err() {
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        portion.truncate(count);
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
        skip -= skipped as u64;
        held = Bytes::from(portion).slice(skipped..);
    }
}

/// Hands over what a reader has.
fn plain(reader: &mut impl Read, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut portion = vec![0; PORTION_BYTES];
        let count = reader.read(&mut portion)?;
        portion.truncate(count);
        if count == 0 || sender.blocking_send(Ok(portion.into())).is_err() {
            return Ok(());
        }
    }
}
