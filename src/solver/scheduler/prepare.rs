//! The first two parts of a solve: until every definition key is known and looked up.

use super::{Outlook, Phase, Scheduler, Want};
use crate::cache::{CacheKey, ContentHash, InputPart};
use crate::solver::command::{Command, KnownRecord, VertexKeys};
use crate::solver::edge::VertexState;
use crate::solver::graph::VertexIx;
use crate::solver::worker::InputKey;

impl Scheduler {
    pub(super) fn mapped(&mut self, vertex: VertexIx, keys: VertexKeys) {
        let own_key = keys.own_key;
        self.slot(vertex).keys = Some(keys);
        if own_key {
            self.advance(vertex, VertexState::Idle);
        } else {
            self.slot(vertex).reported = true;
            self.advance(vertex, VertexState::Ready);
            self.ready.insert(vertex);
            self.prepare_more(1);
        }
        self.prepared();
    }

    pub(super) fn local_executed(&mut self, vertex: VertexIx) {
        for (user, input) in self.graph.users(vertex) {
            self.prepare_more(1);
            self.operation(Command::Digest(user, input));
        }
        self.prepared();
    }

    pub(super) fn digested(&mut self, user: VertexIx, input: usize, hash: ContentHash) {
        self.slot(user).contents[input] = Some(hash);
        match self.state(user) {
            VertexState::Digesting(missing) => {
                self.advance(user, VertexState::Digesting(missing - 1));
                if missing == 1 {
                    self.make_content_key(user);
                }
            }
            _ => self.prepared(),
        }
    }

    pub(super) fn prepare_more(&mut self, count: usize) {
        if let Phase::Preparing(missing) = &mut self.phase {
            *missing += count;
        }
    }

    /// One preparation is done; after the last one all definition keys can be made.
    pub(super) fn prepared(&mut self) {
        let Phase::Preparing(missing) = &mut self.phase else {
            return;
        };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let mut lookups = Vec::new();
        for vertex in self.graph.indexes() {
            if let Some(key) = self.definition_key(vertex) {
                let slot = self.slot(vertex);
                slot.definition = Some(key);
                if !slot.ignores_cache {
                    lookups.push((vertex, key));
                }
            }
        }
        self.phase = Phase::LookingUp;
        if lookups.is_empty() {
            self.looked_up(Vec::new());
        } else {
            self.operation(Command::LookUp(lookups));
        }
    }

    pub(super) fn definition_key(&self, vertex: VertexIx) -> Option<CacheKey> {
        let slot = &self.slots[vertex.index()];
        let keys = self.keys(vertex);
        if !keys.own_key {
            return None;
        }
        let parts: Option<Vec<InputPart>> = self
            .graph
            .inputs(vertex)
            .iter()
            .zip(&slot.contents)
            .enumerate()
            .map(|(input, (edge, content))| {
                if let Some(hash) = content {
                    return Some(InputPart::Content(*hash));
                }
                let key = self.slots[edge.vertex.index()].definition?;
                let key = key.output(edge.output);
                Some(InputPart::Key(match keys.inputs.get(input) {
                    Some(InputKey::ByContent(selector)) => key.selected(selector),
                    _ => key,
                }))
            })
            .collect();
        Some(CacheKey::definition(&keys.digest, &parts?))
    }

    pub(super) fn looked_up(&mut self, found: Vec<(VertexIx, KnownRecord)>) {
        if self.phase != Phase::LookingUp {
            return;
        }
        self.phase = Phase::Solving;
        let mut records: Vec<Option<KnownRecord>> = self.slots.iter().map(|_| None).collect();
        for (vertex, record) in found {
            records[vertex.index()] = Some(record);
        }
        for vertex in self.graph.indexes() {
            let record = records[vertex.index()].take();
            let outlook = self.outlook(vertex, record.as_ref());
            let slot = self.slot(vertex);
            slot.outlook = outlook;
            if let (Outlook::Record(_), Some(record)) = (outlook, record) {
                slot.made_from = record.made_from;
            }
        }
        if self.only_plans {
            return;
        }
        let results = self.graph.results().iter().flatten();
        let wanted = results.map(|result| (result.vertex, Want::Result));
        let awaited = self.graph.awaited().iter();
        let awaited = awaited.map(|vertex| (*vertex, Want::Key));
        self.demand(wanted.chain(awaited).collect());
    }

    pub(super) fn outlook(&self, vertex: VertexIx, record: Option<&KnownRecord>) -> Outlook {
        let slot = &self.slots[vertex.index()];
        let keys = self.keys(vertex);
        if !keys.own_key {
            return Outlook::Unknown;
        }
        if slot.ignores_cache || record.is_some_and(|record| record.too_old) {
            return Outlook::Stale;
        }
        let inputs = self.graph.inputs(vertex);
        let outlooks = inputs.iter().map(|edge| {
            let input = &self.slots[edge.vertex.index()];
            match input.outlook {
                Outlook::Record(key) | Outlook::Key(key) => Ok(Some(key.output(edge.output))),
                Outlook::Unknown => Ok(None),
                Outlook::Stale => Err(Outlook::Stale),
            }
        });
        let Ok(current) = outlooks.collect::<Result<Vec<Option<CacheKey>>, Outlook>>() else {
            return Outlook::Stale;
        };
        if let Some(record) = record {
            let as_before = current.len() == record.made_from.len()
                && current
                    .iter()
                    .zip(&record.made_from)
                    .all(|pair| match pair {
                        (Some(now), Some(then)) => now == then,
                        _ => true,
                    });
            return if as_before {
                Outlook::Record(record.id)
            } else {
                Outlook::Stale
            };
        }
        let parts = current.iter().zip(&slot.contents).enumerate();
        let parts: Option<Vec<InputPart>> = parts
            .map(
                |(input, (key, content))| match (content, keys.inputs.get(input)) {
                    (Some(hash), _) => Some(InputPart::Content(*hash)),
                    (None, Some(InputKey::ByContent(_))) => None,
                    (None, _) => key.map(InputPart::Key),
                },
            )
            .collect();
        parts.map_or(Outlook::Unknown, |parts| {
            Outlook::Key(CacheKey::content(&keys.digest, &parts))
        })
    }
}
