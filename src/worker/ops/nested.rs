//! The build op: a definition that lies in an input is solved, and its result is the op's.

use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use super::{blocking, failed, invalid, io_failed, layering};
use crate::llb::{Definition, pb};
use crate::solver::{OpContext, OpError};
use crate::sys::root::Root;
use crate::worker::{LocalWorker, OpOutput};

/// Stands for what builds LLB, the only builder there is.
const LLB_BUILDER: i64 = -1;
/// Name of the input with the definition.
const DEFINITION_INPUT: &str = "buildkit.llb.definition";
/// Attribute with the path of the definition in that input.
const FILENAME: &str = "llbbuild.filename";
/// That path where nothing else is said.
const DEFAULT_FILENAME: &str = "buildkit.llb.definition";
/// Largest definition that is read.
const DEFINITION_BYTES_MAX: u64 = 64 << 20;

/// What comes of a nested build; `None` for the empty file system.
pub type NestedResult<'a> =
    Pin<Box<dyn Future<Output = Result<Option<OpOutput>, OpError>> + Send + 'a>>;

/// Solves definitions that steps come across.
pub trait NestedBuilds: std::fmt::Debug + Send + Sync {
    /// Checks that a definition may do what it wants, and solves it with a worker.
    fn solve<'a>(
        &'a self,
        definition: Definition,
        worker: LocalWorker,
        context: &'a OpContext,
    ) -> NestedResult<'a>;
}

/// Performs a build op.
pub(super) async fn build(
    worker: &LocalWorker,
    op: &pb::BuildOp,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    if op.builder != LLB_BUILDER {
        return Err(invalid(
            "only definitions in LLB can be built within a build",
        ));
    }
    let index = op.inputs.get(DEFINITION_INPUT).map(|input| input.input);
    let index = index.and_then(|index| usize::try_from(index).ok());
    let input = index
        .and_then(|index| inputs.get(index))
        .ok_or_else(|| invalid(format!("a build op has no input {DEFINITION_INPUT:?}")))?;
    let filename = op
        .attrs
        .get(FILENAME)
        .map_or(DEFAULT_FILENAME, String::as_str);
    let definition = read(worker, input, filename, context).await?;
    let builds = worker.options.nested.clone();
    let builds = builds.ok_or_else(|| invalid("nothing can be built within this build"))?;
    let output = builds.solve(definition, worker.clone(), context).await?;
    match output {
        Some(output) => layering::as_file_system(worker, &output, context).await,
        None => Ok(OpOutput::Stack(Vec::new())),
    }
}

/// Reads the definition at `filename` in a file system or folder.
async fn read(
    worker: &LocalWorker,
    input: &OpOutput,
    filename: &str,
    context: &OpContext,
) -> Result<Definition, OpError> {
    let options = Arc::clone(&worker.options);
    options.layers.unpack(input.layers(), context).await?;
    let (input, filename) = (input.clone(), filename.to_owned());
    blocking(move || {
        let view = match &input {
            OpOutput::Stack(layers) | OpOutput::Change(layers) => {
                Some(options.snapshots.view(layers).map_err(failed)?)
            }
            OpOutput::Tree(_) => None,
        };
        let folder = match (&input, &view) {
            (OpOutput::Tree(tree), _) => tree.dir(),
            (_, Some(view)) => view.path(),
            _ => return Err(OpError::internal("there is no view")),
        };
        let cannot = format!("cannot read the definition {filename:?}");
        let open = || {
            let file = Root::open(folder)?.open_read(Path::new(&filename))?;
            let metadata = file.metadata()?;
            Ok::<_, std::io::Error>((file, metadata))
        };
        let (file, metadata) =
            open().map_err(|error| invalid(format!("{cannot}: {error}")).caused_by(error))?;
        if !metadata.is_file() {
            return Err(invalid(format!("{cannot}: it is not a regular file")));
        }
        if metadata.len() > DEFINITION_BYTES_MAX {
            let limit = format!("it has more than {DEFINITION_BYTES_MAX} bytes");
            return Err(invalid(format!("{cannot}: {limit}")));
        }
        let mut bytes = Vec::new();
        let read = file.take(DEFINITION_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| io_failed(&cannot, error))?;
        Definition::from_bytes(&bytes)
            .map_err(|error| invalid(format!("{cannot}: {error}")).caused_by(error))
    })
    .await
}
