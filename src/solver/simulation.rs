//! Simulates solves from a seed: random graphs, random durations, failures, cancels, vanished
//! results, other processes on the same store. No runtime, no clock: the scheduler is driven by
//! a queue of events, so a seed replays exactly. `SEED` at compile time replays one
//! (`SEED=17 cargo test solver::simulation`).
//!
//! What must hold in every run:
//! - the inputs of a vertex are done before it starts, and a vertex runs once;
//! - never more than the allowed number run;
//! - after a failure or a cancel nothing is started, and the end comes when nothing is in flight;
//! - every solved vertex has the value that its op makes of its inputs' present values: no false
//!   hit, whatever was changed, pruned, rerun or forgotten before;
//! - a second solve of an unchanged graph runs nothing;
//! - after a step that made the same again nothing else runs;
//! - who waits for others without using them starts behind them, and they are solved in any case.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::command::{Command, End, Event, ExecPlan, KnownRecord, VertexKeys};
use super::edge::VertexState;
use super::fake::{Build, Random};
use super::graph::{Graph, VertexIx};
use super::scheduler::Scheduler;
use super::worker::InputKey;
use crate::cache::{CacheKey, ContentHash};
use crate::llb::VertexDigest;

/// How many seeds a test run tries.
const SEEDS: u64 = 500;

/// What a vertex of the simulated project is.
#[derive(Debug, Clone)]
struct Op {
    /// Changes when the instruction (or the folder of a local source) changes.
    text: u64,
    /// Whether it makes the same whatever its text says.
    constant: bool,
    local: bool,
    /// For inputs that count by content, what is selected there.
    by_content: Vec<Option<u8>>,
}

/// A project: the graph keeps its shape, the texts of its ops change between solves.
struct Project {
    graph: Arc<Graph>,
    ops: Vec<Op>,
}

/// A record of the simulated cache with its value.
#[derive(Debug, Clone)]
struct Record {
    value: u64,
    /// Whether the result can still be loaded.
    there: bool,
}

/// The simulated store.
#[derive(Default)]
struct Store {
    keys: HashMap<CacheKey, KnownRecord>,
    records: HashMap<CacheKey, Record>,
    /// Records of steps that were rerun: nobody can tell what these deliver.
    rerun: HashSet<CacheKey>,
    /// The latest record with a value: what a step made can be found again as made before.
    outcomes: HashMap<u64, CacheKey>,
    nonce: u64,
}

/// What goes wrong in a solve, in percent.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    fail: usize,
    busy: usize,
    cancel: bool,
    ignored: usize,
}

/// One simulated solve.
struct Run<'a> {
    project: &'a Project,
    store: &'a mut Store,
    random: Random,
    faults: Faults,
    scheduler: Scheduler,
    /// Answers to come, by time; ties in order of asking.
    queue: BTreeMap<(u64, u64), Event>,
    clock: u64,
    asked: u64,
    values: Vec<Option<u64>>,
    found: Vec<Option<CacheKey>>,
    ran: Vec<VertexIx>,
    /// Those that another process is making: what it will have made when it ends.
    running: HashSet<VertexIx>,
    running_max: usize,
    stopped: bool,
    end: Option<End>,
    log: Vec<String>,
}

fn known(id: CacheKey, made_from: Vec<Option<CacheKey>>) -> KnownRecord {
    KnownRecord {
        id,
        made_from,
        too_old: false,
    }
}

fn mix(a: u64, b: u64) -> u64 {
    Random(a.rotate_left(17) ^ b).next()
}

/// What a user sees of a value that counts by content: few views, so that contents repeat.
fn view(value: u64, selector: Option<u8>) -> u64 {
    (value >> selector.unwrap_or(0)) % 3
}

impl Op {
    /// Selects something else of what counts by content, and says the same.
    fn select(&mut self, random: &mut Random) {
        for selector in self.by_content.iter_mut().flatten() {
            *selector = random.selector();
        }
    }
}

