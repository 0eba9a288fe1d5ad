//! The document of a build: what its finished steps are called in BuildKit's scheme.
//!
//! Every step that stands below a finished one gets a record, so that an importer can go from
//! sources to results; only the finished ones that are given have layers. A folder of a client's
//! has no record: the checksums of what steps use of it stand for it.
//!
//! A document is in one [`Dialect`]. Records of several, linked with one another, would be several
//! ways from a source to a result, of which BuildKit takes none at times.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::config::{Chain, Config, Layer, Link, Note, Outcome, Record};
use super::container::{Container, described, time};
use super::keys::{Input, Keys, Step, View};
use super::ops::{Dialect, of_dialect};
use super::{config, container, ops};
use crate::cache::remote::CachedLayer;
use crate::llb::VertexDigest;
use crate::oci::{Descriptor, DiffId, Digest};

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The layers of each output, lowest first.
    pub outputs: Vec<Vec<CachedLayer>>,
    /// When it did.
    pub created_ns: i64,
}

/// A cache that is ready to be put somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    document: Config,
    /// The document.
    pub config: Vec<u8>,
    /// Each layer once.
    pub layers: Vec<CachedLayer>,
    /// What names both.
    pub container: Container,
    /// Whether that is written as an image manifest, and not as an index.
    pub as_image: bool,
}

