//! Processes in containers that a frontend makes: one stream of messages for all of them.
//!
//! ```text
//! frontend                     gateway
//!   Init ────────────────────►   starts a process
//!   ◄──────────────── Started
//!   File, Resize, Signal ────►
//!   ◄─────────────────── File   output, then its end, for each stream
//!   ◄─────────────────── Exit
//!   ◄─────────────────── Done   nothing follows
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::bridge::{BridgeError, Container, Outcome, ProcessRequest};
use super::status;
use super::table::Table;
use super::terminal::{self, Ends};
use super::wire::{self, ExecMessage, exec_message::Input};

/// Most processes of one stream.
const PROCESSES_MAX: usize = 1024;
/// Messages that wait to be sent.
const ANSWERS_MAX: usize = 64;
/// Pieces of input that wait for a process to read them.
const INPUTS_MAX: usize = 64;
/// Type of the detail that holds an exit code.
pub(super) const EXIT_DETAIL: &str = "github.com/moby/buildkit/gatewayapi.ExitMessage+json";
/// Exit code that stands for a process that was not started.
const NOT_STARTED: u32 = 255;

/// Where answers go.
type Answers = mpsc::Sender<Result<ExecMessage, Status>>;

/// Serves one stream.
pub(super) fn serve(
    table: Arc<Table>,
    messages: Streaming<ExecMessage>,
) -> BoxStream<'static, Result<ExecMessage, Status>> {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut talk = Talk {
            table,
            answers: answers.clone(),
            running: BTreeMap::new(),
        };
        if let Err(error) = talk.run(messages).await {
            // Who is gone needs no answer.
            let _ = answers.send(Err(error.into())).await;
        }
        talk.kill();
    });
    let next = |mut receiver: mpsc::Receiver<_>| async move {
        let answer = receiver.recv().await?;
        Some((answer, receiver))
    };
    futures::stream::unfold(receiver, next).boxed()
}

/// One stream on its way.
struct Talk {
    table: Arc<Table>,
    answers: Answers,
    running: BTreeMap<String, Running>,
}

/// A process of the stream.
struct Running {
    container: Arc<dyn Container>,
    number: u32,
    /// What it is to read; `None` after the end of that.
    stdin: Option<mpsc::Sender<Vec<u8>>>,
    terminal: Option<std::os::fd::OwnedFd>,
}

impl Talk {
    async fn run(&mut self, mut messages: Streaming<ExecMessage>) -> Outcome<()> {
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = self.answers.closed() => return Ok(()),
            };
            // A stream that breaks off ends like one that is closed.
            let Ok(Some(message)) = message else {
                return Ok(());
            };
            self.take(message).await?;
        }
    }

    /// Ends what still runs: nobody hears of it any more.
    fn kill(&self) {
        for running in self.running.values() {
            running.container.signal(running.number, libc::SIGKILL);
        }
    }

    async fn take(&mut self, message: ExecMessage) -> Outcome<()> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(BridgeError::invalid("ProcessID required"));
        }
        match message.input {
            Some(Input::Init(init)) => self.start(id, init),
            Some(Input::File(file)) => self.running(&id)?.feed(file).await,
            Some(Input::Resize(size)) => {
                let running = self.running(&id)?;
                if let Some(terminal) = &running.terminal {
                    // A terminal that has no size any more needs none.
                    let _ = terminal::resize(terminal, size.rows, size.cols);
                }
                Ok(())
            }
            Some(Input::Signal(signal)) => {
                let number = signal_number(&signal.name);
                let number = number.ok_or_else(|| {
                    BridgeError::invalid(format!("Unknown signal {}", signal.name))
                })?;
                let running = self.running(&id)?;
                running.container.signal(running.number, number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn running(&mut self, id: &str) -> Outcome<&mut Running> {
        self.running.get_mut(id).ok_or_else(|| {
            BridgeError::new(Code::NotFound, format!("IO for process {id:?} not found"))
        })
    }

    fn start(&mut self, id: String, init: wire::InitMessage) -> Outcome<()> {
        if self.running.contains_key(&id) {
            let text = format!("Process {id} already exists");
            return Err(BridgeError::new(Code::AlreadyExists, text));
        }
        if self.running.len() >= PROCESSES_MAX {
            let text = format!("a stream may have no more than {PROCESSES_MAX} processes");
            return Err(BridgeError::new(Code::ResourceExhausted, text));
        }
        let (container, number) = self.table.next_process(&init.container_id)?;
        let made = match init.tty {
            true => terminal::terminal(),
            false => terminal::pipes(&init.fds),
        };
        let (streams, mut ends) =
            made.map_err(|error| BridgeError::unknown(format!("cannot make streams: {error}")))?;
        let (sender, receiver) = mpsc::channel(INPUTS_MAX);
        let running = Running {
            container: Arc::clone(&container),
            number,
            stdin: ends.stdin.is_some().then_some(sender),
            terminal: ends.terminal.take(),
        };
        self.running.insert(id.clone(), running);
        let process = ProcessRequest {
            number,
            meta: init.meta.unwrap_or_default(),
            secrets: init.secretenv,
            security: init.security,
            streams,
        };
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let process = async move { container.run(process).await };
            attend(&id, process, (ends, receiver), &answers).await;
        });
        Ok(())
    }
}

