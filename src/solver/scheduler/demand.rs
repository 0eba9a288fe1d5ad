//! The third part of a solve: demand goes down, results come up.

use std::sync::Arc;

use super::{Outlook, REFUSALS_MAX, Scheduler, Want};
use crate::cache::CacheKey;
use crate::solver::command::{Command, ExecPlan, Place, Verdict};
use crate::solver::edge::VertexState;
use crate::solver::graph::VertexIx;
use crate::solver::worker::InputKey;

impl Scheduler {
    /// Asks for vertices, and for what they need, without recursion: graphs may be deep.
    pub(super) fn demand(&mut self, mut open: Vec<(VertexIx, Want)>) {
        while let Some((vertex, want)) = open.pop() {
            let slot = self.slot(vertex);
            slot.want = slot.want.max(want);
            match (slot.state, slot.outlook) {
                (VertexState::Idle, Outlook::Record(key)) => self.known(vertex, key),
                (VertexState::Idle, _) => self.await_keys(vertex, &mut open),
                (VertexState::Known, _) if want >= Want::Result => self.load(vertex),
                (VertexState::Done, _) if !self.has(vertex, want) => self.load(vertex),
                _ => {}
            }
        }
    }

    /// What `user` must have of its input before its content key can be made.
    pub(super) fn want_for_key(&self, user: VertexIx, input: usize) -> Want {
        let how = self.keys(user).inputs.get(input);
        match (self.slots[user.index()].contents[input], how) {
            (None, Some(InputKey::ByContent(_))) => Want::Outputs,
            _ => Want::Key,
        }
    }

    pub(super) fn has(&self, vertex: VertexIx, want: Want) -> bool {
        let slot = &self.slots[vertex.index()];
        match want {
            Want::Nothing => true,
            Want::Key => slot.result.is_some() || slot.state == VertexState::Done,
            Want::Result => slot.state == VertexState::Done,
            Want::Outputs => slot.state == VertexState::Done && !slot.elsewhere,
        }
    }

    pub(super) fn await_keys(&mut self, vertex: VertexIx, open: &mut Vec<(VertexIx, Want)>) {
        let missing = self.await_inputs(vertex, open, Self::want_for_key);
        self.advance(vertex, VertexState::AwaitKeys(missing));
        if missing == 0 {
            self.keys_here(vertex);
        }
    }

    /// Registers `user` with the inputs that it has to wait for and returns how many they are.
    pub(super) fn await_inputs(
        &mut self,
        user: VertexIx,
        open: &mut Vec<(VertexIx, Want)>,
        want_for: impl Fn(&Self, VertexIx, usize) -> Want,
    ) -> usize {
        let graph = Arc::clone(&self.graph);
        let mut missing = 0;
        for (number, edge) in graph.inputs(user).iter().enumerate() {
            let want = want_for(self, user, number);
            if self.has(edge.vertex, want) {
                continue;
            }
            missing += 1;
            let input = self.slot(edge.vertex);
            if want == Want::Outputs {
                input.output_waiters.push(user);
            } else {
                input.key_waiters.push(user);
            }
            open.push((edge.vertex, want));
        }
        missing
    }

    /// One of the inputs that `user` waits for is there.
    pub(super) fn input_here(&mut self, user: VertexIx) {
        match self.state(user) {
            VertexState::AwaitKeys(missing) => {
                self.advance(user, VertexState::AwaitKeys(missing - 1));
                if missing == 1 {
                    self.keys_here(user);
                }
            }
            VertexState::AwaitOutputs(missing) => {
                self.advance(user, VertexState::AwaitOutputs(missing - 1));
                if missing == 1 {
                    self.outputs_here(user);
                }
            }
            _ => {}
        }
    }

    /// The inputs of a vertex are solved: digest what counts by content.
    pub(super) fn keys_here(&mut self, vertex: VertexIx) {
        let count = self.graph.inputs(vertex).len();
        let by_content =
            (0..count).filter(|input| self.want_for_key(vertex, *input) == Want::Outputs);
        let by_content: Vec<usize> = by_content.collect();
        if by_content.is_empty() {
            self.make_content_key(vertex);
        } else {
            self.advance(vertex, VertexState::Digesting(by_content.len()));
            for input in by_content {
                self.operation(Command::Digest(vertex, input));
            }
        }
    }

    pub(super) fn content_key(&self, vertex: VertexIx) -> CacheKey {
        CacheKey::content(&self.keys(vertex).digest, &self.input_parts(vertex))
    }

    /// Everything that the content key is made from is known: ask the cache, or run.
    pub(super) fn make_content_key(&mut self, vertex: VertexIx) {
        let slot = &self.slots[vertex.index()];
        if slot.ignores_cache || slot.refusals >= REFUSALS_MAX {
            self.await_outputs(vertex);
        } else {
            self.ask(vertex);
        }
    }

    pub(super) fn ask(&mut self, vertex: VertexIx) {
        let key = self.content_key(vertex);
        self.advance(vertex, VertexState::Asking);
        self.operation(Command::Ask(vertex, key));
    }

