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
use sha2::{Digest, Sha256};
use tonic::Code;
use wire::exec_message::Input;
use wire::llb_bridge_client::LlbBridgeClient;
use wire::result::Result as Returned;

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

/// A graph under construction.
#[derive(Clone, Default)]
struct Graph {
    ops: Vec<Vec<u8>>,
}

impl Graph {
    fn push(&mut self, op: pb::op::Op, inputs: &[String]) -> String {
        let input = |digest: &String| pb::Input {
            digest: digest.clone(),
            index: 0,
        };
        let bytes = pb::Op {
            inputs: inputs.iter().map(input).collect(),
            op: Some(op),
            ..pb::Op::default()
        }
        .encode_to_vec();
        let name = digest(&bytes);
        self.ops.push(bytes);
        name
    }

    fn source(identifier: &str, attrs: &[(&str, &str)]) -> (Self, String) {
        let mut graph = Self::default();
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let op = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.collect(),
        };
        let name = graph.push(pb::op::Op::Source(op), &[]);
        (graph, name)
    }

    /// A file system with one file.
    fn file(path: &str, text: &str) -> pb::Definition {
        let make = pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            timestamp: 1,
            ..pb::FileActionMkFile::default()
        };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(make)),
        };
        let mut graph = Self::default();
        let op = pb::FileOp {
            actions: vec![action],
        };
        let name = graph.push(pb::op::Op::File(op), &[]);
        graph.of(&name)
    }

    /// A step in an image.
    fn step(image: &str, args: &[&str]) -> pb::Definition {
        let (mut graph, root) = Self::source(&format!("docker-image://{image}"), &[]);
        let exec = pb::ExecOp {
            meta: Some(meta(args)),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        let name = graph.push(pb::op::Op::Exec(exec), &[root]);
        graph.of(&name)
    }

    fn of(mut self, result: &str) -> pb::Definition {
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: result.to_owned(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        self.ops.push(terminal.encode_to_vec());
        pb::Definition {
            def: self.ops,
            ..pb::Definition::default()
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn meta(args: &[&str]) -> pb::Meta {
    pb::Meta {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        ..pb::Meta::default()
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
        "files" => files(gateway, options).await,
        "context" => context(gateway).await,
        "dockerfile" => dockerfile(gateway, options).await,
        "containers" => containers(gateway, options).await,
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

/// Looks at the Dockerfile and the build context.
async fn files(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let mut lines = Vec::new();
    let (graph, name) = Graph::source("local://dockerfile", &[]);
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let text = read(gateway, &folder, &options["filename"]).await?;
    lines.push(format!("dockerfile: {:?}", text.lines().last().unwrap()));
    lines.push(format!("command line: {}", options["cmdline"]));
    lines.push(format!("target: {}", options["target"]));
    let (graph, name) = Graph::source(
        "local://context",
        &[("local.excludepatterns", "[\"secret\"]")],
    );
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let request = wire::ReadDirRequest {
        r#ref: folder.clone(),
        dir_path: "/".to_owned(),
        include_pattern: "*.txt".to_owned(),
        ..wire::ReadDirRequest::default()
    };
    for stat in gateway.read_dir(request).await?.into_inner().entries {
        lines.push(format!("{} {:o} {}", stat.path, stat.mode, stat.size));
    }
    let request = wire::ReadFileRequest {
        r#ref: folder.clone(),
        file_path: "a.txt".to_owned(),
        range: Some(wire::FileRange {
            offset: 1,
            length: 2,
        }),
        ..wire::ReadFileRequest::default()
    };
    let piece = gateway.read_file(request).await?.into_inner().data;
    lines.push(format!("piece: {}", String::from_utf8(piece).unwrap()));
    let request = wire::StatFileRequest {
        r#ref: folder.clone(),
        path: "link".to_owned(),
        ..wire::StatFileRequest::default()
    };
    let stat = gateway.stat_file(request).await?.into_inner().stat.unwrap();
    lines.push(format!("link: {}", stat.path));
    for path in ["secret", "../../../etc/passwd", "out"] {
        let refused = read(gateway, &folder, path).await.unwrap_err();
        lines.push(format!("{path}: {}", refused.message()));
    }
    for (reference, path) in [("", "a"), ("result-99", "a")] {
        let refused = read(gateway, reference, path).await.unwrap_err();
        lines.push(format!("{reference:?}: {}", refused.message()));
    }
    let inputs = gateway.inputs(wire::InputsRequest {}).await?.into_inner();
    lines.push(format!("inputs: {}", inputs.definitions.len()));
    told(gateway, &lines.join("\n")).await
}

/// Returns the build context itself.
async fn context(gateway: &mut Gateway) -> Outcome {
    let (graph, name) = Graph::source("local://context", &[]);
    Ok(image(solve(gateway, graph.of(&name)).await?))
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

/// Processes of containers, with what they say.
struct Talk {
    sender: tokio::sync::mpsc::Sender<wire::ExecMessage>,
    answers: tonic::Streaming<wire::ExecMessage>,
    waiting: Vec<wire::ExecMessage>,
}

impl Talk {
    async fn open(gateway: &mut Gateway) -> Result<Self, tonic::Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let messages = futures::stream::unfold(receiver, |mut receiver| async move {
            let message = receiver.recv().await?;
            Some((message, receiver))
        });
        let answers = gateway.exec_process(messages).await?.into_inner();
        Ok(Self {
            sender,
            answers,
            waiting: Vec::new(),
        })
    }

    async fn send(&self, process: &str, input: Input) {
        let message = wire::ExecMessage {
            process_id: process.to_owned(),
            input: Some(input),
        };
        self.sender.send(message).await.unwrap();
    }

    async fn start(&self, process: &str, args: &[&str], tty: bool) {
        let init = wire::InitMessage {
            container_id: "c".to_owned(),
            meta: Some(meta(args)),
            fds: vec![0, 1, 2],
            tty,
            ..wire::InitMessage::default()
        };
        self.send(process, Input::Init(init)).await;
    }

    async fn feed(&self, process: &str, data: &str, eof: bool) {
        let data = data.as_bytes().to_vec();
        self.send(process, Input::File(wire::FdMessage { fd: 0, eof, data }))
            .await;
    }

    /// Returns the next message about a process.
    async fn next(&mut self, process: &str) -> Result<Input, tonic::Status> {
        let mut waiting = self.waiting.iter();
        if let Some(at) = waiting.position(|message| message.process_id == process) {
            return Ok(self.waiting.remove(at).input.unwrap());
        }
        loop {
            let message = self.answers.message().await?.expect("the stream ended");
            if message.process_id == process {
                return Ok(message.input.unwrap());
            }
            self.waiting.push(message);
        }
    }

    /// Reads output until it holds a text.
    async fn until(&mut self, process: &str, wanted: &str) -> Result<(), tonic::Status> {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            if let Input::File(file) = self.next(process).await? {
                assert!(!file.eof, "{process} ended before {wanted:?}: {seen:?}");
                seen += std::str::from_utf8(&file.data).unwrap();
            }
        }
        Ok(())
    }

    /// Waits for the end of a process; returns what it wrote, and its exit code.
    async fn end(&mut self, process: &str) -> Result<(String, u32), tonic::Status> {
        let (mut output, mut code, mut ended) = (String::new(), None, 0);
        loop {
            match self.next(process).await? {
                Input::File(file) if file.eof => ended += 1,
                Input::File(file) => output += std::str::from_utf8(&file.data).unwrap(),
                Input::Exit(exit) => code = Some(exit.code),
                Input::Done(_) => break,
                _ => {}
            }
        }
        assert!(ended > 0, "no stream of {process} ended");
        Ok((output, code.expect("no exit before the end")))
    }
}

/// Makes the container `c`, and tries to make it again.
async fn make_container(gateway: &mut Gateway, image: &str) -> Result<String, tonic::Status> {
    let request = wire::ResolveImageConfigRequest {
        r#ref: image.to_owned(),
        ..wire::ResolveImageConfigRequest::default()
    };
    let found = gateway.resolve_image_config(request).await?.into_inner();
    assert!(found.digest.starts_with("sha256:") && !found.config.is_empty());
    let (graph, name) = Graph::source(&format!("docker-image://{image}"), &[]);
    let root = solve(gateway, graph.of(&name)).await?.id;
    let note = solve(gateway, Graph::file("/note", "from a result"))
        .await?
        .id;
    let mount = |dest: &str, result_id: &str, mount_type: pb::MountType| pb::Mount {
        dest: dest.to_owned(),
        result_id: result_id.to_owned(),
        mount_type: mount_type as i32,
        ..pb::Mount::default()
    };
    let request = wire::NewContainerRequest {
        container_id: "c".to_owned(),
        mounts: vec![
            mount("/", &root, pb::MountType::Bind),
            mount("/mnt", &note, pb::MountType::Bind),
            mount("/tmp", "", pb::MountType::Tmpfs),
        ],
        hostname: "inside".to_owned(),
        ..wire::NewContainerRequest::default()
    };
    gateway.new_container(request.clone()).await?;
    let refused = gateway.new_container(request).await.unwrap_err();
    Ok(format!("again: {:?}", refused.code()))
}

/// Runs processes in a container.
async fn containers(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let mut lines = vec![make_container(gateway, &options["build-arg:IMAGE"]).await?];
    let mut talk = Talk::open(gateway).await?;
    let script = "trap 'echo caught' USR1; echo ready; \
                  while ! [ -e /tmp/go ]; do sleep 0.05; done; \
                  cat; hostname; cat /mnt/note; echo changed > /mnt/note; exit 5";
    talk.start("main", &["/bin/sh", "-c", script], false).await;
    talk.until("main", "ready\n").await?;
    let name = "USR1".to_owned();
    let signal = Input::Signal(wire::SignalMessage { name });
    talk.send("main", signal).await;
    talk.until("main", "caught\n").await?;
    let script = "echo from; read x; echo \"$x\" >&2; exit 4";
    talk.start("second", &["/bin/sh", "-c", script], false)
        .await;
    talk.feed("second", "afar\n", true).await;
    lines.push(format!("second: {:?}", talk.end("second").await?));
    let script = "read x; stty size; [ -t 0 ] && echo is one";
    talk.start("terminal", &["/bin/sh", "-c", script], true)
        .await;
    let size = wire::ResizeMessage { rows: 9, cols: 33 };
    talk.send("terminal", Input::Resize(size)).await;
    talk.feed("terminal", "\n", false).await;
    let (output, code) = talk.end("terminal").await?;
    let output = output.trim().replace("\r\n", " ");
    lines.push(format!("terminal: {output:?} {code}"));
    talk.start("absent", &["/bin/no-such-program"], false).await;
    lines.push(format!("absent: {}", talk.end("absent").await?.1));
    let script = "echo x > /made; touch /tmp/go";
    talk.start("helper", &["/bin/sh", "-c", script], false)
        .await;
    lines.push(format!("helper: {:?}", talk.end("helper").await?));
    lines.push(format!("made: {:?}", read_mount(gateway, 0, "made").await?));
    talk.feed("main", "what it reads\n", true).await;
    lines.push(format!("main: {:?}", talk.end("main").await?));
    lines.push(format!("note: {:?}", read_mount(gateway, 1, "note").await?));
    lines.extend(end_container(gateway, talk).await?);
    told(gateway, &lines.join("\n")).await
}

/// Ends the container, and asks for more of it.
async fn end_container(
    gateway: &mut Gateway,
    mut talk: Talk,
) -> Result<Vec<String>, tonic::Status> {
    let refused = read_mount(gateway, 2, "go").await.unwrap_err();
    let mut lines = vec![refused.message().to_owned()];
    let release = wire::ReleaseContainerRequest {
        container_id: "c".to_owned(),
    };
    gateway.release_container(release.clone()).await?;
    let refused = gateway.release_container(release).await.unwrap_err();
    lines.push(format!("released: {:?}", refused.code()));
    talk.start("late", &["/bin/true"], false).await;
    let refused = talk.end("late").await.unwrap_err();
    lines.push(format!("late: {}", refused.message()));
    Ok(lines)
}

async fn read_mount(
    gateway: &mut Gateway,
    mount: i32,
    path: &str,
) -> Result<String, tonic::Status> {
    let request = wire::ReadFileRequest {
        r#ref: "c".to_owned(),
        file_path: path.to_owned(),
        mount_index: mount,
        ..wire::ReadFileRequest::default()
    };
    let data = gateway
        .read_file_container(request)
        .await?
        .into_inner()
        .data;
    Ok(String::from_utf8(data).unwrap())
}
