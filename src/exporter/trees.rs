//! Root file systems to a folder or a tar; those of several platforms get a folder each.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::attestations::{self, StatementFile};
use super::export::PlatformResult;
use super::local::{self, LocalTree, Written};
use super::output::{Destination, LocalMode, OutputSpec, TreeOptions};
use super::rootfs::{self, TarTree};
use super::transfer::Meter;
use crate::oci::Platform;
use crate::progress::VertexProgress;
use crate::snapshot::{Snapshotter, View};

/// What is written, and with what.
#[derive(Debug)]
pub(super) struct Trees {
    /// Where the layers are.
    pub(super) snapshots: Snapshotter,
    /// The result for each platform.
    pub(super) results: Vec<PlatformResult>,
    /// Whether a folder for each platform is the default.
    pub(super) multi_platform: bool,
    /// The step that shows the progress.
    pub(super) vertex: VertexProgress,
    /// Stops the writing.
    pub(super) cancel: CancellationToken,
}

impl Trees {
    /// Writes to a `tar` or `local` output; blocks.
    pub(super) fn write(&self, output: &OutputSpec) -> Result<(), Error> {
        match output {
            OutputSpec::Tar {
                destination,
                options,
            } => self.tar(destination, options),
            OutputSpec::Local { directory, options } => self.local(directory, options),
            _ => Ok(()),
        }
    }

    /// Returns the folder of a platform: `linux_arm64`.
    fn folder(&self, platform: &Platform, options: &TreeOptions) -> PathBuf {
        match options.platform_split.unwrap_or(self.multi_platform) {
            true => platform.to_string().replace('/', "_").into(),
            false => PathBuf::new(),
        }
    }

    /// Makes the files of what is said about a tree.
    fn statements(
        &self,
        tree: &Path,
        result: &PlatformResult,
        options: &TreeOptions,
    ) -> Result<Vec<StatementFile>, Error> {
        let is_split = options.platform_split.unwrap_or(self.multi_platform);
        let suffix = match self.multi_platform && !is_split {
            true => result.platform.to_string().replace('/', "_"),
            false => String::new(),
        };
        attestations::files(tree, result, &options.attestation_prefix, &suffix)
    }

    fn tar(&self, destination: &Destination, options: &TreeOptions) -> Result<(), Error> {
        // One archive cannot hold two files of one name, so as in BuildKit several platforms
        // are split whatever was asked for.
        let mut options = options.clone();
        if self.results.len() > 1 {
            options.platform_split = Some(true);
        }
        let views: Result<Vec<View>, _> = self
            .results
            .iter()
            .map(|result| self.snapshots.view(&result.layers))
            .collect();
        let views = views?;
        let pairs = self.results.iter().zip(&views);
        let tree = |(result, view): (&PlatformResult, &'_ View)| {
            let statements = self.statements(view.path(), result, &options)?;
            Ok(TarTree {
                source: view.path().to_owned(),
                folder: self.folder(&result.platform, &options),
                epoch_s: options.epoch.or(result.epoch_s),
                statements,
            })
        };
        let trees: Vec<TarTree> = pairs.map(tree).collect::<Result<_, Error>>()?;
        let meter = Meter::new(&self.vertex, "sending tarball", 0, &self.cancel);
        rootfs::write_tar(&trees, destination, &meter)?;
        meter.finish();
        Ok(())
    }

    fn local(&self, directory: &Path, options: &TreeOptions) -> Result<(), Error> {
        let mut written = Written::new();
        let mut views = Vec::new();
        for result in &self.results {
            let name = result.platform.to_string();
            let folder = self.folder(&result.platform, options);
            let is_shared = folder.as_os_str().is_empty() && self.results.len() > 1;
            let label = match self.results.len() {
                1 => "copying files".to_owned(),
                _ => format!("copying files {name}"),
            };
            let view = self.snapshots.view(&result.layers)?;
            let meter = Meter::new(&self.vertex, &label, 0, &self.cancel);
            let tree = LocalTree {
                source: view.path(),
                target: &directory.join(&folder).components().collect::<PathBuf>(),
                epoch_s: options.epoch.or(result.epoch_s),
            };
            let claims = is_shared.then_some((name.as_str(), &mut written));
            local::copy_tree(tree, claims, &meter)?;
            if let Some(epoch_s) = tree.epoch_s.filter(|_| tree.target != directory) {
                local::set_time(tree.target, epoch_s)?;
            }
            meter.finish();
            views.push((folder, view));
        }
        if options.mode == LocalMode::Delete {
            let trees = views
                .iter()
                .map(|(folder, view)| (folder.as_path(), view.path()));
            local::remove_stale(directory, &trees.collect::<Vec<_>>())?;
        }
        for (result, (folder, view)) in self.results.iter().zip(&views) {
            let target = directory.join(folder).components().collect::<PathBuf>();
            let epoch_s = options.epoch.or(result.epoch_s);
            for statement in self.statements(view.path(), result, options)? {
                local::write_statement(&target, epoch_s, &statement)?;
            }
            if let Some(epoch_s) = epoch_s.filter(|_| target != directory) {
                local::set_time(&target, epoch_s)?;
            }
        }
        Ok(())
    }
}
