//! Containers that somebody talks to while they run: streams of their own, signals, and further
//! processes in them.
//!
//! ```text
//! Controls ──Ask──► Guests ──Request──► helper (pid 1)
//!          ◄─Exit── (one answer for each further process)
//! ```
//!
//! The process that a container was started for is number 0; when it ends, the container ends,
//! and with it all further ones.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::error::{ExecutorError, Tried};
use super::order::{Report, Request};
use super::prepare;
use super::run::{SIGKILL, exit_of};
use super::slot::Slot;
use super::spec::Exit;
use crate::sys::root::Root;

/// The standard streams of a process; where `None`: nothing to read, and the log to write to.
#[derive(Debug, Default)]
pub struct Streams {
    /// What it reads.
    pub stdin: Option<OwnedFd>,
    /// What it writes.
    pub stdout: Option<OwnedFd>,
    /// Where it complains.
    pub stderr: Option<OwnedFd>,
    /// Whether the streams are a terminal, which is to be the controlling one.
    pub terminal: bool,
}

impl Streams {
    /// Lists those that are given, in the order in which the helper expects them.
    pub(super) fn given(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let all = [&self.stdin, &self.stdout, &self.stderr];
        all.into_iter().flatten().map(AsFd::as_fd)
    }

    /// Says which are given.
    pub(super) fn which(&self) -> [bool; 3] {
        [&self.stdin, &self.stdout, &self.stderr].map(Option::is_some)
    }
}

/// One more process of a container.
#[derive(Debug, Default)]
pub struct FurtherProcess {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub cwd: String,
    /// `user[:group]`; empty means root.
    pub user: String,
    /// Its streams.
    pub streams: Streams,
}

/// What somebody asks of a running container.
#[derive(Debug)]
pub(super) enum Ask {
    /// Send a signal to a process.
    Signal { process: u32, signal: i32 },
    /// Start one more.
    Start {
        process: u32,
        what: Box<FurtherProcess>,
        ended: oneshot::Sender<Result<Exit, ExecutorError>>,
    },
}

/// How a run is talked to; nobody does by default.
#[derive(Debug, Default)]
pub struct Attachment {
    /// Streams of the process.
    pub(super) streams: Streams,
    /// What is asked of the container.
    pub(super) asks: Option<mpsc::UnboundedReceiver<Ask>>,
    /// Takes the root of the container.
    pub(super) root: Arc<OnceLock<Root>>,
}

impl Attachment {
    /// Attaches streams only.
    pub fn streams(streams: Streams) -> Self {
        Self {
            streams,
            ..Self::default()
        }
    }

    /// Attaches streams, and controls for what comes later.
    pub fn controlled(streams: Streams) -> (Self, Controls) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let root = Arc::default();
        let attachment = Self {
            streams,
            asks: Some(receiver),
            root: Arc::clone(&root),
        };
        (attachment, Controls { sender, root })
    }
}

/// Talks to a running container.
#[derive(Debug, Clone)]
pub struct Controls {
    sender: mpsc::UnboundedSender<Ask>,
    root: Arc<OnceLock<Root>>,
}

impl Controls {
    /// Sends a signal to a process of the container; one that has ended is fine.
    pub fn signal(&self, process: u32, signal: i32) {
        // A container that is gone has no processes.
        let _ = self.sender.send(Ask::Signal { process, signal });
    }

    /// Returns the root of the container, once it is there.
    pub fn root(&self) -> Option<Root> {
        self.root.get().cloned()
    }

    /// Starts one more process, under a number that nobody else has, and waits for its end.
    pub async fn run(&self, process: u32, what: FurtherProcess) -> Result<Exit, ExecutorError> {
        let (ended, end) = oneshot::channel();
        let what = Box::new(what);
        let sent = self.sender.send(Ask::Start {
            process,
            what,
            ended,
        });
        if sent.is_err() {
            return Err(gone());
        }
        match end.await {
            Ok(end) => end,
            // The container ended first, and took it along.
            Err(_) => Ok(Exit {
                code: 128 + SIGKILL,
                signal: Some(SIGKILL),
                ..Exit::default()
            }),
        }
    }
}

