//! What a running build asks for: room before a step, and room on a full disk.

use std::sync::{Mutex, PoisonError};

use super::growth::Growth;
use super::policies::GcSettings;
use crate::content::{Ingest, MakeRoom};
use crate::engine::Engine;
use crate::engine::clock;
use crate::engine::error::EngineError;
use crate::progress::{Event, Progress, Warning};
use crate::worker::room::{Room, is_no_space};

/// How much a store must grow before a collection that could not help is tried again.
const RETRY_BYTES: u64 = 256 << 20;
/// What is kept back for a collection on a full disk.
const RESERVE_BYTES: usize = 4 << 20;

/// Keeps the store of one build within its bounds.
#[derive(Debug)]
pub(in crate::engine) struct Keeper {
    engine: Engine,
    /// `None` where collection is off, or cannot be set up.
    settings: Option<GcSettings>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the store takes; `None` until somebody asks.
    used_bytes: Option<u64>,
    /// What it took when the last collection of this build was done.
    collected_bytes: Option<u64>,
}

impl Keeper {
    /// Makes the keeper of a build; settings that cannot be read are a warning.
    pub(in crate::engine) fn new(engine: &Engine, progress: &Progress) -> Self {
        let settings = engine.gc_settings().map_err(|error| {
            let short = format!("the store is not kept under its cap: {error}");
            progress.send(Event::Warning(Warning {
                short,
                ..Warning::default()
            }));
        });
        Self {
            engine: engine.clone(),
            settings: settings.ok().filter(|settings| settings.is_on),
            state: Mutex::default(),
        }
    }

    fn growth(&self) -> Growth {
        Growth::of(self.engine.root())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room for Keeper {
    fn is_tight(&self) -> bool {
        let Some(settings) = &self.settings else {
            return false;
        };
        let mut state = self.state();
        let read = || self.growth().read(clock::now_ns()).bytes;
        let used_bytes = *state.used_bytes.get_or_insert_with(read);
        let is_retry = state
            .collected_bytes
            .is_some_and(|before| used_bytes < before.saturating_add(RETRY_BYTES));
        !is_retry && self.engine.is_over(settings, used_bytes)
    }

    fn tidy(&self) {
        // What fails or is busy now is done after the build.
        let pruned = self.engine.collect_if_idle();
        let mut state = self.state();
        if let Ok(Some(pruned)) = pruned {
            state.used_bytes = Some(pruned.left_bytes);
        }
        state.collected_bytes = state.used_bytes;
    }

    fn grew(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state();
        match &mut state.used_bytes {
            Some(used_bytes) => *used_bytes = used_bytes.saturating_add(bytes),
            // Read with what is added below.
            None => drop(self.growth().read(clock::now_ns())),
        }
        self.growth().add(bytes);
    }

    fn make(&self) -> u64 {
        if self.settings.is_none() {
            return 0;
        }
        // The error that is known already is the one to show.
        let freed_bytes = self.engine.collect_for_room().unwrap_or(0);
        self.state().used_bytes = None;
        freed_bytes
    }
}

/// Makes room while something is read that cannot be read again.
///
/// What has come of it fills the disk to the last byte, and a collection has to write: so some
/// space is kept back for it.
#[derive(Debug)]
pub(in crate::engine) struct MidwayRoom {
    engine: Engine,
    /// Where it is said.
    progress: Progress,
    reserve: Mutex<Option<Ingest>>,
}

impl MidwayRoom {
    /// Keeps space back on the disk of the store, where there is any.
    pub(in crate::engine) fn new(engine: &Engine, progress: &Progress) -> Self {
        Self {
            reserve: Mutex::new(reserve(engine)),
            engine: engine.clone(),
            progress: progress.clone(),
        }
    }
}

/// Fills a blob that nobody names; it goes when it is dropped.
fn reserve(engine: &Engine) -> Option<Ingest> {
    let mut filled = engine.content.ingest().ok()?;
    filled.write_chunk(&vec![0; RESERVE_BYTES]).ok()?;
    Some(filled)
}

impl MakeRoom for MidwayRoom {
    fn make_room(&self) -> bool {
        let mut reserved = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        drop(reserved.take());
        let freed_bytes = Keeper::new(&self.engine, &Progress::silent()).make();
        if freed_bytes > 0 {
            let short = format!(
                "no space left on the disk of the store: freed {freed_bytes} bytes and go on"
            );
            self.progress.send(Event::Warning(Warning {
                short,
                ..Warning::default()
            }));
        }
        *reserved = reserve(&self.engine);
        freed_bytes > 0
    }
}

impl Engine {
    /// Does work that fills the disk; where that is full, makes room and tries once more.
    pub(in crate::engine) async fn with_room<T, Work>(
        &self,
        what: &str,
        progress: &Progress,
        work: impl Fn() -> Work,
    ) -> Result<T, EngineError>
    where
        Work: Future<Output = Result<T, EngineError>>,
    {
        let error = match work().await {
            // A step has had its second try.
            Err(error) if error.step.is_none() && is_no_space(&error) => error,
            other => return other,
        };
        let engine = self.clone();
        let making =
            tokio::task::spawn_blocking(move || Keeper::new(&engine, &Progress::silent()).make());
        let freed_bytes = making.await.unwrap_or(0);
        if freed_bytes == 0 {
            return Err(error.with_hint("`cooper du` shows what takes the space"));
        }
        let short = format!(
            "no space left on the disk of the store: freed {freed_bytes} bytes and try once more to {what}"
        );
        progress.send(Event::Warning(Warning {
            short,
            ..Warning::default()
        }));
        work().await
    }
}