impl Running {
    /// Passes on what the process is to read.
    async fn feed(&mut self, file: wire::FdMessage) -> Outcome<()> {
        let Some(stdin) = self.stdin.as_ref().filter(|_| file.fd == 0) else {
            let text = format!("fd {} unavailable to write", file.fd);
            return Err(BridgeError::new(Code::OutOfRange, text));
        };
        if !file.data.is_empty() {
            // A process that has ended reads nothing any more.
            let _ = stdin.send(file.data).await;
        }
        if file.eof {
            self.stdin = None;
        }
        Ok(())
    }
}

/// Runs a process and tells everything about it.
async fn attend(
    id: &str,
    process: impl Future<Output = Outcome<i32>>,
    (ends, mut input): (Ends, mpsc::Receiver<Vec<u8>>),
    answers: &Answers,
) {
    let send = |input: Input| {
        let message = ExecMessage {
            process_id: id.to_owned(),
            input: Some(input),
        };
        // Who is gone needs no answer.
        async move { drop(answers.send(Ok(message)).await) }
    };
    send(Input::Started(wire::StartedMessage {})).await;
    let Ends { stdin, outputs, .. } = ends;
    let feeding = async move {
        if let Some(stdin) = stdin {
            while let Some(bytes) = input.recv().await {
                if stdin.write(&bytes).await.is_err() {
                    break;
                }
            }
        }
    };
    let outputs = outputs.iter().map(|(fd, end)| async move {
        let file = |data: Vec<u8>, eof| Input::File(wire::FdMessage { fd: *fd, eof, data });
        while let Ok(data) = end.read().await {
            if data.is_empty() {
                break;
            }
            send(file(data, false)).await;
        }
        send(file(Vec::new(), true)).await;
    });
    let running = async {
        let (exit, _) = tokio::join!(process, futures::future::join_all(outputs));
        exit
    };
    let exit = tokio::select! {
        exit = running => exit,
        // Input ends before the process does, or not at all.
        () = async { feeding.await; std::future::pending::<()>().await } => return,
    };
    send(Input::Exit(exit_message(exit))).await;
    send(Input::Done(wire::DoneMessage {})).await;
}

fn exit_message(exit: Outcome<i32>) -> wire::ExitMessage {
    let (code, error) = match exit {
        Ok(0) => (0, None),
        Ok(code) => {
            let text = format!("process did not complete successfully: exit code: {code}");
            let error = BridgeError::unknown(text)
                .with_detail(EXIT_DETAIL, &serde_json::json!({"Code": code}));
            (u32::try_from(code).unwrap_or(NOT_STARTED), Some(error))
        }
        Err(error) => (NOT_STARTED, Some(error)),
    };
    wire::ExitMessage {
        code,
        error: error.as_ref().map(status::to_wire),
    }
}

/// Returns the number of a signal from its name, which may begin with `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 22] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("WINCH", libc::SIGWINCH),
    ];
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let found = NAMES.iter().find(|(known, _)| *known == short);
    found.map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        for (name, number) in [("KILL", Some(9)), ("SIGTERM", Some(15)), ("NOPE", None)] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn an_exit_says_why() {
        assert_eq!(exit_message(Ok(0)), wire::ExitMessage::default());
        let failed = exit_message(Ok(4));
        let error = status::from_wire(failed.error.unwrap());
        assert_eq!(failed.code, 4);
        assert_eq!(error.detail(EXIT_DETAIL).unwrap()["Code"], 4);
        let refused = exit_message(Err(BridgeError::invalid("no")));
        assert_eq!(
            (refused.code, refused.error.unwrap().message.as_str()),
            (255, "no")
        );
    }
}
