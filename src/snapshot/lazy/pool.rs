//! Threads that wait for the network, so that nobody else does.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::snapshot::store::lock;

/// Reads that are fetched at the same time.
const THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when the pool is dropped and the last job is done.
#[derive(Debug)]
pub(super) struct Pool {
    /// Holds no more jobs than reads are under way, which the kernel bounds.
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts the threads.
    pub(super) fn start() -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("lazy fetch".into());
            // Fewer threads fetch, too; without any the queue is gone, and `run` says so.
            let _ = thread.spawn(move || work(&queue));
        }
        Self { jobs }
    }

    /// Has a job done; returns it where there are no threads.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Job> {
        self.jobs.send(Box::new(job)).map_err(|unsent| unsent.0)
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = lock(queue).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
