//! A frontend for tests: a program that asks the gateway for one thing after another, and fails
//! when an answer is not what it should be.
//!
//! It is put into an image and named with `# syntax=…`. The build argument `DO` says what it does;
//! what it learns stands in the file `/told` of the result.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a frontend that cannot go on panics; what it is told stands in its environment"
)]

mod attested;
mod containers;
mod failed;
mod files;
mod graph;
mod sources;

use std::collections::{BTreeMap, HashMap};
use std::task::{Context, Poll};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use bollard_buildkit_proto::pb;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::Code;
use wire::llb_bridge_client::LlbBridgeClient;
use wire::result::Result as Returned;

use graph::{Graph, digest, meta};

type Gateway = LlbBridgeClient<Connection>;

/// The connection on the standard streams.
#[derive(Clone)]
struct Connection(SendRequest<tonic::body::Body>);

impl tonic::codegen::Service<hyper::Request<tonic::body::Body>> for Connection {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What comes of the work: a result, or why there is none.
type Outcome = Result<wire::Result, tonic::Status>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let task = options.get("build-arg:DO").cloned().unwrap_or_default();
    if task == "silence" {
        return;
    }
    if task == "nonsense" {
        use std::io::Write;
        std::io::stdout().write_all(&[b'x'; 4096]).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(600));
    }
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let executor = TokioExecutor::new();
    let made = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    let origin = hyper::Uri::from_static("http://localhost");
    let mut gateway = LlbBridgeClient::with_origin(Connection(sender), origin)
        .max_decoding_message_size(16 << 20);
    let caps = gateway
        .ping(wire::PingRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(
        caps.frontend_api_caps
            .iter()
            .any(|cap| cap.id == "gateway.exec")
    );
    assert!(caps.llb_caps.iter().any(|cap| cap.id == "file.base"));
    assert_eq!(caps.workers.len(), 1);
    match task.as_str() {
        "crash" => std::process::exit(3),
        "hang" => std::future::pending().await,
        _ => {}
    }
    let outcome = work(&mut gateway, &task, &options).await;
    let (result, error) = match outcome {
        Ok(result) => (Some(result), None),
        Err(status) => {
            let details = rpc::Status::decode(status.details())
                .unwrap_or_default()
                .details;
            let error = rpc::Status {
                code: status.code() as i32,
                message: format!("the test frontend: {}", status.message()),
                details,
            };
            (None, Some(error))
        }
    };
    gateway
        .r#return(wire::ReturnRequest { result, error })
        .await
        .unwrap();
    // A thread that waits for input would hold the end up.
    std::process::exit(0);
}

/// Reads what the frontend was told.
fn options() -> BTreeMap<String, String> {
    let told = std::env::vars().filter(|(name, _)| name.starts_with("BUILDKIT_FRONTEND_OPT_"));
    told.filter_map(|(_, pair)| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    })
    .collect()
}

async fn work(gateway: &mut Gateway, task: &str, options: &BTreeMap<String, String>) -> Outcome {
    match task {
        "files" => files::files(gateway, options).await,
        "context" => files::context(gateway).await,
        "stages" => files::stages(gateway, options).await,
        "sources" => sources::sources(gateway, options).await,
        "attested" => attested::attested(gateway).await,
        "failed" => failed::failed(gateway, options).await,
        "dockerfile" => dockerfile(gateway, options).await,
        "containers" => containers::containers(gateway, options).await,
        "platforms" => platforms(gateway).await,
        "lazy" => lazy(gateway, options).await,
        "fail" => fail(gateway, options).await,
        "refuse" => refuse(gateway, options).await,
        "rights" => rights(gateway, options).await,
        "confined" => told(gateway, &confined()).await,
        "question" => Ok(answer(options)),
        other => Err(tonic::Status::invalid_argument(format!(
            "cannot do {other:?}"
        ))),
    }
}

/// Solves a definition and returns its reference.
async fn solve(
    gateway: &mut Gateway,
    definition: pb::Definition,
) -> Result<wire::Ref, tonic::Status> {
    let request = wire::SolveRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..wire::SolveRequest::default()
    };
    let solved = gateway.solve(request).await?.into_inner();
    match solved.result.and_then(|result| result.result) {
        Some(Returned::Ref(reference)) => Ok(reference),
        other => panic!("no reference: {other:?}"),
    }
}

/// Returns an image with what was learnt.
async fn told(gateway: &mut Gateway, text: &str) -> Outcome {
    let reference = solve(gateway, Graph::file("/told", text)).await?;
    Ok(image(reference))
}

fn image(reference: wire::Ref) -> wire::Result {
    let config = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/told"],"Labels":{"by":"frontend"}}}"#;
    wire::Result {
        result: Some(Returned::Ref(reference)),
        metadata: HashMap::from([("containerimage.config".to_owned(), config.to_vec())]),
        ..wire::Result::default()
    }
}

async fn read(gateway: &mut Gateway, reference: &str, path: &str) -> Result<String, tonic::Status> {
    let request = wire::ReadFileRequest {
        r#ref: reference.to_owned(),
        file_path: path.to_owned(),
        ..wire::ReadFileRequest::default()
    };
    let data = gateway.read_file(request).await?.into_inner().data;
    Ok(String::from_utf8(data).unwrap())
}

