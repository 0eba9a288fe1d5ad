//! History of layers that no config tells of: images of definitions that other clients made.
//!
//! BuildKit names such layers after the ops that made them. A definition alone does not say how
//! many layers an image or a change has; where that cannot be told, layers stay without a name.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::attestation::without_credentials;
use crate::exporter::FILLED_IN;
use crate::frontend::Lowered;
use crate::llb::{GitSource, Loaded, OutputRef, Vertex, VertexDigest, pb};
use crate::oci::History;
use crate::snapshot::LayerId;
use crate::worker::keys;

/// What layers of images are called, before the name of the image.
const PULLED: &str = "pulled from";

/// Adds what is missing in the history of each result, on top of what there is.
pub(super) fn complete(lowered: &mut [Lowered], stacks: &[Vec<LayerId>]) {
    for (lowered, layers) in lowered.iter_mut().zip(stacks) {
        let history = &mut lowered.image.history;
        let told = history.iter().filter(|entry| !entry.empty_layer).count();
        if told >= layers.len() {
            continue;
        }
        let Ok(loaded) = lowered.definition.load() else {
            continue;
        };
        let names = names(&loaded, layers.len());
        let missing = names.into_iter().skip(told);
        history.extend(missing.map(|created_by| History {
            created_by,
            comment: FILLED_IN.into(),
            ..History::default()
        }));
    }
}

/// Names the layers of a result, lowest first; none where they cannot be told apart.
fn names(loaded: &Loaded, count: usize) -> Vec<String> {
    let vertices = loaded
        .vertices
        .iter()
        .map(|vertex| (&vertex.digest, vertex));
    let walk = Walk {
        vertices: vertices.collect(),
        left: Cell::new(VISITS_MAX),
    };
    let result = loaded.results.first().and_then(Option::as_ref);
    let chain = result.and_then(|result| walk.chain(result, DEPTH_MAX));
    let unknown = || vec![String::new(); count];
    let Some(chain) = chain else {
        return unknown();
    };
    let made: Option<Vec<Made>> = chain.iter().map(|(output, v)| made(output, v)).collect();
    let made = made.unwrap_or_default();
    let images = made.iter().filter_map(|made| match made {
        Made::Image(name) => Some(name),
        Made::Layer(_) => None,
    });
    let images: Vec<&String> = images.collect();
    let pulled = count.checked_sub(made.len() - images.len());
    // Several images have the same number of layers only if they are one.
    let is_one = images.iter().all(|name| *name == images[0]);
    let each = match (pulled, images.len()) {
        (Some(0), 0) => 0,
        (Some(pulled), number) if is_one && number > 0 && pulled % number == 0 => pulled / number,
        _ => return unknown(),
    };
    let named = made.into_iter().flat_map(|made| match made {
        Made::Layer(name) => vec![name],
        Made::Image(name) => vec![name; each],
    });
    named.collect()
}

/// Most merges and changes that are followed into one another.
const DEPTH_MAX: usize = 16;
/// Most outputs that are looked at, each as often as its layers come again.
const VISITS_MAX: usize = 100_000;

/// Outputs that layers of a result come from, lowest first.
type Chain<'a> = Vec<(&'a OutputRef, &'a Vertex)>;

/// Finds out which ops made the layers of a result.
struct Walk<'a> {
    vertices: BTreeMap<&'a VertexDigest, &'a Vertex>,
    /// Outputs that may still be looked at.
    left: Cell<usize>,
}

