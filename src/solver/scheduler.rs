//! Decides what to do next. Pure: an event comes in, commands go out, nothing is performed here.
//!
//! A solve has three parts. *Preparing*: every vertex is mapped; local sources are executed at
//! once and what their users use of them is digested, because that belongs to the users' keys.
//! *Looking up*: all definition keys are known, and one command asks for all of them.
//! *Solving*: the results are demanded, and demand goes down only as far as results are missing.
//!
//! A vertex is asked for its key or for its outputs. The key is enough for a user that hits the
//! cache afterwards, so outputs are loaded only for a user that runs or digests contents. The
//! results of the solve may lie elsewhere, with another machine: whoever exports them decides
//! whether their bytes are needed. If a user here needs them, they are loaded once more.
//!
//! A record found by definition key is trusted only if its inputs, as far as the cache knows
//! them, are the ones that it was made from: after `--no-cache` has rerun a step, the older
//! records of its users are stale although their definition keys are the same.
//!
//! What the cache does not know cannot be checked at once. If a step that it did not know, or
//! whose layer turned out to be gone, gets another result key than its users were made from,
//! the end says so ([`End::Mixed`]), and another solve puts it right.
//!
//! A vertex may have to wait for others of which it uses nothing. That is no part of any key: it
//! is looked up as if they were not there, and waits for them only when it is about to run. They
//! are demanded from the start, whether anybody waits for them or not.
//!
//! Rule of failure: the first failure ends the solve. What runs is cancelled, nothing new is
//! started, and the end is reported when every operation has answered. What finished meanwhile
//! has been stored by whoever performs the commands.
//!
//! The order of commands depends on nothing but the order of events.

mod demand;
mod prepare;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::command::{Command, End, Event, VertexKeys};
use super::edge::{Edge, VertexState};
use super::graph::{Graph, VertexIx};
use crate::cache::{CacheKey, ContentHash, InputPart};

/// How often a result may turn out to be gone before the cache is not asked again.
const REFUSALS_MAX: u32 = 2;

/// How much of a vertex its users want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Nothing,
    Key,
    /// The outputs, wherever they lie.
    Result,
    /// The outputs, on this machine.
    Outputs,
}

/// What is known of a vertex's result before it is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// A trusted record exists under this result key.
    Record(CacheKey),
    /// There is no record, but if it ran, this would be its result key.
    Key(CacheKey),
    /// There is no record.
    Unknown,
    /// It, or something it is made from, must run.
    Stale,
}

#[derive(Debug)]
struct Slot {
    state: VertexState,
    want: Want,
    keys: Option<VertexKeys>,
    /// Whether the user wants it to run.
    ignores_cache: bool,
    /// What is used of its inputs, where that counts by content.
    contents: Vec<Option<ContentHash>>,
    definition: Option<CacheKey>,
    outlook: Outlook,
    /// Result keys of the inputs that the record behind `outlook` was made from.
    made_from: Vec<Option<CacheKey>>,
    /// Its result key, once it is solved.
    result: Option<CacheKey>,
    /// Whether its outputs can be loaded again.
    kept: bool,
    /// Whether its outputs may lie elsewhere.
    elsewhere: bool,
    refusals: u32,
    /// Users to tell when the key, or the outputs, are here.
    key_waiters: Vec<VertexIx>,
    output_waiters: Vec<VertexIx>,
    /// How many uses of it are in a state that needs inputs.
    interest: usize,
    /// Whether the user has been told, or need not be.
    reported: bool,
    /// Whether a hit above has passed its news on to it.
    passed: bool,
}

/// What the solve is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// So many operations are missing until all definition keys are known.
    Preparing(usize),
    LookingUp,
    Solving,
    Stopping(End),
    Finished,
}

/// The state of one solve.
#[derive(Debug)]
pub struct Scheduler {
    graph: Arc<Graph>,
    slots: Vec<Slot>,
    phase: Phase,
    /// Operations that have not been answered.
    in_flight: usize,
    running: usize,
    running_max: usize,
    ready: BTreeSet<VertexIx>,
    /// Whether a solved vertex got another result key.
    mixed: bool,
    /// Whether the end comes as soon as everything is looked up.
    only_plans: bool,
    commands: Vec<Command>,
}