impl Written {
    /// Writes the document for where there is nothing around it.
    pub fn alone(&self) -> Vec<u8> {
        let notes = self.layers.iter();
        let notes: BTreeMap<&Digest, Note> = notes
            .map(|layer| (&layer.blob.digest, container::note(layer)))
            .collect();
        let mut document = self.document.clone();
        for layer in &mut document.layers {
            layer.annotations = notes.get(&layer.blob).cloned();
        }
        // Texts and numbers can always be written.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// Where a result stands in the document.
enum Placed {
    On(i64),
    Listed(Vec<i64>),
}

impl Keys {
    /// Writes the cache of these steps; `None` where there is nothing to find.
    pub fn write(
        &self,
        finished: &BTreeMap<VertexDigest, Finished>,
        (dialect, as_image): (Dialect, bool),
    ) -> Option<Written> {
        let mut layers: Vec<Layer> = Vec::new();
        let mut places: BTreeMap<(Digest, i64), i64> = BTreeMap::new();
        let mut blobs: BTreeMap<Digest, CachedLayer> = BTreeMap::new();
        let records = self.records(finished, dialect, |stack| {
            let mut parent = -1;
            for layer in stack {
                let blob = layer.blob.digest.clone();
                blobs.entry(blob.clone()).or_insert_with(|| layer.clone());
                parent = *places.entry((blob.clone(), parent)).or_insert_with(|| {
                    layers.push(Layer {
                        blob,
                        parent,
                        annotations: None,
                    });
                    number(layers.len() - 1)
                });
            }
            (parent >= 0).then_some(Placed::On(parent))
        });
        let document = Config { layers, records }.sorted();
        // Texts and numbers can always be written.
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        let layers: Vec<CachedLayer> = blobs.into_values().collect();
        let container = Container {
            config: Descriptor::of(config::MEDIA_TYPE, &bytes),
            layers: layers.iter().map(described).collect(),
        };
        (!layers.is_empty()).then_some(Written {
            document,
            config: bytes,
            layers,
            container,
            as_image,
        })
    }

    /// Writes the cache of these steps for the config of an image with these layers; `None`
    /// where it has nothing of them.
    pub fn write_inline(
        &self,
        finished: &BTreeMap<VertexDigest, Finished>,
        (dialect, image): (Dialect, &[DiffId]),
    ) -> Option<String> {
        let records = self.records(finished, dialect, |stack| {
            let diff_ids = || stack.iter().map(|layer| &layer.diff_id);
            let is_start = stack.len() <= image.len() && diff_ids().eq(&image[..stack.len()]);
            if is_start && !stack.is_empty() {
                return Some(Placed::On(number(stack.len() - 1)));
            }
            let place = |diff_id| image.iter().position(|own| own == diff_id).map(number);
            let listed: Vec<i64> = diff_ids().map(place).collect::<Option<_>>()?;
            (!listed.is_empty()).then_some(Placed::Listed(listed))
        });
        let has_result = |r: &Record| !(r.results.is_empty() && r.chains.is_empty());
        if !records.iter().any(has_result) {
            return None;
        }
        let layers = Vec::new();
        let records = Config { layers, records }.sorted_records();
        Some(STANDARD.encode(serde_json::to_vec(&records).unwrap_or_default()))
    }

    /// Makes the records of finished steps and of what they are made from.
    fn records(
        &self,
        finished: &BTreeMap<VertexDigest, Finished>,
        dialect: Dialect,
        mut place: impl FnMut(&[CachedLayer]) -> Option<Placed>,
    ) -> Vec<Record> {
        let needed = self.needed(finished);
        let view = self.view();
        let mut records = Records::in_dialect(dialect);
        for (number, step) in self.steps.iter().enumerate() {
            let mut of_outputs = Vec::new();
            let inputs = match needed.contains(&number) {
                true => records.inputs(&view, step),
                false => None,
            };
            for output in 0..step.outputs.max(1) {
                let result = finished.get(&step.vertex);
                let result = result.and_then(|result| {
                    let stack = result.outputs.get(output as usize)?;
                    let own = stack.last().and_then(|layer| layer.created_ns);
                    Some((place(stack)?, time(own.unwrap_or(result.created_ns))?))
                });
                let made = match &inputs {
                    Some(inputs) => {
                        let digests = view.records_in(step, output, dialect);
                        records.add(digests, inputs, result)
                    }
                    None => Vec::new(),
                };
                of_outputs.push(made);
            }
            records.of_steps.push(of_outputs);
        }
        records.all
    }

    /// Returns the finished steps and all that they are made from.
    fn needed(&self, finished: &BTreeMap<VertexDigest, Finished>) -> BTreeSet<usize> {
        let places = finished.keys().filter_map(|vertex| self.place(vertex));
        let (mut open, mut needed): (Vec<usize>, _) = (places.collect(), BTreeSet::new());
        while let Some(place) = open.pop() {
            if needed.insert(place) {
                open.extend(self.steps[place].inputs.iter().map(|input| input.step));
            }
        }
        needed
    }
}

/// Records that are being collected.
struct Records {
    dialect: Dialect,
    all: Vec<Record>,
    /// Positions of those of each output of each step.
    of_steps: Vec<Vec<Vec<usize>>>,
    /// Positions of those that stand for contents.
    of_contents: BTreeMap<Digest, i64>,
}

impl Records {
    fn in_dialect(dialect: Dialect) -> Self {
        Self {
            dialect,
            all: Vec::new(),
            of_steps: Vec::new(),
            of_contents: BTreeMap::new(),
        }
    }

    /// Returns what may stand for each input of a step; `None` where nothing may.
    fn inputs(&mut self, view: &View<'_>, step: &Step) -> Option<Vec<Vec<Link>>> {
        let mut inputs = Vec::new();
        for (number, input) in step.inputs.iter().enumerate() {
            let mut links = self.of_step(input);
            if let Some(contents) = of_dialect(view.contents(step, number), self.dialect) {
                let link = self.of_contents(contents);
                let selector = String::new();
                links.push(Link { selector, link });
            }
            if links.is_empty() {
                return None;
            }
            inputs.push(links);
        }
        Some(inputs)
    }

    fn of_step(&self, input: &Input) -> Vec<Link> {
        let selector = of_dialect(&input.dependency.selectors, self.dialect);
        let selector = selector.map(ToString::to_string).unwrap_or_default();
        let outputs = self.of_steps.get(input.step);
        let records = outputs.and_then(|outputs| outputs.get(input.output as usize));
        let links = records.into_iter().flatten().map(|record| Link {
            selector: selector.clone(),
            link: number(*record),
        });
        links.collect()
    }

    fn of_contents(&mut self, contents: &Digest) -> i64 {
        let new = number(self.all.len());
        let place = *self.of_contents.entry(contents.clone()).or_insert(new);
        if place == new {
            self.all.push(Record {
                digest: ops::content_record(contents).to_string(),
                ..Record::default()
            });
        }
        place
    }

    /// Adds the records of one output, one for each name that it has.
    fn add(
        &mut self,
        digests: Vec<String>,
        inputs: &[Vec<Link>],
        result: Option<(Placed, String)>,
    ) -> Vec<usize> {
        let mut record = Record {
            inputs: inputs.to_vec(),
            ..Record::default()
        };
        match result {
            Some((Placed::On(layer), created_at)) => {
                record.results.push(Outcome { layer, created_at });
            }
            Some((Placed::Listed(layers), created_at)) => {
                record.chains.push(Chain { layers, created_at });
            }
            None => {}
        }
        let first = self.all.len();
        self.all.extend(digests.into_iter().map(|digest| Record {
            digest,
            ..record.clone()
        }));
        (first..self.all.len()).collect()
    }
}

fn number(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::CacheKey;
    use crate::cache::remote::Coordination;
    use crate::cache::remote::buildkit::{Chains, container};
    use crate::cache::remote::fake::FakeStore;
    use crate::llb::{OutputRef, Vertex, pb};
    use crate::oci::{ImageConfig, Manifest, Platform};
    use crate::session::tree::Tree;

    const TODAY: (Dialect, bool) = (Dialect::Current, true);

    fn vertex(name: &str, op: pb::op::Op, inputs: &[&Vertex]) -> Vertex {
        let inputs = inputs.iter().map(|input| OutputRef {
            vertex: input.digest.clone(),
            index: 0,
        });
        Vertex {
            digest: VertexDigest::of(name.as_bytes()),
            op,
            inputs: inputs.collect(),
            platform: Platform::linux("amd64", ""),
            metadata: crate::llb::Metadata::default(),
        }
    }

    fn source(name: &str) -> Vertex {
        let source = pb::SourceOp {
            identifier: name.to_owned(),
            ..pb::SourceOp::default()
        };
        vertex(name, pb::op::Op::Source(source), &[])
    }

    fn run(command: &str, base: &Vertex) -> Vertex {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec![command.to_owned()],
                ..pb::Meta::default()
            }),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        vertex(command, pb::op::Op::Exec(exec), &[base])
    }