impl<'a> Walk<'a> {
    /// Follows an output down to its sources; `None` where that does not tell its layers.
    fn chain(&self, top: &'a OutputRef, depth: usize) -> Option<Chain<'a>> {
        let mut above = Vec::new();
        let mut next = Some(top);
        let mut below = Vec::new();
        while let Some(output) = next.take() {
            self.left.set(self.left.get().checked_sub(1)?);
            let vertex: &'a Vertex = self.vertices.get(&output.vertex)?;
            let deeper = depth.checked_sub(1);
            match &vertex.op {
                pb::op::Op::Merge(_) => {
                    for input in &vertex.inputs {
                        below.extend(self.chain(input, deeper?)?);
                    }
                }
                pb::op::Op::Diff(op) => below = self.change(op, vertex, deeper?)?,
                pb::op::Op::Build(_) => return None,
                pb::op::Op::Passthrough(_) => next = keys::base(output, vertex),
                _ => {
                    above.push((output, vertex));
                    next = keys::base(output, vertex);
                }
            }
        }
        below.extend(above.into_iter().rev());
        Some(below)
    }

    /// Returns what stands on the lower side of a difference in its upper one.
    fn change(&self, op: &pb::DiffOp, vertex: &'a Vertex, depth: usize) -> Option<Chain<'a>> {
        let side = |input: Option<i64>| match usize::try_from(input.unwrap_or(-1)) {
            Ok(input) => self.chain(vertex.inputs.get(input)?, depth),
            Err(_) => Some(Vec::new()),
        };
        let lower = side(op.lower.as_ref().map(|lower| lower.input))?;
        let mut upper = side(op.upper.as_ref().map(|upper| upper.input))?;
        let outputs =
            |chain: &Chain<'a>| chain.iter().map(|(output, _)| *output).collect::<Vec<_>>();
        if !outputs(&upper).starts_with(&outputs(&lower)) {
            return None;
        }
        Some(upper.split_off(lower.len()))
    }
}

/// What a vertex adds to the layers below it.
enum Made {
    /// Those of an image.
    Image(String),
    /// One layer.
    Layer(String),
}

/// Says what a vertex makes; `None` where that cannot be told.
fn made(output: &OutputRef, vertex: &Vertex) -> Option<Made> {
    match &vertex.op {
        pb::op::Op::Source(source) => Some(of_source(source)),
        pb::op::Op::Exec(exec) => {
            let mut mounts = exec.mounts.iter();
            let mount = mounts.find(|mount| mount.output == i64::from(output.index))?;
            let args = exec.meta.as_ref().map(|meta| meta.args.join(" "));
            let (dest, args) = (&mount.dest, args.unwrap_or_default());
            Some(Made::Layer(format!("mount {dest} from exec {args}")))
        }
        pb::op::Op::File(_) => Some(Made::Layer(vertex.name())),
        _ => None,
    }
}

fn of_source(source: &pb::SourceOp) -> Made {
    let (scheme, name) = source.identifier.split_once("://").unwrap_or_default();
    Made::Layer(match scheme {
        "docker-image" | "oci-layout" => return Made::Image(format!("{PULLED} {name}")),
        "git" => {
            let git = GitSource::read(source);
            let remote = without_credentials(&git.remote);
            let reference = git.reference.unwrap_or_default();
            format!("git snapshot for {remote}#{reference}")
        }
        "http" | "https" => {
            format!("http url {}", without_credentials(&source.identifier))
        }
        "local" => format!("local source for {name}"),
        _ => format!("blob {name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::state::{About, Builder, Source};
    use crate::oci::Platform;

    fn named(count: usize, sources: &[&str]) -> Vec<String> {
        let mut builder = Builder::new(Platform::host(), Vec::new());
        let sources: Vec<_> = sources
            .iter()
            .map(|source| builder.source(Source::new((*source).to_owned(), ""), About::default()))
            .collect();
        let result = match &sources[..] {
            [one] => Some(*one),
            several => {
                let several: Vec<_> = several.iter().copied().map(Some).collect();
                builder.merge(&several, About::default())
            }
        };
        names(&builder.finish(result).load().unwrap(), count)
    }

    #[test]
    fn a_change_has_the_layers_above_its_lower_side() {
        let mut builder = Builder::new(Platform::host(), Vec::new());
        let mut source =
            |name: &str| builder.source(Source::new(name.to_owned(), ""), About::default());
        let (below, above) = (source("local://a"), source("local://b"));
        let upper = builder.merge(&[Some(below), Some(above)], About::default());
        let change = builder.diff(Some(below), upper, About::default());
        let loaded = builder.finish(change).load().unwrap();
        assert_eq!(names(&loaded, 1), ["local source for b"]);
        assert_eq!(names(&loaded, 2), ["", ""]);
    }

    #[test]
    fn layers_are_called_by_what_made_them() {
        let image = "docker-image://docker.io/library/a:1";
        let pulled = "pulled from docker.io/library/a:1";
        assert_eq!(named(2, &[image]), [pulled, pulled]);
        let git = "git://host/r#main";
        let of_git = "git snapshot for https://host/r#main";
        assert_eq!(named(2, &[image, git]), [pulled, of_git]);
        assert_eq!(
            named(1, &["https://u:p@host/f"]),
            ["http url https://xxxxx:xxxxx@host/f"]
        );
        assert_eq!(named(1, &["local://x"]), ["local source for x"]);
        assert_eq!(named(4, &[image, image]), [pulled; 4]);
        // Which layer is whose is not known.
        assert_eq!(named(3, &[image, "docker-image://b"]), ["", "", ""]);
        assert_eq!(named(2, &[git]), ["", ""]);
    }
}