impl Scheduler {
    /// Prepares a solve in which at most `running_max` vertices run at a time.
    /// `ignores_cache` says which vertices must run.
    pub fn new(
        graph: Arc<Graph>,
        running_max: usize,
        ignores_cache: impl Fn(VertexIx) -> bool,
    ) -> Self {
        let slot = |index| Slot {
            state: VertexState::Mapping,
            want: Want::Nothing,
            keys: None,
            ignores_cache: ignores_cache(index),
            contents: vec![None; graph.inputs(index).len()],
            definition: None,
            outlook: Outlook::Unknown,
            made_from: Vec::new(),
            result: None,
            kept: false,
            elsewhere: false,
            refusals: 0,
            key_waiters: Vec::new(),
            output_waiters: Vec::new(),
            interest: 0,
            reported: false,
            passed: false,
        };
        Self {
            slots: graph.indexes().map(slot).collect(),
            phase: Phase::Preparing(graph.len()),
            in_flight: 0,
            running: 0,
            running_max: running_max.max(1),
            ready: BTreeSet::new(),
            mixed: false,
            only_plans: false,
            commands: Vec::new(),
            graph,
        }
    }

    /// Has the solve end when all definition keys are looked up: nothing runs but the reading of
    /// local folders, and [`Self::expected`] says what is known.
    #[must_use]
    pub fn only_planning(mut self) -> Self {
        self.only_plans = true;
        self
    }

    /// Returns the result key that a vertex will be found under, if it is certain to be found.
    pub fn expected(&self, vertex: VertexIx) -> Option<CacheKey> {
        match self.slots[vertex.index()].outlook {
            Outlook::Record(key) => Some(key),
            Outlook::Key(_) | Outlook::Unknown | Outlook::Stale => None,
        }
    }

    /// Says whether the user wants a vertex to run.
    pub fn ignores_cache(&self, vertex: VertexIx) -> bool {
        self.slots[vertex.index()].ignores_cache
    }

