//! History of layers that no config tells of: images of definitions that other clients made.
//!
//! BuildKit names such layers after the ops that made them. A definition alone does not say how
//! many layers an image or a change has; where that cannot be told, layers stay without a name.

use crate::attestation::without_credentials;
use crate::exporter::FILLED_IN;
use crate::frontend::Lowered;
use crate::llb::{GitSource, Loaded, OutputRef, Vertex, pb};
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
    let result = loaded.results.first().and_then(Option::as_ref);
    let chain = result.map(|result| keys::base_outputs(&loaded.vertices, result));
    let mut chain = chain.unwrap_or_default();
    chain.reverse();
    let made: Option<Vec<Made>> = chain.iter().map(|(output, v)| made(output, v)).collect();
    let made = made.unwrap_or_default();
    let own = made.iter().filter(|made| matches!(made, Made::Layer(_)));
    let pulled = count.checked_sub(own.count());
    let images = made.iter().filter(|made| matches!(made, Made::Image(_)));
    let fits = match images.count() {
        0 => pulled == Some(0),
        1 => pulled.is_some(),
        _ => false,
    };
    if !fits {
        return vec![String::new(); count];
    }
    let mut names = Vec::new();
    for made in made {
        match made {
            Made::Layer(name) => names.push(name),
            Made::Image(name) => names.extend(vec![name; pulled.unwrap_or_default()]),
            Made::Nothing => {}
        }
    }
    names
}

/// What a vertex adds to the layers below it.
enum Made {
    /// Those of an image.
    Image(String),
    /// One layer.
    Layer(String),
    /// None: it only puts layers together.
    Nothing,
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
        pb::op::Op::Merge(_) | pb::op::Op::Passthrough(_) => Some(Made::Nothing),
        pb::op::Op::Diff(_) | pb::op::Op::Build(_) => None,
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
        // Which layer is whose is not known.
        assert_eq!(named(3, &[image, "docker-image://b"]), ["", "", ""]);
        assert_eq!(named(2, &[git]), ["", ""]);
    }
}
