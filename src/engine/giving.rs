//! Remote caches that a build gives to: from the first finished step on, and to the end after the
//! outputs are written, whether or not the build succeeded. What goes wrong is one warning for
//! each cache, unless the user wants it to be a failure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::Build;
use super::buildkit_cache::{BuildKitExport, FinishedSteps, Offered};
use super::caches::{Reached, Ready, title, warn};
use super::clock;
use super::error::{EngineError, ErrorKind};
use crate::cache::remote::buildkit::{self, Dialect};
use crate::cache::remote::{
    CacheExport, CacheFormat, CachePlace, ExportParts, ExportTarget, Exported, Exports, Imports,
    LocalStore, Offers, RemoteStore, inline,
};
use crate::exporter::squash::groups_layers;
use crate::exporter::{ImageOptions, LayerTimes, OutputSpec, Squash, Target};
use crate::frontend::Lowered;
use crate::llb::{Loaded, OutputRef, VertexDigest};
use crate::oci::ImageConfig;
use crate::progress::Progress;
use crate::snapshot::Compression;
use crate::worker::{ImageLayers, ResultLayers, keys};

/// Build argument that asks for an inline cache, as BuildKit takes it.
const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";
/// Why an image has no inline cache of BuildKit's.
const REWRITTEN: &str = "not in BuildKit's format, which needs the layers as the steps made them: leave out format=buildkit, or what rewrites them";

/// Caches that are being given to.
pub(super) struct Giving {
    exports: Exports,
    /// Titles of those whose failure is one of the build.
    required: BTreeSet<String>,
    /// The steps whose records go into the image.
    inline: Option<Inline>,
    /// Caches that are written in BuildKit's format.
    buildkit: Vec<BuildKitExport>,
    progress: Progress,
}

struct Inline {
    /// The steps of each image.
    chains: Vec<BTreeSet<VertexDigest>>,
    /// What each image is made from.
    results: Vec<Option<OutputRef>>,
    steps: FinishedSteps,
    /// In whose way BuildKit's format is written; ours where `None`.
    dialect: Option<Dialect>,
    /// Whether images get other layers than their steps made.
    rewritten: bool,
}

impl Build {
    /// Begins to give to the caches that the build gives to.
    pub(super) fn start_exports(
        &self,
        loaded: &Loaded,
        layers: &Arc<ImageLayers>,
        ready: Ready,
    ) -> Result<Giving, EngineError> {
        let (imports, mut exports) = (&ready.imports, ready.exports);
        let parts = self.export_parts(imports);
        let chains = chains(loaded);
        let of_images: BTreeSet<_> = chains.iter().flatten().cloned().collect();
        let (mut targets, mut required, mut inline) = (Vec::new(), BTreeSet::new(), None);
        let (offered, mut in_buildkit) = (Offered::default(), Vec::new());
        for (number, export) in self.wanted_exports().into_iter().enumerate() {
            let layers = Arc::new(self.result_layers(&export, layers, imports)?);
            let steps = || FinishedSteps {
                offered: Arc::clone(&offered),
                layers: Arc::clone(&layers),
                parts: parts.clone(),
            };
            if export.place == CachePlace::Inline {
                inline = Some((export.format, steps()));
                continue;
            }
            let Some(store) = self.reached(&export, exports.remove(&number))? else {
                continue;
            };
            reset(&export.place)?;
            let title = title(&export.place);
            if !export.ignore_error {
                required.insert(title.clone());
            }
            let wanted = (!export.all_steps).then(|| of_images.clone());
            if let CacheFormat::BuildKit { dialect, as_image } = export.format {
                in_buildkit.push(BuildKitExport {
                    store,
                    title,
                    wanted,
                    steps: steps(),
                    form: (dialect, as_image),
                    bounded: !matches!(export.place, CachePlace::Backend(_)),
                    timeout: export.timeout,
                });
                continue;
            }
            targets.push(ExportTarget {
                store,
                title,
                steps: wanted,
                layers,
                timeout: export.timeout,
                keep_days: export.keep_days,
                bytes_max: export.bytes_max,
            });
        }
        let listens = inline.is_some() || !in_buildkit.is_empty();
        let listener = listens.then_some(offered);
        Ok(Giving {
            exports: Exports::start(targets, listener, &parts),
            required,
            inline: inline.map(|(format, steps)| Inline {
                chains,
                results: loaded.results.clone(),
                steps,
                dialect: match format {
                    CacheFormat::BuildKit { dialect, .. } => Some(dialect),
                    CacheFormat::Cooper => None,
                },
                rewritten: self.rewrites_layers(),
            }),
            buildkit: in_buildkit,
            progress: self.progress.clone(),
        })
    }

    fn result_layers(
        &self,
        export: &CacheExport,
        layers: &Arc<ImageLayers>,
        imports: &Arc<Imports>,
    ) -> Result<ResultLayers, EngineError> {
        Ok(ResultLayers {
            snapshots: self.engine.snapshots.clone(),
            layers: Arc::clone(layers),
            imports: Arc::clone(imports),
            compression: compression(export, self.image_compression())?,
        })
    }

    /// Says whether a cache is to be written in BuildKit's format.
    pub(super) fn writes_buildkit(&self) -> bool {
        let mut formats = self.request.cache_to.iter().map(|export| export.format);
        formats.any(|format| format != CacheFormat::Cooper)
    }

    /// Says whether images get other layers than their steps made.
    fn rewrites_layers(&self) -> bool {
        let outputs = self.outputs();
        let rewrites = |options: &ImageOptions| {
            options.layer_times != LayerTimes::Kept || options.squash != Squash::Groups
        };
        outputs
            .iter()
            .filter_map(OutputSpec::image_options)
            .any(rewrites)
    }