    pub(super) fn asked(&mut self, vertex: VertexIx, found: Option<CacheKey>) {
        match found {
            Some(key) => {
                self.commands.push(Command::Alias(vertex));
                self.known(vertex, key);
            }
            None => self.await_outputs(vertex),
        }
    }

    /// The cache has the result of a vertex.
    pub(super) fn known(&mut self, vertex: VertexIx, key: CacheKey) {
        self.advance(vertex, VertexState::Known);
        self.set_result(vertex, key);
        let slot = self.slot(vertex);
        slot.kept = true;
        let want = slot.want;
        self.report(vertex, Verdict::Hit);
        self.tell_key_waiters(vertex);
        if want >= Want::Result && self.state(vertex) == VertexState::Known {
            self.load(vertex);
        }
    }

    pub(super) fn load(&mut self, vertex: VertexIx) {
        self.advance(vertex, VertexState::Loading);
        self.load_as_wanted(vertex);
    }

    fn load_as_wanted(&mut self, vertex: VertexIx) {
        let slot = self.slot(vertex);
        slot.elsewhere = slot.want < Want::Outputs;
        let place = match slot.elsewhere {
            true => Place::Anywhere,
            false => Place::Here,
        };
        self.operation(Command::Load(vertex, place));
    }

    /// The outputs of a vertex are loaded, maybe for less than is wanted by now.
    pub(super) fn loaded(&mut self, vertex: VertexIx) {
        let slot = &self.slots[vertex.index()];
        if slot.elsewhere && slot.want == Want::Outputs {
            self.load_as_wanted(vertex);
        } else {
            self.done(vertex, true);
        }
    }

    /// The result of a vertex cannot be loaded: solve it anew.
    pub(super) fn gone(&mut self, vertex: VertexIx) {
        self.commands.push(Command::Forget(vertex));
        let graph = Arc::clone(&self.graph);
        let slot = self.slot(vertex);
        slot.refusals += 1;
        slot.kept = false;
        slot.elsewhere = false;
        slot.made_from.clear();
        // Inputs that were let go of may be gone too and come back with other contents. Only
        // those of local sources, which have no result key, stay what they were.
        for (input, edge) in graph.inputs(vertex).iter().enumerate() {
            if self.slots[edge.vertex.index()].result.is_some() {
                self.slot(vertex).contents[input] = None;
            }
        }
        let mut open = Vec::new();
        self.await_keys(vertex, &mut open);
        self.demand(open);
    }

    /// A vertex has to run: get the outputs of its inputs.
    pub(super) fn await_outputs(&mut self, vertex: VertexIx) {
        let mut open = Vec::new();
        let missing = self.await_inputs(vertex, &mut open, |_, _, _| Want::Outputs)
            + self.await_earlier(vertex, &mut open);
        self.advance(vertex, VertexState::AwaitOutputs(missing));
        if missing == 0 {
            self.outputs_here(vertex);
        }
        self.demand(open);
    }

    /// Registers `user` with the vertices that are solved before it runs, although it uses
    /// nothing of them, and returns how many are missing.
    fn await_earlier(&mut self, user: VertexIx, open: &mut Vec<(VertexIx, Want)>) -> usize {
        let graph = Arc::clone(&self.graph);
        let mut missing = 0;
        for earlier in graph.after(user) {
            if !self.has(*earlier, Want::Key) {
                missing += 1;
                self.slot(*earlier).key_waiters.push(user);
                open.push((*earlier, Want::Key));
            }
        }
        missing
    }

    pub(super) fn outputs_here(&mut self, vertex: VertexIx) {
        self.advance(vertex, VertexState::Ready);
        self.ready.insert(vertex);
    }

    pub(super) fn exec_plan(&self, vertex: VertexIx) -> ExecPlan {
        if !self.keys(vertex).own_key {
            ExecPlan::Local
        } else if self.slots[vertex.index()].ignores_cache {
            ExecPlan::Fresh(self.content_key(vertex))
        } else {
            ExecPlan::Cached(self.content_key(vertex))
        }
    }

    pub(super) fn executed(&mut self, vertex: VertexIx, key: CacheKey, kept: bool) {
        self.slot(vertex).reported = true;
        if self.keys(vertex).own_key {
            self.set_result(vertex, key);
            self.done(vertex, kept);
        } else {
            self.done(vertex, false);
            self.local_executed(vertex);
        }
    }

    /// The outputs of a vertex are here.
    pub(super) fn done(&mut self, vertex: VertexIx, kept: bool) {
        self.advance(vertex, VertexState::Done);
        self.slot(vertex).kept = kept;
        self.tell_key_waiters(vertex);
        for user in std::mem::take(&mut self.slot(vertex).output_waiters) {
            self.input_here(user);
        }
        self.pass_hits_on(vertex);
        self.release_if_idle(vertex);
    }

    pub(super) fn tell_key_waiters(&mut self, vertex: VertexIx) {
        for user in std::mem::take(&mut self.slot(vertex).key_waiters) {
            self.input_here(user);
        }
    }
}