    /// Takes an event and returns what to do, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Start => {
                for index in self.graph.indexes() {
                    self.operation(Command::Map(index));
                }
            }
            Event::Cancelled => self.stop(End::Cancelled),
            answer => {
                self.in_flight -= 1;
                self.answer(answer);
            }
        }
        self.start_ready();
        self.finish();
        std::mem::take(&mut self.commands)
    }

    /// Returns the state of a vertex.
    pub fn state(&self, vertex: VertexIx) -> VertexState {
        self.slots[vertex.index()].state
    }

    /// Returns the definition key of a vertex, once known.
    pub fn definition(&self, vertex: VertexIx) -> Option<CacheKey> {
        self.slots[vertex.index()].definition
    }

    /// Returns the result key of a vertex, once it is solved.
    pub fn result_key(&self, vertex: VertexIx) -> Option<CacheKey> {
        self.slots[vertex.index()].result
    }

    /// Returns the result keys of the used outputs of a solved vertex's inputs, for its record.
    pub fn made_from(&self, vertex: VertexIx) -> Vec<Option<CacheKey>> {
        let key_of = |edge: &Edge| {
            let result = self.slots[edge.vertex.index()].result;
            result.map(|key| key.output(edge.output))
        };
        self.graph.inputs(vertex).iter().map(key_of).collect()
    }

    /// Returns what of each input enters the content key of a vertex whose inputs are solved.
    pub fn input_parts(&self, vertex: VertexIx) -> Vec<InputPart> {
        let slot = &self.slots[vertex.index()];
        let inputs = self.graph.inputs(vertex).iter().zip(&slot.contents);
        inputs
            .map(|(edge, content)| match content {
                Some(hash) => InputPart::Content(*hash),
                None => {
                    let key = self.slots[edge.vertex.index()].result;
                    let key =
                        key.expect("the inputs of a vertex are solved before its key is made");
                    InputPart::Key(key.output(edge.output))
                }
            })
            .collect()
    }

    fn answer(&mut self, event: Event) {
        if self.ends_running(&event) {
            self.running -= 1;
        }
        if !self.goes_on() {
            return;
        }
        match event {
            Event::Start | Event::Cancelled => {}
            Event::Failed(vertex) => {
                self.advance(vertex, VertexState::Failed);
                self.stop(End::Failed(vertex));
            }
            Event::Mapped(vertex, keys) => self.mapped(vertex, keys),
            Event::Digested(user, input, hash) => self.digested(user, input, hash),
            Event::LookedUp(found) => self.looked_up(found),
            Event::Asked(vertex, found) => self.asked(vertex, found),
            Event::Loaded(vertex, true) => self.loaded(vertex),
            Event::Loaded(vertex, false) => self.gone(vertex),
            Event::Executed(vertex, key, kept) => self.executed(vertex, key, kept),
            Event::Appeared(vertex, key) => self.known(vertex, key),
            Event::Busy(vertex) => {
                self.advance(vertex, VertexState::Blocked);
                let key = self.content_key(vertex);
                self.operation(Command::Wait(vertex, key));
            }
            Event::Freed(vertex) => self.ask(vertex),
        }
    }

    fn ends_running(&self, event: &Event) -> bool {
        match event {
            Event::Executed(..) | Event::Appeared(..) | Event::Busy(_) => true,
            Event::Failed(vertex) => self.state(*vertex) == VertexState::Running,
            _ => false,
        }
    }

    fn start_ready(&mut self) {
        while self.running < self.running_max && self.goes_on() {
            let Some(vertex) = self.ready.pop_first() else {
                return;
            };
            self.advance(vertex, VertexState::Running);
            self.running += 1;
            let plan = self.exec_plan(vertex);
            self.operation(Command::Exec(vertex, plan));
        }
    }

    fn stop(&mut self, end: End) {
        if self.goes_on() {
            self.phase = Phase::Stopping(end);
            self.commands.push(Command::CancelRunning);
        }
    }

    fn goes_on(&self) -> bool {
        !matches!(self.phase, Phase::Stopping(_) | Phase::Finished)
    }

    /// Ends the solve when nothing is in flight any more.
    fn finish(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        let end = match self.phase {
            Phase::Stopping(end) => end,
            Phase::Preparing(0) => End::Done, // nothing to solve
            Phase::Solving if self.only_plans => End::Planned,
            Phase::Solving => {
                for result in self.graph.results().iter().flatten() {
                    let state = self.state(result.vertex);
                    assert!(
                        state == VertexState::Done,
                        "nothing is in flight and a result is {state:?}"
                    );
                }
                self.report_the_rest();
                if self.is_mixed() {
                    End::Mixed
                } else {
                    End::Done
                }
            }
            Phase::Preparing(_) | Phase::LookingUp | Phase::Finished => return,
        };
        self.phase = Phase::Finished;
        self.commands.push(Command::Finish(end));
    }

    /// Notes the result key of a solved vertex.
    fn set_result(&mut self, vertex: VertexIx, key: CacheKey) {
        let slot = &mut self.slots[vertex.index()];
        self.mixed |= slot.result.is_some_and(|older| older != key);
        slot.result = Some(key);
    }

    /// Tells whether something was found that was made from something else than is there now.
    fn is_mixed(&self) -> bool {
        let outdated = |vertex: VertexIx| {
            let slot = &self.slots[vertex.index()];
            let inputs = self.graph.inputs(vertex).iter().zip(&slot.made_from);
            let mut changed = inputs.filter_map(|(edge, then)| {
                let now = self.slots[edge.vertex.index()].result?.output(edge.output);
                Some(now != (*then)?)
            });
            slot.result.is_some() && changed.any(|changed| changed)
        };
        self.mixed || self.graph.indexes().any(outdated)
    }

    /// Returns what a vertex's keys are made from; called only once everything is mapped.
    fn keys(&self, vertex: VertexIx) -> &VertexKeys {
        let keys = self.slots[vertex.index()].keys.as_ref();
        keys.expect("a vertex is mapped before its keys are made")
    }

    fn slot(&mut self, vertex: VertexIx) -> &mut Slot {
        &mut self.slots[vertex.index()]
    }

    /// Issues a command that will be answered.
    fn operation(&mut self, command: Command) {
        self.in_flight += 1;
        self.commands.push(command);
    }

    /// Changes the state of a vertex and what that means for its inputs.
    fn advance(&mut self, vertex: VertexIx, next: VertexState) {
        let needed = self.state(vertex).needs_inputs();
        self.slot(vertex).state.advance(next);
        if needed == next.needs_inputs() {
            return;
        }
        let graph = Arc::clone(&self.graph);
        for edge in graph.inputs(vertex) {
            let input = self.slot(edge.vertex);
            if needed {
                input.interest -= 1;
                self.release_if_idle(edge.vertex);
            } else {
                input.interest += 1;
            }
        }
    }

    /// Lets go of outputs that nobody needs now: a stack of ten thousand layers is heavy.
    fn release_if_idle(&mut self, vertex: VertexIx) {
        let is_result = self.graph.is_result(vertex);
        let slot = &self.slots[vertex.index()];
        if slot.state == VertexState::Done && slot.kept && slot.interest == 0 && !is_result {
            self.slot(vertex).want = Want::Key;
            self.advance(vertex, VertexState::Known);
            self.commands.push(Command::Release(vertex));
        }
    }
}