impl Project {
    fn random(random: &mut Random) -> Self {
        let count = 1 + random.below(14);
        let mut build = Build::default();
        let mut digests: Vec<VertexDigest> = Vec::new();
        let mut inputs_of: Vec<Vec<usize>> = Vec::new();
        for n in 0..count {
            let mut inputs = Vec::new();
            for _ in 0..random.below(4).min(n) {
                inputs.push(random.below(n));
            }
            let local = inputs.is_empty() && random.percent(40);
            let name = if local {
                format!("local {n}")
            } else {
                format!("run {n}")
            };
            let chosen: Vec<&VertexDigest> = inputs.iter().map(|i| &digests[*i]).collect();
            digests.push(build.step(&name, &chosen));
            inputs_of.push(inputs);
        }
        // Any vertex may be told to wait for any other; where that makes no sense it does not.
        for _ in 0..random.below(4) {
            let (user, earlier) = (random.below(count), random.below(count));
            build.after(&digests[user], &digests[earlier]);
        }
        let definition = build.result(&digests[count - 1]);
        let graph = Arc::new(Graph::new(definition.load().unwrap()));
        let op = |index: VertexIx, random: &mut Random| {
            let inputs = graph.inputs(index).len();
            let local = graph.vertex(index).name().starts_with("local");
            Op {
                text: random.next(),
                constant: !local && random.percent(30),
                local,
                by_content: (0..inputs)
                    .map(|_| random.percent(40).then(|| random.selector()))
                    .collect(),
            }
        };
        let ops = graph.indexes().map(|index| op(index, random)).collect();
        Self { graph, ops }
    }

    /// What an op makes of its inputs' values, unless it is rerun: then it makes something new.
    fn value(&self, vertex: VertexIx, inputs: &[u64]) -> u64 {
        let op = &self.ops[vertex.index()];
        let edges = self
            .graph
            .inputs(vertex)
            .iter()
            .zip(inputs)
            .zip(&op.by_content);
        let own = match op.constant {
            true => vertex.index() as u64,
            false => op.text,
        };
        edges.fold(own, |value, ((edge, input), by_content)| {
            let is_whole = by_content.is_none() && !self.ops[edge.vertex.index()].local;
            let seen = if is_whole {
                *input
            } else {
                view(*input, *by_content)
            };
            mix(value, seen)
        })
    }
}

impl<'a> Run<'a> {
    fn new(project: &'a Project, store: &'a mut Store, mut random: Random, faults: Faults) -> Self {
        let running_max = 1 + random.below(4);
        let ignored: Vec<bool> = project
            .ops
            .iter()
            .map(|op| !op.local && random.percent(faults.ignored))
            .collect();
        let ignores = |index: VertexIx| ignored[index.index()];
        let count = project.ops.len();
        Self {
            scheduler: Scheduler::new(Arc::clone(&project.graph), running_max, ignores),
            project,
            store,
            random,
            faults,
            queue: BTreeMap::new(),
            clock: 0,
            asked: 0,
            values: vec![None; count],
            found: vec![None; count],
            ran: Vec::new(),
            running: HashSet::new(),
            running_max,
            stopped: false,
            end: None,
            log: Vec::new(),
        }
    }

    fn drive(mut self) -> Outcome {
        if self.faults.cancel {
            let time = self.random.next() % 40;
            self.queue.insert((time, u64::MAX), Event::Cancelled);
        }
        self.feed(Event::Start);
        while self.end.is_none() {
            let ((time, _), event) = self.queue.pop_first().expect("the solve is stuck");
            self.clock = time;
            let event = self.settle(event);
            self.feed(event);
        }
        let left: Vec<&Event> = self.queue.values().collect();
        assert!(
            left.iter().all(|event| **event == Event::Cancelled),
            "in flight: {left:?}"
        );
        if self.end == Some(End::Done) {
            let mut awaited = self.project.graph.awaited().iter();
            assert!(awaited.all(|vertex| self.is_solved(*vertex)));
            self.check_values();
        }
        Outcome {
            end: self.end.unwrap(),
            ran: self.ran,
            log: self.log,
        }
    }

    fn feed(&mut self, event: Event) {
        self.log.push(format!("{} < {event:?}", self.clock));
        for command in self.scheduler.handle(event) {
            self.log.push(format!("{} > {command:?}", self.clock));
            assert!(self.end.is_none(), "a command after the end: {command:?}");
            self.perform(command);
        }
    }

    /// Plans the answer to an operation.
    fn answer(&mut self, event: Event) {
        let time = self.clock + 1 + self.random.next() % 10;
        self.asked += 1;
        self.queue.insert((time, self.asked), event);
    }