    fn copy(base: &Vertex, folder: &Vertex) -> Vertex {
        let copy = pb::FileActionCopy {
            src: "/file".to_owned(),
            ..pb::FileActionCopy::default()
        };
        let action = pb::FileAction {
            secondary_input: 1,
            action: Some(pb::file_action::Action::Copy(copy)),
            ..pb::FileAction::default()
        };
        let actions = vec![action];
        let op = pb::op::Op::File(pb::FileOp { actions });
        vertex("copy", op, &[base, folder])
    }

    fn layer(name: &str) -> CachedLayer {
        CachedLayer {
            diff_id: DiffId(Digest::of(name.as_bytes())),
            blob: Descriptor::of(crate::oci::media_type::OCI_LAYER, name.as_bytes()),
            created_ns: Some(1_000_000_007),
            foreign: false,
        }
    }

    /// An image, a step on it, a file of the user's on top of that, and one more step.
    fn steps() -> Vec<Vertex> {
        let (image, folder) = (source("docker-image://base"), source("local://context"));
        let first = run("first", &image);
        let copied = copy(&first, &folder);
        let last = run("last", &copied);
        vec![image, folder, first, copied, last]
    }

    /// Makes the keys of a build whose user has a file with this text.
    fn keys(text: &str, chains: Vec<Chains>) -> Keys {
        let store: Arc<dyn crate::cache::remote::RemoteStore> =
            Arc::new(FakeStore::new(Coordination::Listing));
        let steps = steps();
        let caches = chains
            .into_iter()
            .map(|chains| (Arc::clone(&store), chains));
        let keys = Keys::new(&steps, caches.collect());
        let base = layer("base").diff_id;
        keys.note_image(&steps[0], &Digest::of(b"manifest"), &[base]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), text).unwrap();
        let tree = Arc::new(Tree::walk(dir.path(), &[]).unwrap());
        keys.note_contents(&steps[3].digest, 1, (&tree, true))
            .unwrap();
        keys
    }

    fn finished() -> BTreeMap<VertexDigest, Finished> {
        let names = ["base", "first", "copied", "last"];
        let stack = |count: usize| names[..count].iter().map(|name| layer(name)).collect();
        let made = steps().into_iter().skip(2).zip([2, 3, 4]);
        let made = made.map(|(step, count)| {
            let made = Finished {
                outputs: vec![stack(count)],
                created_ns: 5,
            };
            (step.digest, made)
        });
        made.collect()
    }

    /// Lists which steps are found, with their layers.
    fn found(keys: &Keys) -> Vec<(String, usize)> {
        let steps = steps();
        let wanted = steps.iter().enumerate();
        let wanted: Vec<(&VertexDigest, CacheKey)> = wanted
            .map(|(number, step)| (&step.digest, CacheKey([number as u8; 32])))
            .collect();
        let found = keys.find(&wanted).into_iter();
        found
            .map(|(_, record)| (record.name, record.outputs[0].len()))
            .collect()
    }

    fn all() -> Vec<(String, usize)> {
        let name = |name: &str, count| (name.to_owned(), count);
        vec![name("first", 2), name("copy /file ", 3), name("last", 4)]
    }

    #[test]
    fn a_document_alone_says_what_its_layers_are() {
        let written = keys("text", Vec::new()).write(&finished(), TODAY).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&written.alone()).unwrap();
        let blob = layer("base").blob;
        let layers = document["layers"].as_array().unwrap();
        let base = layers.iter().find(|l| l["blob"] == blob.digest.to_string());
        let expected = serde_json::json!({
            "mediaType": blob.media_type,
            "diffID": layer("base").diff_id.to_string(),
            "size": blob.size,
            "createdAt": "1970-01-01T00:00:01.000000007Z",
        });
        assert_eq!(base.unwrap()["annotations"], expected);
        let chains = container::alone(&written.alone()).unwrap();
        assert_eq!(found(&keys("text", vec![chains])), all());
        // Without the notes nothing is known of a layer.
        let chains = container::alone(&written.config).unwrap();
        assert_eq!(found(&keys("text", vec![chains])), []);
    }

    #[test]
    fn what_is_written_is_found_and_nothing_behind_a_change() {
        let written = keys("text", Vec::new()).write(&finished(), TODAY).unwrap();
        assert_eq!(written.layers.len(), 4);
        let read = || written.container.chains(&written.config).unwrap();
        assert_eq!(found(&keys("text", vec![read()])), all());
        assert_eq!(found(&keys("other", vec![read()])), all()[..1]);
        // Without the image's keys nothing is known of what lies on it.
        let unknown = Keys::new(
            &steps(),
            vec![(Arc::new(FakeStore::new(Coordination::Listing)), read())],
        );
        assert_eq!(found(&unknown), []);
        // The same build writes the same bytes.
        let again = keys("text", Vec::new()).write(&finished(), TODAY).unwrap();
        assert_eq!(again.config, written.config);
    }

    /// The same bytes may come from two steps, each at its time.
    #[test]
    fn shared_blobs_keep_the_times_of_their_steps() {
        let mut finished = finished();
        let steps = steps();
        let times = [(2, 11), (3, 22), (4, 33)];
        for (step, created_ns) in times {
            let made = finished.get_mut(&steps[step].digest).unwrap();
            for (place, time) in made.outputs[0].iter_mut().skip(1).zip([11, 22, 33]) {
                *place = CachedLayer {
                    created_ns: Some(time),
                    ..layer("same")
                };
            }
            assert_eq!(made.outputs[0].last().unwrap().created_ns, Some(created_ns));
        }
        let written = keys("text", Vec::new()).write(&finished, TODAY).unwrap();
        assert_eq!(written.layers.len(), 2);
        let chains = written.container.chains(&written.config).unwrap();
        let keys = keys("text", vec![chains]);
        let last = keys.find(&[(&steps[4].digest, CacheKey([0; 32]))]);
        let created = last[0].1.outputs[0].iter().map(|layer| layer.created_ns);
        let expected = [Some(1_000_000_007), Some(11), Some(22), Some(33)];
        assert_eq!(created.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_what_is_given_has_layers() {
        let mut finished = finished();
        finished.remove(&steps()[3].digest);
        let written = keys("text", Vec::new())
            .write(&finished, (Dialect::Current, false))
            .unwrap();
        let chains = written.container.chains(&written.config).unwrap();
        let expected = [all()[0].clone(), all()[2].clone()];
        assert_eq!(found(&keys("text", vec![chains])), expected);
        assert_eq!(
            keys("text", Vec::new()).write(&BTreeMap::new(), TODAY),
            None
        );
    }

    #[test]
    fn an_image_has_its_own_records() {
        let names = ["base", "first", "copied", "last"];
        let layers: Vec<CachedLayer> = names.iter().map(|name| layer(name)).collect();
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let member =
            keys("text", Vec::new()).write_inline(&finished(), (Dialect::Current, &diff_ids));
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = diff_ids.clone();
        config
            .other
            .insert(container::MEMBER.to_owned(), member.unwrap().into());
        let mut manifest: Manifest = serde_json::from_value(serde_json::json!({
            "schemaVersion": 2,
            "config": Descriptor::of(crate::oci::media_type::OCI_CONFIG, b""),
            "layers": [],
        }))
        .unwrap();
        manifest.layers = layers.iter().map(|layer| layer.blob.clone()).collect();
        let chains = container::inline(&manifest, &config).unwrap().unwrap();
        assert_eq!(found(&keys("text", vec![chains])), all());
        // An image that lacks the last layer has the steps before it.
        let less =
            keys("text", Vec::new()).write_inline(&finished(), (Dialect::Current, &diff_ids[..3]));
        assert_ne!(
            less,
            config.other[container::MEMBER].as_str().map(str::to_owned)
        );
        assert_eq!(
            keys("text", Vec::new()).write_inline(&finished(), (Dialect::Current, &[])),
            None
        );
    }

    /// Mixed dialects would be several ways from a source to a result.
    #[test]
    fn a_document_is_in_one_dialect() {
        let with_secret = |command: &str, base: &Vertex| {
            let mut step = run(command, base);
            if let pb::op::Op::Exec(exec) = &mut step.op {
                exec.mounts.push(pb::Mount {
                    input: -1,
                    output: -1,
                    dest: "/run/secrets/s".to_owned(),
                    mount_type: pb::MountType::Secret.into(),
                    ..pb::Mount::default()
                });
            }
            step
        };
        let image = source("docker-image://base");
        let first = with_secret("first", &image);
        let last = with_secret("last", &first);
        let steps = vec![image, first, last];
        let keys = Keys::new(&steps, Vec::new());
        keys.note_image(
            &steps[0],
            &Digest::of(b"manifest"),
            &[layer("base").diff_id],
        );
        let made = |step: &Vertex| {
            let outputs = vec![vec![layer("own")]];
            let made = Finished {
                outputs,
                created_ns: 5,
            };
            (step.digest.clone(), made)
        };
        let finished: BTreeMap<_, _> = steps.iter().skip(1).map(made).collect();
        let document = |dialect| {
            let written = keys.write(&finished, (dialect, true)).unwrap();
            serde_json::from_slice::<Config>(&written.config).unwrap()
        };
        let documents = Dialect::ALL.map(document);
        for document in &documents {
            let records = document.records.iter();
            let mut links: Vec<usize> =
                records.map(|r| r.inputs.iter().flatten().count()).collect();
            links.sort_unstable();
            // Two names of the image, a step on both of them, and one on that step.
            assert_eq!(links, [0, 0, 1, 2]);
        }
        assert_ne!(documents[0], documents[1]);
    }

    #[test]
    fn documents_that_lead_nowhere_are_refused() {
        for (text, layers) in [
            (r#"{"layers":[{"blob":"DIGEST","parent":1}]}"#, "layer"),
            (
                r#"{"records":[{"digest":"x","layers":[{"layer":0}]}]}"#,
                "result",
            ),
            (
                r#"{"records":[{"digest":"x","inputs":[[{"link":-1}]]}]}"#,
                "link",
            ),
        ] {
            let text = text.replace("DIGEST", &Digest::of(b"").to_string());
            let config: Config = serde_json::from_str(&text).unwrap();
            assert!(Chains::new(config, &[]).is_err(), "{layers}");
        }
        // A layer that stands on itself is nothing that can be had.
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"layers":[{{"blob":"{digest}"}}],"records":[{{"digest":"x","layers":[{{"layer":0}}]}}]}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        let mut blob = Descriptor::new("", digest, 0);
        let diff_id = Digest::of(b"x").to_string();
        blob.annotations = [("containerd.io/uncompressed".to_owned(), diff_id)].into();
        assert_eq!(Chains::new(config, &[blob]).unwrap().result(0), None);
    }
}
