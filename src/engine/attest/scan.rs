//! Scanning a result, and what else was named, for its software.

use std::sync::Arc;

use super::{Made, time};
use crate::attestation::{Attestation, SBOM_FILE, SPDX};
use crate::engine::build::Build;
use crate::engine::error::{EngineError, ErrorKind};
use crate::oci::{Digest, Reference};
use crate::progress::{Event, Warning};
use crate::sbom::{self, Inventory, SpdxDocument};
use crate::snapshot::LayerId;

impl Build {
    /// Scans the result and what else was named.
    pub(super) async fn sboms(
        &self,
        made: &Made<'_>,
        finished_ns: i64,
    ) -> Result<Vec<Attestation>, EngineError> {
        let epoch_ns = made.lowered.epoch.map(|s| s.saturating_mul(1_000_000_000));
        let created_ns = epoch_ns.unwrap_or(finished_ns);
        let created_s = created_ns.div_euclid(1_000_000_000);
        let names = made.lowered.scans.iter().map(|(name, _)| Some(name));
        let trees = made.scanned.iter().map(Vec::as_slice);
        let parts = [None].into_iter().chain(names);
        let parts = parts.zip([made.layers].into_iter().chain(trees));
        let mut attestations = Vec::new();
        for (part, layers) in parts {
            let title = match &made.platform {
                Some(platform) => format!("[{platform}] generating sbom"),
                None => "generating sbom".to_owned(),
            };
            let title = match part {
                Some(part) => format!("{title} of {part}"),
                None => title,
            };
            let document = SpdxDocument {
                name: self.scanned_name(part.map(String::as_str)),
                created: time(created_s.saturating_mul(1_000_000_000)),
                inventory: self.scan(title, layers).await?,
            };
            attestations.push(Attestation {
                filename: match part {
                    Some(part) => format!("sbom-{}.spdx.json", part.replace('/', "_")),
                    None => SBOM_FILE.to_owned(),
                },
                predicate_type: SPDX.to_owned(),
                inline_only: false,
                time_s: created_s,
                predicate: Arc::new(document),
                about: Vec::new(),
            });
        }
        Ok(attestations)
    }

    /// Names what was scanned: the image, or the part of the build.
    fn scanned_name(&self, part: Option<&str>) -> String {
        let image = self.request.names.first().map(Reference::familiar);
        let image = image.unwrap_or_else(|| "sbom".to_owned());
        match part {
            Some(part) => format!("{image} {part}"),
            None => image,
        }
    }

    /// Lists the software in a tree.
    async fn scan(&self, title: String, layers: &[LayerId]) -> Result<Inventory, EngineError> {
        let step = self.progress.of_vertex(Digest::of(title.as_bytes()));
        step.start(&title);
        let (snapshots, layers) = (self.snapshots(), layers.to_vec());
        let cancel = self.cancel.clone();
        let work = move || {
            let view = snapshots.view(&layers)?;
            let mut inventory = sbom::scan(view.path(), &cancel).map_err(|error| {
                let text = format!("cannot scan the result for packages: {error}");
                EngineError::new(ErrorKind::Config, text).with_source(error)
            })?;
            let owners = snapshots.owners(&layers)?;
            inventory.attribute(|path| owners.of(path));
            Ok::<_, EngineError>(inventory)
        };
        let scanned = match tokio::task::spawn_blocking(work).await {
            Ok(Err(_)) if self.cancel.is_cancelled() => Err(EngineError::cancelled()),
            Ok(scanned) => scanned,
            Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
        };
        if let Ok(inventory) = &scanned {
            let line = format!("{} packages", inventory.package_count());
            step.status(&line, "", 0, 0, true);
            for note in &inventory.notes {
                self.progress.send(Event::Warning(Warning {
                    short: note.clone(),
                    ..Warning::default()
                }));
            }
        }
        step.complete(scanned.as_ref().err().map(ToString::to_string));
        scanned
    }
}
