//! The calls of a frontend, one method for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::types::WorkerRecord;
use futures::stream::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::bridge::{
    Answer, Answered, Attested, Bridge, BridgeError, ContainerRequest, Forward, Handle, ImageQuery,
    Outcome,
};
use super::environment::WORKER_ID;
use super::files::{Files, Piece};
use super::table::Table;
use super::wire::{self, result::Result as WireResult};
use super::{caps, exec, status};
use crate::llb::{Definition, pb, platform};

/// Look-ups in OCI layouts (`ResolveImageConfigRequest.ResolverType`).
const LAYOUT_RESOLVER: i32 = 1;

/// What comes of a call on the wire.
type Reply<T> = Result<Response<T>, Status>;

/// Serves the calls of one frontend.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) bridge: Arc<dyn Bridge>,
    pub(super) table: Arc<Table>,
}

impl Service {
    /// Serves with a bridge, and keeps the frontend's names in a table.
    pub(super) fn new(bridge: Arc<dyn Bridge>, table: Arc<Table>) -> Self {
        Self { bridge, table }
    }

    /// Lets the frontend look into one of its results.
    async fn files(&self, name: &str) -> Outcome<Arc<Files>> {
        let handle = self.table.existing(name)?;
        self.look(&handle).await
    }

    async fn look(&self, handle: &Handle) -> Outcome<Arc<Files>> {
        let files = self.bridge.files(handle).await;
        files.map_err(|error| self.with_names(error))
    }

    /// Solves nothing yet: gives what is to be solved a name.
    async fn define(&self, definition: pb::Definition, evaluate: bool) -> Outcome<Answer> {
        if definition.def.is_empty() {
            return Ok(Answer::default());
        }
        let definition = self.table.limits.restored(Definition::from_pb(definition));
        self.bridge.check(&definition)?;
        let handle = Some(Arc::new(definition));
        if evaluate {
            self.look(&handle).await?;
        }
        Ok(Answer {
            results: Answered::One(handle),
            ..Answer::default()
        })
    }

    async fn solved(&self, request: wire::SolveRequest) -> Outcome<Answer> {
        let is_defined = request.definition.as_ref().map(|d| !d.def.is_empty());
        match (is_defined, request.frontend.as_str()) {
            (Some(true), "") => {
                let definition = request.definition.unwrap_or_default();
                self.define(definition.into(), request.evaluate).await
            }
            (_, "") => Ok(Answer::default()),
            (Some(true), _) => Err(BridgeError::invalid(
                "cannot solve with both a definition and a frontend",
            )),
            _ => {
                let evaluate = request.evaluate;
                let answer = self.bridge.forward(self.forward_of(request)).await?;
                if evaluate {
                    for handle in handles(&answer.results).filter(|handle| handle.is_some()) {
                        self.look(handle).await?;
                    }
                }
                Ok(answer)
            }
        }
    }

    fn forward_of(&self, request: wire::SolveRequest) -> Forward {
        let inputs = request.frontend_inputs.into_iter();
        let inputs = inputs.map(|(name, definition)| {
            let definition = Definition::from_pb(definition.into());
            (name, Arc::new(self.table.limits.restored(definition)))
        });
        Forward {
            frontend: request.frontend,
            options: request.frontend_opt.into_iter().collect(),
            inputs: inputs.collect(),
        }
    }

    /// Writes a definition that may come back.
    fn definition(&self, definition: &Definition) -> bollard_buildkit_proto::pb::Definition {
        self.table.limits.note(definition);
        definition.to_pb().into()
    }

    fn reference(&self, handle: &Handle) -> Outcome<wire::Ref> {
        Ok(wire::Ref {
            id: self.table.name(handle)?,
            def: handle
                .as_ref()
                .map(|definition| self.definition(definition)),
        })
    }