    fn perform(&mut self, command: Command) {
        let starts = matches!(
            command,
            Command::Map(_)
                | Command::Digest(..)
                | Command::LookUp(_)
                | Command::Ask(..)
                | Command::Load(..)
                | Command::Exec(..)
                | Command::Wait(..)
        );
        assert!(
            !(self.stopped && starts),
            "started after the stop: {command:?}"
        );
        match command {
            Command::Map(vertex) => {
                let op = &self.project.ops[vertex.index()];
                let how = |by_content: &Option<u8>| match by_content {
                    Some(selector) => InputKey::ByContent(ContentHash::of(&[*selector])),
                    None => InputKey::ByKey,
                };
                let keys = VertexKeys {
                    digest: ContentHash::of(&if op.local { 0 } else { op.text }.to_le_bytes()),
                    inputs: op.by_content.iter().map(how).collect(),
                    own_key: !op.local,
                };
                self.answer_or_fail(vertex, Event::Mapped(vertex, keys));
            }
            Command::Digest(user, input) => {
                let edge = self.project.graph.inputs(user)[input];
                let value = self.values[edge.vertex.index()].expect("the input is here");
                let selector = self.project.ops[user.index()].by_content[input];
                let hash = ContentHash::of(&view(value, selector).to_le_bytes());
                self.answer_or_fail(user, Event::Digested(user, input, hash));
            }
            Command::LookUp(lookups) => {
                let found = lookups.into_iter().filter_map(|(vertex, key)| {
                    let record = self.store.keys.get(&key)?.clone();
                    self.store.records.get(&record.id)?;
                    self.found[vertex.index()] = Some(record.id);
                    Some((vertex, record))
                });
                let found = found.collect();
                self.answer(Event::LookedUp(found));
            }
            // Whether the record is there is decided when the answer comes.
            Command::Ask(vertex, key) => self.answer(Event::Asked(vertex, Some(key))),
            Command::Load(vertex, _) => self.answer(Event::Loaded(vertex, true)),
            Command::Exec(vertex, plan) => self.exec(vertex, plan),
            Command::Wait(vertex, _) => self.answer(Event::Freed(vertex)),
            Command::Alias(vertex) => self.alias(vertex),
            Command::Forget(vertex) => {
                let id = self.found[vertex.index()].take().unwrap();
                if self
                    .store
                    .records
                    .get(&id)
                    .is_some_and(|record| !record.there)
                {
                    self.store.records.remove(&id);
                }
            }
            Command::Release(vertex) => self.values[vertex.index()] = None,
            Command::Report(..) => {}
            Command::CancelRunning => self.stopped = true,
            Command::Finish(end) => self.end = Some(end),
        }
    }

    fn answer_or_fail(&mut self, vertex: VertexIx, event: Event) {
        if self.random.percent(self.faults.fail) {
            self.answer(Event::Failed(vertex));
        } else {
            self.answer(event);
        }
    }

    fn exec(&mut self, vertex: VertexIx, plan: ExecPlan) {
        assert!(self.running.insert(vertex));
        assert!(self.running.len() <= self.running_max, "too many run");
        for edge in self.project.graph.inputs(vertex) {
            assert_eq!(self.scheduler.state(edge.vertex), VertexState::Done);
            assert!(self.values[edge.vertex.index()].is_some());
        }
        for earlier in self.project.graph.after(vertex) {
            assert!(self.is_solved(*earlier), "{vertex:?} is before {earlier:?}");
        }
        let cached = matches!(plan, ExecPlan::Cached(_));
        if cached && self.random.percent(self.faults.busy) {
            self.answer(Event::Busy(vertex));
            return;
        }
        if let ExecPlan::Cached(key) = plan
            && let Some(record) = self.store.keys.get(&key)
            && self.store.records.contains_key(&record.id)
        {
            let id = record.id;
            self.found[vertex.index()] = Some(id);
            self.answer(Event::Appeared(vertex, id));
            return;
        }
        self.ran.push(vertex);
        // What the step makes is decided by what it starts from.
        let inputs = self.project.graph.inputs(vertex).iter();
        let inputs: Vec<u64> = inputs
            .map(|edge| self.values[edge.vertex.index()].unwrap())
            .collect();
        let mut value = self.project.value(vertex, &inputs);
        let (content_key, id) = match plan {
            ExecPlan::Local => {
                self.values[vertex.index()] = Some(value);
                self.answer(Event::Executed(vertex, CacheKey([0; 32]), false));
                return;
            }
            ExecPlan::Cached(key) => (key, key),
            ExecPlan::Fresh(key) => {
                self.store.nonce += 1;
                let id = key.fresh(&self.store.nonce.to_le_bytes());
                if self.random.percent(70) {
                    value = mix(value, self.store.nonce);
                    self.store.rerun.insert(id);
                }
                (key, id)
            }
        };
        if self.random.percent(self.faults.fail) {
            self.answer(Event::Failed(vertex));
            return;
        }
        // Stored already now: nobody else looks at the key of a running step.
        let made_from = self.scheduler.made_from(vertex);
        let definition = self.scheduler.definition(vertex).unwrap();
        let id = match self.as_before(value) {
            Some(earlier) => earlier,
            None => {
                // A record that is made anew loses the keys of steps that made the same.
                self.store.keys.retain(|_, record| record.id != id);
                self.store.records.insert(id, Record { value, there: true });
                self.store.outcomes.insert(value, id);
                id
            }
        };
        for key in [definition, content_key] {
            let made_from = made_from.clone();
            self.store.keys.insert(key, known(id, made_from));
        }
        self.found[vertex.index()] = Some(id);
        self.values[vertex.index()] = Some(value);
        self.answer(Event::Executed(vertex, id, true));
    }