    /// Lists the exports, with the one that a build argument asks for.
    pub(super) fn wanted_exports(&self) -> Vec<CacheExport> {
        let mut wanted = self.request.cache_to.clone();
        let argument = self.request.build_args.get(INLINE_ARGUMENT);
        let is_inline = |export: &CacheExport| export.place == CachePlace::Inline;
        if argument.is_some_and(|value| matches!(value.as_str(), "1" | "true"))
            && !wanted.iter().any(is_inline)
        {
            wanted.push(CacheExport::inline());
        }
        wanted
    }

    fn export_parts(&self, imports: &Arc<Imports>) -> ExportParts {
        ExportParts {
            cache: self.engine.cache.clone(),
            content: self.engine.content.clone(),
            imports: Arc::clone(imports),
            progress: self.progress.clone(),
            now_ns: clock::now_ns(),
        }
    }

    /// Returns how the layers of the image are compressed.
    fn image_compression(&self) -> Compression {
        let outputs = self.outputs();
        let mut options = outputs.iter().filter_map(OutputSpec::image_options);
        options
            .next()
            .map(|options| options.compression)
            .unwrap_or_default()
    }

    /// Returns the store of an export; `None`, after a warning, where it was not reached.
    fn reached(
        &self,
        export: &CacheExport,
        reached: Option<Reached>,
    ) -> Result<Option<Arc<dyn RemoteStore>>, EngineError> {
        let error = match reached {
            Some(Ok(store)) => return Ok(Some(store)),
            Some(Err(error)) => error.to_string(),
            None => "it was not looked for".to_owned(),
        };
        let text = format!("{}: {error}", title(&export.place));
        if !export.ignore_error {
            return Err(EngineError::new(ErrorKind::Registry, text));
        }
        warn(&self.progress, &text);
        Ok(None)
    }
}

impl Giving {
    /// Returns where finished steps are offered.
    pub(super) fn offers(&self) -> Offers {
        self.exports.offers()
    }

    /// Puts the records of the images' own steps into their configs.
    pub(super) async fn write_inline(&self, images: &mut [Lowered]) {
        for image in &mut *images {
            image.image.other.remove(inline::MEMBER);
            image.image.other.remove(buildkit::container::MEMBER);
        }
        let Some(inline) = &self.inline else {
            return;
        };
        for (number, image) in images.iter_mut().enumerate() {
            match inline.member(number, &image.image).await {
                Ok(Some((name, member))) => {
                    image.image.other.insert(name.to_owned(), member.into());
                }
                Ok(None) => {}
                Err(reason) => warn(&self.progress, &format!("inline cache: {reason}")),
            }
        }
    }

    /// Ends the exports; an error is one that the user asked to be told of as such.
    pub(super) async fn finish(self) -> Result<(), EngineError> {
        let mut failed = Ok(());
        let mut ended = self.exports.finish().await;
        for export in self.buildkit {
            ended.push(export.finish().await);
        }
        for Exported { title, fault, .. } in ended {
            let Some(fault) = fault else { continue };
            if self.required.contains(&title) {
                let text = format!("{title}: {fault}");
                failed = Err(EngineError::new(ErrorKind::Registry, text));
            } else {
                warn(&self.progress, &format!("{title}: {fault}"));
            }
        }
        failed
    }
}

impl Inline {
    /// Returns the member that goes into the config of an image, by name.
    async fn member(
        &self,
        number: usize,
        image: &ImageConfig,
    ) -> Result<Option<(&'static str, String)>, String> {
        let chain = &self.chains[number];
        if let Some(dialect) = self.dialect {
            // It names layers by their places.
            if self.rewritten || groups_layers(image) {
                return Err(REWRITTEN.to_owned());
            }
            let Some(result) = &self.results[number] else {
                return Ok(None);
            };
            let written = self.steps.inline(chain, result, dialect).await?;
            return Ok(written.map(|member| (buildkit::container::MEMBER, member)));
        }
        let mut records = Vec::new();
        for (_, id) in self.steps.offered(Some(chain)) {
            records.extend(self.steps.record(id).await?);
        }
        Ok(inline::member(records).map(|member| (inline::MEMBER, member)))
    }
}

/// Returns the steps whose layers are layers of each result.
fn chains(loaded: &Loaded) -> Vec<BTreeSet<VertexDigest>> {
    let chain = |result: &Option<crate::llb::OutputRef>| match result {
        Some(result) => {
            let steps = keys::base_chain(&loaded.vertices, result).into_iter();
            steps.map(|vertex| vertex.digest.clone()).collect()
        }
        None => BTreeSet::new(),
    };
    loaded.results.iter().map(chain).collect()
}

/// Reads how an export compresses layers; as the image does where it does not say.
fn compression(export: &CacheExport, of_image: Compression) -> Result<Compression, EngineError> {
    if export.compression.is_empty() {
        return Ok(of_image);
    }
    let spec = OutputSpec::from_attributes("image", Target::Nowhere, &export.compression);
    let spec = spec.map_err(|error| EngineError::new(ErrorKind::User, error.to_string()))?;
    Ok(spec
        .image_options()
        .map(|options| options.compression)
        .unwrap_or_default())
}

fn reset(place: &CachePlace) -> Result<(), EngineError> {
    match (place, LocalStore::new(place)) {
        (CachePlace::Local { reset: true, .. }, Some(store)) => store.reset().map_err(|error| {
            EngineError::new(ErrorKind::Config, "cannot reset the local cache").with_source(error)
        }),
        _ => Ok(()),
    }
}