    /// Writes an answer for a frontend that knows references, or for an older one.
    fn written(&self, answer: Answer, with_definitions: bool) -> Outcome<wire::Result> {
        let result = match (&answer.results, with_definitions) {
            (Answered::One(handle), true) => WireResult::Ref(self.reference(handle)?),
            (Answered::One(handle), false) => WireResult::RefDeprecated(self.table.name(handle)?),
            (Answered::ByName(handles), true) => {
                let refs = handles.iter();
                let refs = refs.map(|(key, handle)| Ok((key.clone(), self.reference(handle)?)));
                WireResult::Refs(wire::RefMap {
                    refs: refs.collect::<Outcome<_>>()?,
                })
            }
            (Answered::ByName(handles), false) => {
                let refs = handles.iter();
                let refs = refs.map(|(key, handle)| Ok((key.clone(), self.table.name(handle)?)));
                WireResult::RefsDeprecated(wire::RefMapDeprecated {
                    refs: refs.collect::<Outcome<_>>()?,
                })
            }
        };
        let mut attestations = HashMap::new();
        for (platform, attested) in answer.attestations {
            let mut attestation = Vec::new();
            for Attested { statement, files } in attested {
                attestation.push(wire::Attestation {
                    r#ref: files
                        .is_some()
                        .then(|| self.reference(&files))
                        .transpose()?,
                    ..statement
                });
            }
            attestations.insert(platform, wire::Attestations { attestation });
        }
        Ok(wire::Result {
            metadata: answer.metadata.into_iter().collect(),
            attestations,
            result: Some(result),
        })
    }

    /// Reads what a frontend returns.
    fn read(&self, result: wire::Result) -> Outcome<Answer> {
        let find = |id: &str| self.table.result(id);
        let results = match result.result {
            None => Answered::One(None),
            Some(WireResult::RefDeprecated(id)) => Answered::One(find(&id)?),
            Some(WireResult::Ref(reference)) => Answered::One(find(&reference.id)?),
            Some(WireResult::RefsDeprecated(map)) => {
                let refs = map.refs.into_iter();
                let refs = refs.map(|(key, id)| Ok((key, find(&id)?)));
                Answered::ByName(refs.collect::<Outcome<_>>()?)
            }
            Some(WireResult::Refs(map)) => {
                let refs = map.refs.into_iter();
                let refs = refs.map(|(key, reference)| Ok((key, find(&reference.id)?)));
                Answered::ByName(refs.collect::<Outcome<_>>()?)
            }
        };
        let mut attestations: BTreeMap<String, Vec<Attested>> = BTreeMap::new();
        for (platform, all) in result.attestations {
            for mut statement in all.attestation {
                let files = match statement.r#ref.take() {
                    Some(reference) => find(&reference.id)?,
                    None => None,
                };
                let attested = Attested { statement, files };
                attestations
                    .entry(platform.clone())
                    .or_default()
                    .push(attested);
            }
        }
        Ok(Answer {
            results,
            metadata: result.metadata.into_iter().collect(),
            attestations,
        })
    }

    /// Keeps what a frontend returns without `Return`, as the oldest ones do.
    fn keep_final(&self, answer: &Answer, extra: &[u8]) -> Outcome<()> {
        let told: BTreeMap<String, Option<String>> = match extra {
            [] => BTreeMap::new(),
            json => serde_json::from_slice(json)
                .map_err(|error| BridgeError::invalid(format!("exporter attributes: {error}")))?,
        };
        let mut answer = answer.clone();
        for (key, value) in told {
            use base64::Engine as _;
            let value = base64::engine::general_purpose::STANDARD.decode(value.unwrap_or_default());
            let value = value.map_err(|error| BridgeError::invalid(format!("{key}: {error}")))?;
            answer.metadata.entry(key).or_insert(value);
        }
        self.table.answer(Ok(answer))
    }

    async fn make_container(&self, request: wire::NewContainerRequest) -> Outcome<()> {
        let name = request.container_id;
        self.table.promise_container(&name)?;
        let mounts = request.mounts.into_iter();
        let mounts: Outcome<Vec<(pb::Mount, Handle)>> = mounts
            .map(|mount| {
                let handle = self.table.result(&mount.result_id)?;
                Ok((mount, handle))
            })
            .collect();
        let made = match mounts {
            Ok(mounts) => {
                let request = ContainerRequest {
                    mounts,
                    network: request.network,
                    hostname: request.hostname,
                    extra_hosts: request.extra_hosts,
                };
                self.bridge.container(request).await
            }
            Err(error) => Err(error),
        };
        let (made, done) = match made {
            Ok(made) => (Some(made), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.table.keep_container(&name, made);
        done
    }

    fn container_files(&self, name: &str, mount: i32) -> Outcome<Arc<Files>> {
        let container = self.table.container(name)?;
        let mount = usize::try_from(mount);
        let mount = mount.map_err(|_| BridgeError::invalid("mounts are counted from 0"))?;
        container.files(mount)
    }
}

/// Reads files on a thread that may wait for a disk.
async fn look<T: Send + 'static>(
    files: Arc<Files>,
    look: impl FnOnce(&Files) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let looking = tokio::task::spawn_blocking(move || look(&files));
    let looked = looking.await;
    looked.map_err(|error| BridgeError::new(Code::Internal, error.to_string()))?
}