/// Writes a Dockerfile and hands it on.
async fn dockerfile(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let text = "FROM busybox\nARG SAID\nCOPY given /given\nRUN echo $SAID > /told\nCMD [\"x\"]\n";
    let inputs = [
        ("dockerfile".to_owned(), Graph::file("/Dockerfile", text)),
        (
            "context".to_owned(),
            Graph::file("/given", "by the frontend"),
        ),
    ];
    let said = options.get("build-arg:SAID").cloned().unwrap_or_default();
    let request = wire::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: HashMap::from([
            ("build-arg:SAID".to_owned(), said),
            ("filename".to_owned(), "Dockerfile".to_owned()),
        ]),
        frontend_inputs: HashMap::from(inputs),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..wire::SolveRequest::default()
    };
    let solved = gateway.solve(request).await?.into_inner();
    Ok(solved.result.unwrap())
}

/// Returns results for two platforms.
async fn platforms(gateway: &mut Gateway) -> Outcome {
    let mut refs = HashMap::new();
    let mut metadata = HashMap::new();
    let mut named = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let id = format!("linux/{architecture}");
        let definition = Graph::file("/told", architecture);
        refs.insert(id.clone(), solve(gateway, definition).await?);
        let platform = format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#);
        named.push(format!(r#"{{"ID":"{id}","Platform":{platform}}}"#));
        metadata.insert(format!("containerimage.config/{id}"), platform.into_bytes());
    }
    let platforms = format!(r#"{{"Platforms":[{}]}}"#, named.join(","));
    metadata.insert("refs.platforms".to_owned(), platforms.into_bytes());
    Ok(wire::Result {
        result: Some(Returned::Refs(wire::RefMap { refs })),
        metadata,
        ..wire::Result::default()
    })
}

/// Asks for something that fails, and does not need it.
async fn lazy(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let unused = solve(
        gateway,
        Graph::step(&options["build-arg:IMAGE"], &["/bin/false"]),
    )
    .await?;
    let warning = wire::WarnRequest {
        digest: digest(b"nothing"),
        short: b"mind the gap".to_vec(),
        detail: vec![b"between train and platform".to_vec()],
        ..wire::WarnRequest::default()
    };
    gateway.warn(warning).await?;
    told(gateway, &format!("unused: {}", !unused.id.is_empty())).await
}

/// Asks for something that fails, and tells the user.
async fn fail(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let args = ["/bin/sh", "-c", "echo these are its last words; exit 7"];
    let step = solve(gateway, Graph::step(&options["build-arg:IMAGE"], &args)).await?;
    gateway
        .evaluate(wire::EvaluateRequest { r#ref: step.id })
        .await?;
    told(gateway, "it did not fail").await
}

/// Finds a mistake in the file.
async fn refuse(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let (graph, name) = Graph::source("local://dockerfile", &[]);
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let text = read(gateway, &folder, &options["filename"]).await?;
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(text);
    let json = format!(
        r#"{{"info":{{"filename":"{}","data":"{data}"}},"ranges":[{{"start":{{"line":2}},"end":{{"line":2}}}}]}}"#,
        options["filename"]
    );
    let status = rpc::Status {
        code: Code::InvalidArgument as i32,
        message: "the second line is wrong".to_owned(),
        details: vec![bollard_buildkit_proto::google::protobuf::Any {
            type_url: "github.com/moby/buildkit/errdefs.Source+json".to_owned(),
            value: json.into_bytes(),
        }],
    };
    let details = status.encode_to_vec().into();
    Err(tonic::Status::with_details(
        Code::InvalidArgument,
        status.message,
        details,
    ))
}

/// Asks for what was not granted.
async fn rights(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let mut lines = Vec::new();
    let (mut graph, root) = Graph::source(
        &format!("docker-image://{}", options["build-arg:IMAGE"]),
        &[],
    );
    let exec = pb::ExecOp {
        meta: Some(meta(&["/bin/true"])),
        network: pb::NetMode::Host as i32,
        mounts: vec![pb::Mount {
            dest: "/".to_owned(),
            ..pb::Mount::default()
        }],
        ..pb::ExecOp::default()
    };
    let name = graph.push(pb::op::Op::Exec(exec), &[root]);
    let refused = solve(gateway, graph.of(&name)).await.unwrap_err();
    lines.push(refused.message().to_owned());
    let request = wire::NewContainerRequest {
        container_id: "c".to_owned(),
        network: pb::NetMode::Host as i32,
        ..wire::NewContainerRequest::default()
    };
    let refused = gateway.new_container(request).await.unwrap_err();
    lines.push(refused.message().to_owned());
    let (graph, name) = Graph::source("local://nobody-gave-this", &[]);
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let refused = read(gateway, &folder, "x").await.unwrap_err();
    lines.push(refused.message().to_owned());
    told(gateway, &lines.join("\n")).await
}

/// Looks around where it runs.
fn confined() -> String {
    let mut names: Vec<String> = std::fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let definition = std::fs::read("/run/config/buildkit/metadata/frontend.bin").unwrap();
    let definition = pb::Definition::decode(&definition[..]).unwrap();
    let mut interfaces: Vec<String> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    interfaces.sort();
    format!("{names:?}\n{interfaces:?}\nops: {}", definition.def.len())
}

/// Answers a question.
fn answer(options: &BTreeMap<String, String>) -> wire::Result {
    let asked = options.get("requestid").cloned().unwrap_or_default();
    let json = format!("{{\"asked\":\"{asked}\"}}");
    let metadata = [
        ("result.txt", format!("asked {asked}\n")),
        ("result.json", json),
        ("version", "1.0.0".to_owned()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.into_bytes()));
    wire::Result {
        metadata: metadata.into(),
        ..wire::Result::default()
    }
}
