//! Processes in containers.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use bollard_buildkit_proto::pb;
use wire::exec_message::Input;

use crate::graph::{Graph, meta};
use crate::{Gateway, Outcome, solve, told};

/// Processes of containers, with what they say.
pub(crate) struct Talk {
    sender: tokio::sync::mpsc::Sender<wire::ExecMessage>,
    answers: tonic::Streaming<wire::ExecMessage>,
    waiting: Vec<wire::ExecMessage>,
}

impl Talk {
    pub(crate) async fn open(gateway: &mut Gateway) -> Result<Self, tonic::Status> {
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

    pub(crate) async fn send(&self, process: &str, input: Input) {
        let message = wire::ExecMessage {
            process_id: process.to_owned(),
            input: Some(input),
        };
        self.sender.send(message).await.unwrap();
    }

    pub(crate) async fn start(&self, process: &str, args: &[&str], tty: bool) {
        let init = wire::InitMessage {
            container_id: "c".to_owned(),
            meta: Some(meta(args)),
            fds: vec![0, 1, 2],
            tty,
            ..wire::InitMessage::default()
        };
        self.send(process, Input::Init(init)).await;
    }

    pub(crate) async fn feed(&self, process: &str, data: &str, eof: bool) {
        let data = data.as_bytes().to_vec();
        self.send(process, Input::File(wire::FdMessage { fd: 0, eof, data }))
            .await;
    }

    /// Returns the next message about a process.
    pub(crate) async fn next(&mut self, process: &str) -> Result<Input, tonic::Status> {
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
    pub(crate) async fn until(&mut self, process: &str, wanted: &str) -> Result<(), tonic::Status> {
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
    pub(crate) async fn end(&mut self, process: &str) -> Result<(String, u32), tonic::Status> {
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
pub(crate) async fn containers(
    gateway: &mut Gateway,
    options: &BTreeMap<String, String>,
) -> Outcome {
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
    let script = "read x; until [ \"$(stty size)\" = '9 33' ]; do sleep 0.05; done; \
                  stty size; [ -t 0 ] && echo is one";
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