fn piece(range: Option<wire::FileRange>) -> Outcome<Option<Piece>> {
    let Some(range) = range else {
        return Ok(None);
    };
    let (offset, length) = (u64::try_from(range.offset), u64::try_from(range.length));
    match (offset, length) {
        (Ok(offset), Ok(length)) => Ok(Some(Piece { offset, length })),
        _ => Err(BridgeError::invalid(
            "a range begins and ends inside the file",
        )),
    }
}

/// Refuses rules about sources, which would have to be followed.
pub(super) fn no_policies<T>(policies: &[T]) -> Outcome<()> {
    match policies {
        [] => Ok(()),
        _ => Err(BridgeError::new(
            Code::Unimplemented,
            "source policies of a frontend are not supported",
        )),
    }
}

/// Lists the results of an answer.
fn handles(results: &Answered) -> Box<dyn Iterator<Item = &Handle> + Send + '_> {
    match results {
        Answered::One(handle) => Box::new(std::iter::once(handle)),
        Answered::ByName(handles) => Box::new(handles.values()),
    }
}

#[tonic::async_trait]
impl LlbBridge for Service {
    async fn resolve_image_config(
        &self,
        request: Request<wire::ResolveImageConfigRequest>,
    ) -> Reply<wire::ResolveImageConfigResponse> {
        let request = request.into_inner();
        no_policies(&request.source_policies)?;
        let is_layout = request.resolver_type == LAYOUT_RESOLVER;
        let found = self.bridge.resolve_image(ImageQuery {
            name: request.r#ref,
            platform: request.platform.as_ref().map(platform::from_pb),
            mode: request.resolve_mode,
            log_name: request.log_name,
            oci_layout: is_layout.then_some(request.store_id),
            config: true,
            attestations: None,
        });
        let found = found.await?;
        Ok(Response::new(wire::ResolveImageConfigResponse {
            digest: found.digest,
            config: found.config,
            r#ref: found.name,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<wire::ResolveSourceMetaRequest>,
    ) -> Reply<wire::ResolveSourceMetaResponse> {
        Ok(Response::new(self.source(request.into_inner()).await?))
    }

    async fn solve(&self, request: Request<wire::SolveRequest>) -> Reply<wire::SolveResponse> {
        let mut request = request.into_inner();
        no_policies(&request.source_policies)?;
        let (is_final, extra) = (request.r#final, std::mem::take(&mut request.exporter_attr));
        let (map, array) = (request.allow_result_return, request.allow_result_array_ref);
        let answer = self.solved(request).await?;
        if !map && matches!(answer.results, Answered::ByName(_)) {
            return Err(Status::unknown("solve did not return default result"));
        }
        if is_final {
            self.keep_final(&answer, &extra)?;
        }
        let result = self.written(answer, array)?;
        let name = match &result.result {
            Some(WireResult::RefDeprecated(id)) if !map => id.clone(),
            Some(WireResult::Ref(reference)) if !map => reference.id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(wire::SolveResponse {
            r#ref: name,
            result: Some(result),
        }))
    }

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Reply<wire::ReadFileResponse> {
        let request = request.into_inner();
        let files = self.files(&request.r#ref).await?;
        read_file(files, request).await
    }

    async fn read_dir(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Reply<wire::ReadDirResponse> {
        let request = request.into_inner();
        let files = self.files(&request.r#ref).await?;
        read_dir(files, request).await
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Reply<wire::StatFileResponse> {
        let request = request.into_inner();
        let files = self.files(&request.r#ref).await?;
        stat_file(files, request).await
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Reply<wire::EvaluateResponse> {
        self.files(&request.into_inner().r#ref).await?;
        Ok(Response::new(wire::EvaluateResponse {}))
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Reply<wire::PongResponse> {
        let platforms = self.bridge.platforms();
        Ok(Response::new(wire::PongResponse {
            frontend_api_caps: caps::gateway(),
            llb_caps: caps::definitions(),
            workers: vec![WorkerRecord {
                id: WORKER_ID.to_owned(),
                platforms: platforms.iter().map(platform::to_pb).collect(),
                ..WorkerRecord::default()
            }],
        }))
    }

    async fn r#return(&self, request: Request<wire::ReturnRequest>) -> Reply<wire::ReturnResponse> {
        let request = request.into_inner();
        let answer = match (request.result, request.error) {
            (_, Some(error)) => Err(status::from_wire(error)),
            (Some(result), None) => Ok(self.read(result)?),
            (None, None) => {
                let text = "gateway return must be either result or err";
                return Err(Status::invalid_argument(text));
            }
        };
        self.table.answer(answer)?;
        Ok(Response::new(wire::ReturnResponse {}))
    }

    async fn inputs(&self, _: Request<wire::InputsRequest>) -> Reply<wire::InputsResponse> {
        let inputs = self.bridge.inputs().into_iter();
        Ok(Response::new(wire::InputsResponse {
            definitions: inputs
                .map(|(name, definition)| (name, self.definition(&definition)))
                .collect(),
        }))
    }

    async fn new_container(
        &self,
        request: Request<wire::NewContainerRequest>,
    ) -> Reply<wire::NewContainerResponse> {
        self.make_container(request.into_inner()).await?;
        Ok(Response::new(wire::NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<wire::ReleaseContainerRequest>,
    ) -> Reply<wire::ReleaseContainerResponse> {
        let name = request.into_inner().container_id;
        self.table.take_container(&name)?.release().await;
        Ok(Response::new(wire::ReleaseContainerResponse {}))
    }

    type ExecProcessStream = BoxStream<'static, Result<wire::ExecMessage, Status>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<wire::ExecMessage>>,
    ) -> Reply<Self::ExecProcessStream> {
        let answers = exec::serve(Arc::clone(&self.table), request.into_inner());
        Ok(Response::new(answers))
    }

    async fn read_file_container(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Reply<wire::ReadFileResponse> {
        let request = request.into_inner();
        let files = self.container_files(&request.r#ref, request.mount_index)?;
        read_file(files, request).await
    }

    async fn read_dir_container(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Reply<wire::ReadDirResponse> {
        let request = request.into_inner();
        let files = self.container_files(&request.r#ref, request.mount_index)?;
        read_dir(files, request).await
    }

    async fn stat_file_container(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Reply<wire::StatFileResponse> {
        let request = request.into_inner();
        let files = self.container_files(&request.r#ref, request.mount_index)?;
        stat_file(files, request).await
    }

    async fn warn(&self, request: Request<wire::WarnRequest>) -> Reply<wire::WarnResponse> {
        self.bridge.warn(request.into_inner());
        Ok(Response::new(wire::WarnResponse {}))
    }
}

async fn read_file(
    files: Arc<Files>,
    request: wire::ReadFileRequest,
) -> Reply<wire::ReadFileResponse> {
    let piece = piece(request.range)?;
    let data = look(files, move |files| files.read(&request.file_path, piece)).await?;
    Ok(Response::new(wire::ReadFileResponse { data }))
}

async fn read_dir(
    files: Arc<Files>,
    request: wire::ReadDirRequest,
) -> Reply<wire::ReadDirResponse> {
    let listing = look(files, move |files| {
        files.list(&request.dir_path, &request.include_pattern)
    });
    let entries = listing.await?;
    Ok(Response::new(wire::ReadDirResponse { entries }))
}

async fn stat_file(
    files: Arc<Files>,
    request: wire::StatFileRequest,
) -> Reply<wire::StatFileResponse> {
    let stat = look(files, move |files| files.stat(&request.path)).await?;
    Ok(Response::new(wire::StatFileResponse { stat: Some(stat) }))
}