    fn is_solved(&self, vertex: VertexIx) -> bool {
        let is_done = self.scheduler.state(vertex) == VertexState::Done;
        is_done || self.scheduler.result_key(vertex).is_some()
    }

    /// Finds a record that can be loaded and has this value.
    fn as_before(&self, value: u64) -> Option<CacheKey> {
        let id = self.store.outcomes.get(&value)?;
        let record = self.store.records.get(id)?;
        (record.there && record.value == value).then_some(*id)
    }

    fn alias(&mut self, vertex: VertexIx) {
        let id = self.found[vertex.index()].unwrap();
        let made_from = self.scheduler.made_from(vertex);
        let definition = self.scheduler.definition(vertex).unwrap();
        self.store.keys.insert(definition, known(id, made_from));
    }

    /// Fills in what an answer depends on at the time when it comes.
    fn settle(&mut self, event: Event) -> Event {
        match event {
            Event::Asked(vertex, Some(key)) => {
                let record = self.store.keys.get(&key);
                let id = record
                    .map(|r| r.id)
                    .filter(|id| self.store.records.contains_key(id));
                self.found[vertex.index()] = id;
                Event::Asked(vertex, id)
            }
            Event::Loaded(vertex, _) => {
                let id = self.found[vertex.index()].unwrap();
                let record = self.store.records.get(&id).filter(|record| record.there);
                self.values[vertex.index()] = record.map(|record| record.value);
                Event::Loaded(vertex, record.is_some())
            }
            event => {
                if let Event::Executed(vertex, ..)
                | Event::Appeared(vertex, _)
                | Event::Busy(vertex)
                | Event::Failed(vertex) = event
                {
                    self.running.remove(&vertex);
                }
                event
            }
        }
    }

    /// No false hits: every solved vertex is what its op makes of its inputs as they are now.
    fn check_values(&self) {
        let present = |vertex: VertexIx| match self.scheduler.state(vertex) {
            VertexState::Done => self.values[vertex.index()],
            VertexState::Known => {
                let id = self.found[vertex.index()]?;
                self.store.records.get(&id).map(|record| record.value)
            }
            _ => None,
        };
        for vertex in self.project.graph.indexes() {
            let inputs = self.project.graph.inputs(vertex).iter();
            let inputs: Option<Vec<u64>> = inputs.map(|edge| present(edge.vertex)).collect();
            let key = self.scheduler.result_key(vertex);
            let rerun = key.is_some_and(|key| self.store.rerun.contains(&key));
            if let (Some(value), Some(inputs), false) = (present(vertex), inputs, rerun) {
                let expected = self.project.value(vertex, &inputs);
                assert_eq!(
                    value,
                    expected,
                    "{vertex:?} is stale\n{}",
                    self.log.join("\n")
                );
            }
        }
    }
}

struct Outcome {
    end: End,
    ran: Vec<VertexIx>,
    log: Vec<String>,
}

fn seeds() -> std::ops::Range<u64> {
    match option_env!("SEED").map(|seed| seed.parse::<u64>()) {
        Some(Ok(seed)) => seed..seed + 1,
        _ => 0..SEEDS,
    }
}