/// Says that there is no container any more.
fn gone() -> ExecutorError {
    ExecutorError::Spec("the container has ended".to_owned())
}

/// The talk with one running container, seen from the executor.
#[derive(Debug, Default)]
pub(super) struct Guests {
    asks: Option<mpsc::UnboundedReceiver<Ask>>,
    /// Where the helper's reports come from.
    channel: Option<AsyncFd<OwnedFd>>,
    /// The root, to find users in.
    tree: Option<Root>,
    /// Who waits for which process.
    waiting: BTreeMap<u32, oneshot::Sender<Result<Exit, ExecutorError>>>,
    /// Reports that are about the container itself.
    pub(super) early: Vec<Report>,
}

/// What comes next in a talk.
#[derive(Debug)]
pub(super) enum Heard {
    Asked(Ask),
    /// The last one who could ask has gone.
    Silence,
    Reports,
}

impl Guests {
    /// Begins the talk with the container of a slot. Needs a tokio runtime.
    pub(super) fn begin(
        asks: Option<mpsc::UnboundedReceiver<Ask>>,
        tree: Option<Root>,
        slot: &Slot,
    ) -> Result<Self, ExecutorError> {
        let channel = match &asks {
            Some(_) => Some(slot.listen().tried(|| "listen to the helper".to_owned())?),
            None => None,
        };
        Ok(Self {
            asks,
            channel,
            tree,
            ..Self::default()
        })
    }

    /// Waits for the next thing; for ever where nobody talks.
    pub(super) async fn next(&mut self) -> Heard {
        let asked = async {
            match &mut self.asks {
                Some(asks) => asks.recv().await.map_or(Heard::Silence, Heard::Asked),
                None => std::future::pending().await,
            }
        };
        let reported = async {
            match &self.channel {
                Some(channel) => match channel.readable().await {
                    Ok(mut ready) => {
                        ready.clear_ready();
                        Heard::Reports
                    }
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = reported => heard,
            heard = asked => heard,
        }
    }

    /// Does what was asked, or passes on what was reported.
    pub(super) fn act(&mut self, heard: Heard, slot: &Slot) -> Result<(), ExecutorError> {
        match heard {
            Heard::Silence => self.asks = None,
            Heard::Reports => {
                let (reports, is_over) = slot.heard()?;
                if is_over {
                    // A closed channel is readable for ever.
                    self.channel = None;
                }
                for report in reports {
                    self.pass_on(report);
                }
            }
            Heard::Asked(Ask::Signal { process, signal }) => {
                // A helper that is gone has nobody to send it to.
                let _ = slot.send(&Request::Signal { process, signal });
            }
            Heard::Asked(Ask::Start {
                process,
                what,
                ended,
            }) => match self.start(process, &what, slot) {
                Ok(()) => {
                    self.waiting.insert(process, ended);
                }
                // Who asked and went away does not want to know.
                Err(error) => drop(ended.send(Err(error))),
            },
        }
        Ok(())
    }

    fn start(&self, process: u32, what: &FurtherProcess, slot: &Slot) -> Result<(), ExecutorError> {
        let tree = self.tree.as_ref().ok_or_else(gone)?;
        let order = prepare::further(tree, what)?;
        slot.send(&Request::Start { process })
            .tried(|| "talk to the helper".to_owned())?;
        let descriptors: Vec<BorrowedFd<'_>> = what.streams.given().collect();
        slot.order(&order, &descriptors)
    }

    fn pass_on(&mut self, report: Report) {
        let Report::Further { process, report } = report else {
            self.early.push(report);
            return;
        };
        // A process that cannot be started reports that, and then its end.
        if let Some(waiting) = self.waiting.remove(&process) {
            drop(waiting.send(exit_of(*report, "the process")));
        }
    }
}
