//! Layers on their way to registries while the build that makes more of them goes on.
//!
//! Nothing depends on it: the push at the end sends what is not there, waits for what is on its
//! way, and reports what goes wrong. A build that fails leaves layers without an image, which
//! registries collect, and which the next build finds there.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::content::ContentStore;
use crate::exporter::{Compression, LayerTimes, OutputSpec, Squash, squash};
use crate::frontend::Lowered;
use crate::llb::{Loaded, Vertex, VertexDigest, pb};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::{Progress, VertexProgress};
use crate::registry::Client;
use crate::worker::LayerReady;
use crate::worker::keys;

/// What people read while layers travel.
const TITLE: &str = "pushing layers while the build goes on";

/// Uploads layers of one build.
#[derive(Debug)]
pub(super) struct Uploads {
    client: Client,
    content: ContentStore,
    /// One name for each repository.
    repositories: Vec<Reference>,
    vertex: VertexProgress,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    tasks: JoinSet<()>,
}

impl Uploads {
    /// Prepares the uploads of a build, where an output pushes layers of this compression as
    /// they are.
    pub(super) fn new(
        outputs: &[OutputSpec],
        names: &[Reference],
        compression: Option<Compression>,
        parts: (Client, ContentStore),
        progress: &Progress,
    ) -> Option<Self> {
        let mut repositories: Vec<Reference> = Vec::new();
        for output in outputs {
            let OutputSpec::Image {
                options,
                push: Some(_),
                ..
            } = output
            else {
                continue;
            };
            let as_made = options.layer_times == LayerTimes::Kept
                && options.squash == Squash::Groups
                && Some(options.compression) == compression;
            if !as_made {
                continue;
            }
            for name in names.iter().chain(&options.names) {
                if !repositories.iter().any(|known| known.name() == name.name()) {
                    repositories.push(name.clone());
                }
            }
        }
        let (client, content) = parts;
        (!repositories.is_empty()).then(|| Self {
            client,
            content,
            repositories,
            vertex: progress.of_vertex(Digest::of(TITLE.as_bytes())),
            runtime: Handle::current(),
            state: Mutex::default(),
        })
    }

    /// Says that the build is over: what is still under way, the push at the end has sent.
    pub(super) fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tasks.abort_all();
        if state.started {
            self.vertex.complete(None);
        }
    }
}

/// Lists the steps whose layers images have as they are made: not those that become one with
/// others, and nothing of base images' own.
pub(super) fn image_steps(loaded: &Loaded, images: &[Lowered]) -> BTreeSet<VertexDigest> {
    let mut steps = BTreeSet::new();
    for (number, result) in loaded.results.iter().enumerate() {
        let Some(result) = result else { continue };
        let chain = keys::base_chain(&loaded.vertices, result);
        let kept = match images.get(number) {
            Some(image) => ungrouped(chain, image),
            None => chain,
        };
        steps.extend(kept.into_iter().map(|vertex| vertex.digest.clone()));
    }
    steps
}

/// Leaves out the steps whose layers become one with others; `chain` begins with the highest.
fn ungrouped<'a>(mut chain: Vec<&'a Vertex>, image: &Lowered) -> Vec<&'a Vertex> {
    let (groups, layers) = squash::grouped(&image.image, image.base_image.as_ref());
    if groups.is_empty() {
        return chain;
    }
    chain.retain(|vertex| matches!(vertex.op, pb::op::Op::Exec(_) | pb::op::Op::File(_)));
    if chain.len() != layers {
        // Which step makes which layer cannot be told: the exporter sees to all of them.
        return Vec::new();
    }
    let numbered = (0..layers).rev().zip(chain);
    let is_grouped = |number: &usize| groups.iter().any(|group| group.contains(number));
    let kept = numbered.filter(|(number, _)| !is_grouped(number));
    kept.map(|(_, vertex)| vertex).collect()
}

impl LayerReady for Uploads {
    fn ready(&self, blob: &Descriptor) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.started {
            state.started = true;
            self.vertex.start(TITLE);
        }
        let (client, content) = (self.client.clone(), self.content.clone());
        let (repositories, vertex) = (self.repositories.clone(), self.vertex.clone());
        let blob = blob.clone();
        let work = async move {
            for repository in &repositories {
                // The push at the end tries again, and says what is wrong.
                let pushed = client.push_blob(repository, &blob, &content, None, &vertex);
                let _ = pushed.await;
            }
        };
        state.tasks.spawn_on(work, &self.runtime);
    }
}