/// Runs `check` for every seed and names the seed that fails.
fn each_seed(check: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds() {
        if let Err(panic) = std::panic::catch_unwind(|| check(seed)) {
            println!("failed with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn count_runs(project: &Project, ran: &[VertexIx]) -> usize {
    ran.iter()
        .filter(|vertex| !project.ops[vertex.index()].local)
        .count()
}

#[test]
fn a_second_solve_runs_nothing() {
    each_seed(|seed| {
        let mut random = Random(seed);
        let project = Project::random(&mut random);
        let mut store = Store::default();
        let first = Run::new(&project, &mut store, random.clone(), Faults::default()).drive();
        assert_eq!(first.end, End::Done);
        let mut once = first.ran.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), first.ran.len(), "a vertex ran twice");
        let second = Run::new(&project, &mut store, random, Faults::default()).drive();
        assert_eq!(
            count_runs(&project, &second.ran),
            0,
            "{}",
            second.log.join("\n")
        );
    });
}

#[test]
fn after_the_same_result_nothing_else_runs() {
    each_seed(|seed| {
        let mut random = Random(seed);
        let mut project = Project::random(&mut random);
        let mut store = Store::default();
        let quiet = Faults::default();
        Run::new(&project, &mut store, random.clone(), quiet).drive();
        let constants = project.graph.indexes();
        let constants: Vec<VertexIx> = constants
            .filter(|vertex| project.ops[vertex.index()].constant)
            .collect();
        for vertex in constants {
            project.ops[vertex.index()].text = random.next();
            let run = Run::new(&project, &mut store, Random(random.next()), quiet).drive();
            assert_eq!(run.end, End::Done);
            let ran = run.ran.iter().filter(|ran| !project.ops[ran.index()].local);
            let ran: Vec<VertexIx> = ran.copied().collect();
            assert_eq!(ran, [vertex], "{}", run.log.join("\n"));
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_order() {
    each_seed(|seed| {
        let log = || {
            let mut random = Random(seed);
            let project = Project::random(&mut random);
            let faults = Faults {
                fail: 2,
                busy: 20,
                cancel: seed % 3 == 0,
                ignored: 10,
            };
            Run::new(&project, &mut Store::default(), random, faults)
                .drive()
                .log
        };
        assert_eq!(log(), log());
    });
}

#[test]
fn failures_and_cancels_end_and_lose_nothing() {
    each_seed(|seed| {
        let mut random = Random(seed);
        let project = Project::random(&mut random);
        let mut store = Store::default();
        let mut ran: Vec<VertexIx> = Vec::new();
        for round in 0..6 {
            let faults = Faults {
                fail: 8,
                busy: 15,
                cancel: round % 2 == 0,
                ignored: 0,
            };
            let run = Run::new(&project, &mut store, Random(random.next()), faults).drive();
            ran.extend(run.ran);
        }
        let last = Run::new(&project, &mut store, random.clone(), Faults::default()).drive();
        assert_eq!(last.end, End::Done);
        // Whoever delivered a result did so once: the rest failed before.
        let after = Run::new(&project, &mut store, random, Faults::default()).drive();
        assert_eq!(count_runs(&project, &after.ran), 0);
    });
}

/// Changes the project, the cache and the layers between solves in every way there is.
#[test]
fn no_false_hits() {
    each_seed(|seed| {
        let mut random = Random(seed);
        let mut project = Project::random(&mut random);
        let mut store = Store::default();
        let texts: Vec<[u64; 2]> = project
            .ops
            .iter()
            .map(|op| [op.text, random.next()])
            .collect();
        for round in 0..12 {
            let changed = random.below(project.ops.len());
            match random.percent(70) {
                true => project.ops[changed].text = texts[changed][random.below(2)],
                false => project.ops[changed].select(&mut random),
            }
            let mut ids: Vec<CacheKey> = store.records.keys().copied().collect();
            ids.sort();
            for id in ids {
                match random.below(12) {
                    0 => drop(store.records.remove(&id)),
                    1 => store.records.get_mut(&id).unwrap().there = false,
                    _ => {}
                }
            }
            let faults = Faults {
                fail: if round % 4 == 3 { 5 } else { 0 },
                busy: 10,
                cancel: round % 5 == 4,
                ignored: if round % 3 == 1 { 20 } else { 0 },
            };
            Run::new(&project, &mut store, Random(random.next()), faults).drive();
        }
        // A mixed result is put right by solving again.
        let quiet = Faults::default();
        let mut ends = Vec::new();
        while ends.last() != Some(&End::Done) {
            let run = Run::new(&project, &mut store, Random(random.next()), quiet).drive();
            ends.push(run.end);
            assert!(ends.len() <= 4, "{ends:?}");
        }
        store.records.retain(|_, record| record.there);
        // With nothing vanished any more it settles: after a few solves nothing runs.
        let mut logs = Vec::new();
        loop {
            let run = Run::new(&project, &mut store, Random(random.next()), quiet).drive();
            logs.push(run.log.join("\n"));
            if count_runs(&project, &run.ran) == 0 {
                break;
            }
            assert!(logs.len() < 3, "{}", logs.join("\n\n"));
        }
    });
}
