//! What the outputs need of results that are elsewhere: blobs, or files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::Build;
use crate::exporter::{LayerTimes, OutputSpec, squash};
use crate::frontend::Lowered;
use crate::oci::Digest;
use crate::snapshot::LayerId;
use crate::solver::Solved;
use crate::worker::{ImageLayers, Lost, OpOutput};

/// The results, as the outputs need them.
#[derive(Default)]
pub(super) struct Brought {
    /// The layers of each result.
    pub(super) stacks: Vec<Vec<LayerId>>,
    /// Blobs that are not here, because the registries have them.
    pub(super) elsewhere: BTreeSet<Digest>,
}

impl Build {
    /// Fetches what is still missing of the results, and unpacks it where an output needs
    /// files. What is only pushed goes from registry to registry where that is possible.
    pub(super) async fn bring(
        &self,
        layers: &Arc<ImageLayers>,
        lowered: &[Lowered],
        solved: &Solved<OpOutput>,
    ) -> Result<Brought, Lost> {
        let pushed_to = self.only_pushed_to();
        let (progress, cancel) = (&self.progress, &self.cancel);
        let mut brought = Brought::default();
        for (number, result) in solved.results.iter().enumerate() {
            let output = result.output.as_ref();
            let stack = output.map(|output| output.layers().to_vec());
            let stack = stack.unwrap_or_default();
            let files = self.layers_read(lowered.get(number), stack.len());
            match &pushed_to {
                Some(names) => {
                    let read = &stack[..files];
                    layers.bring_all(read, files, progress, cancel).await?;
                    let sent = self.send(layers, &stack, names).await?;
                    brought.elsewhere.extend(sent);
                }
                None => layers.bring_all(&stack, files, progress, cancel).await?,
            }
            brought.stacks.push(stack);
        }
        Ok(brought)
    }

    /// Returns how many of the lowest layers of a result are read as files, and not just as
    /// blobs. Results that become no image are.
    fn layers_read(&self, image: Option<&Lowered>, layers: usize) -> usize {
        // Software is looked for in files.
        let is_scanned = self.request.attestations.sbom.is_some();
        let Some(image) = image.filter(|_| !is_scanned) else {
            return layers;
        };
        let outputs = self.outputs();
        let read = outputs.iter().map(|output| match output.image_options() {
            Some(options)
                if options.compression.force || options.layer_times != LayerTimes::Kept =>
            {
                layers
            }
            Some(options) => {
                let base = image.base_image.as_ref();
                squash::layers_read(&image.image, base, layers, options.squash)
            }
            None if matches!(output, OutputSpec::CacheOnly) => 0,
            None => layers,
        });
        read.max().unwrap_or(0)
    }
}
