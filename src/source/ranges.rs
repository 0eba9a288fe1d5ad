//! Parts of layers for who reads them piece by piece: from a registry, for threads that block.
//!
//! Files of a shown layer are read by steps, and by this program itself, wherever it happens to
//! be. Fetching must go on meanwhile, whatever the threads of a build wait for: it has a client
//! and threads of its own.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::runtime::{Builder, Runtime};

use super::image::PinnedImage;
use crate::oci::{Descriptor, Reference};
use crate::registry::Client;
use crate::snapshot::{LayerBlob, RangeSource, has_table};

/// Fetches parts of layers.
#[derive(Debug)]
pub struct LayerRanges {
    client: Client,
    /// Started when it is first needed.
    runtime: Mutex<Option<Runtime>>,
}

impl LayerRanges {
    /// Uses a client that nobody else has.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            runtime: Mutex::default(),
        }
    }

    /// Returns where parts of a layer of an image come from; `None` where its form has none.
    pub fn of_layer(
        self: &Arc<Self>,
        image: &PinnedImage,
        index: usize,
    ) -> Option<(LayerBlob, Arc<dyn RangeSource>)> {
        let (descriptor, diff_id) = image.layers.get(index)?.clone();
        if !has_table(&descriptor) {
            return None;
        }
        let source = BlobRanges {
            ranges: Arc::clone(self),
            reference: image.reference.clone(),
            blob: descriptor.clone(),
        };
        let blob = LayerBlob {
            descriptor,
            diff_id,
        };
        Some((blob, Arc::new(source)))
    }

    /// Runs something on the threads of this value, and waits for it.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let (sender, receiver) = mpsc::channel();
        {
            let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
            let runtime = match &mut *runtime {
                Some(runtime) => runtime,
                none => {
                    let mut threads = Builder::new_multi_thread();
                    let threads = threads.worker_threads(1).thread_name("lazy network");
                    let made = threads.enable_all().build();
                    none.insert(made.map_err(|error| format!("cannot start a thread: {error}"))?)
                }
            };
            // Who waits no more needs no answer.
            runtime.spawn(async move { drop(sender.send(work.await)) });
        }
        let answer = receiver.recv();
        answer.map_err(|_| "the program is about to end".to_owned())
    }
}

impl Drop for LayerRanges {
    fn drop(&mut self) {
        let runtime = self
            .runtime
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            // May be the last thing that a thread of another runtime does.
            runtime.shutdown_background();
        }
    }
}

/// One blob.
#[derive(Debug)]
struct BlobRanges {
    ranges: Arc<LayerRanges>,
    reference: Reference,
    blob: Descriptor,
}

impl RangeSource for BlobRanges {
    fn read(&self, begin: u64, length: u64) -> Result<Vec<u8>, String> {
        let (client, reference) = (self.ranges.client.clone(), self.reference.clone());
        let blob = self.blob.clone();
        let fetched = self.ranges.run(async move {
            let part = client.fetch_range(&reference, &blob, begin, length);
            part.await
        });
        let fetched = fetched?.map_err(|error| error.to_string())?;
        Ok(fetched.into())
    }
}
