//! What a frontend has names for: results and containers, and what it returned in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tonic::Code;

use super::bridge::{Answer, BridgeError, Container, Handle, Outcome};
use super::limits::Limits;
use crate::llb::Definition;

/// Most results that a frontend may have names for.
const RESULTS_MAX: usize = 100_000;
/// Most containers that a frontend may have at a time.
const CONTAINERS_MAX: usize = 256;

/// A container with the numbers that its processes go by.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The container.
    pub(super) container: Arc<dyn Container>,
    next: u32,
}

/// The names of one frontend.
#[derive(Debug, Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    /// Told when the frontend has returned something.
    returned: Notify,
    /// What its messages lose.
    pub(super) limits: Arc<Limits>,
}

#[derive(Debug, Default)]
struct Inner {
    results: BTreeMap<String, Arc<Definition>>,
    containers: BTreeMap<String, Known>,
    /// Names of containers that are being made.
    promised: BTreeSet<String>,
    answer: Option<Outcome<Answer>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a result a name; the empty one has the empty name.
    pub(super) fn name(&self, handle: &Handle) -> Outcome<String> {
        let Some(definition) = handle else {
            return Ok(String::new());
        };
        let mut inner = self.lock();
        if inner.results.len() >= RESULTS_MAX {
            let text = format!("a frontend may have no more than {RESULTS_MAX} results");
            return Err(BridgeError::new(Code::ResourceExhausted, text));
        }
        let name = format!("result-{}", inner.results.len() + 1);
        inner.results.insert(name.clone(), Arc::clone(definition));
        Ok(name)
    }

    /// Finds a result that may be the empty one.
    pub(super) fn result(&self, name: &str) -> Outcome<Handle> {
        if name.is_empty() {
            return Ok(None);
        }
        match self.lock().results.get(name) {
            Some(definition) => Ok(Some(Arc::clone(definition))),
            None => Err(BridgeError::unknown(format!("no such ref: {name}"))),
        }
    }

    /// Finds a result that somebody wants to look into.
    pub(super) fn existing(&self, name: &str) -> Outcome<Handle> {
        if name.is_empty() {
            return Err(BridgeError::unknown(
                "no such ref: the empty result has no files",
            ));
        }
        self.result(name)
    }

    /// Takes a name for a container that will be made.
    pub(super) fn promise_container(&self, name: &str) -> Outcome<()> {
        let mut inner = self.lock();
        if inner.containers.len() + inner.promised.len() >= CONTAINERS_MAX {
            let text = format!("a frontend may have no more than {CONTAINERS_MAX} containers");
            return Err(BridgeError::new(Code::ResourceExhausted, text));
        }
        if inner.containers.contains_key(name) || !inner.promised.insert(name.to_owned()) {
            let text = format!("container {name} already exists");
            return Err(BridgeError::new(Code::AlreadyExists, text));
        }
        Ok(())
    }

    /// Keeps the container that was made for a name, if one was.
    pub(super) fn keep_container(&self, name: &str, container: Option<Arc<dyn Container>>) {
        let mut inner = self.lock();
        inner.promised.remove(name);
        if let Some(container) = container {
            let known = Known { container, next: 0 };
            inner.containers.insert(name.to_owned(), known);
        }
    }

    /// Finds a container.
    pub(super) fn container(&self, name: &str) -> Outcome<Arc<dyn Container>> {
        let inner = self.lock();
        let known = inner.containers.get(name);
        known
            .map(|known| Arc::clone(&known.container))
            .ok_or_else(|| no_container(name))
    }

    /// Finds a container and the number for its next process; the first is 0.
    pub(super) fn next_process(&self, name: &str) -> Outcome<(Arc<dyn Container>, u32)> {
        let mut inner = self.lock();
        let known = inner.containers.get_mut(name);
        let known = known.ok_or_else(|| no_container(name))?;
        let number = known.next;
        known.next += 1;
        Ok((Arc::clone(&known.container), number))
    }

    /// Forgets a container.
    pub(super) fn take_container(&self, name: &str) -> Outcome<Arc<dyn Container>> {
        let known = self.lock().containers.remove(name);
        known
            .map(|known| known.container)
            .ok_or_else(|| no_container(name))
    }

    /// Forgets all containers.
    pub(super) fn take_containers(&self) -> Vec<Arc<dyn Container>> {
        let containers = std::mem::take(&mut self.lock().containers);
        let known = containers.into_values();
        known.map(|known| known.container).collect()
    }

    /// Keeps what the frontend returned, once.
    pub(super) fn answer(&self, answer: Outcome<Answer>) -> Outcome<()> {
        let mut inner = self.lock();
        if inner.answer.is_some() {
            return Err(BridgeError::unknown("the result is set already"));
        }
        inner.answer = Some(answer);
        self.returned.notify_one();
        Ok(())
    }

    /// Waits until the frontend has returned something.
    pub(super) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Takes what the frontend returned.
    pub(super) fn take_answer(&self) -> Option<Outcome<Answer>> {
        self.lock().answer.take()
    }
}

fn no_container(name: &str) -> BridgeError {
    let text = format!("container {name:?} previously released or not created");
    BridgeError::new(Code::NotFound, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_names() {
        let table = Table::default();
        let handle = Some(Arc::new(Definition::default()));
        let (first, second) = (table.name(&handle).unwrap(), table.name(&handle).unwrap());
        assert_ne!(first, second);
        assert_eq!(table.result(&first).unwrap(), handle);
        assert_eq!(table.name(&None).unwrap(), "");
        assert_eq!(table.result("").unwrap(), None);
        assert!(table.existing("").is_err());
        assert_eq!(table.result("x").unwrap_err().message, "no such ref: x");
    }

    #[test]
    fn a_name_is_taken_while_its_container_is_made() {
        let table = Table::default();
        table.promise_container("c").unwrap();
        let error = table.promise_container("c").unwrap_err();
        assert_eq!(error.code, Code::AlreadyExists);
        table.keep_container("c", None);
        table.promise_container("c").unwrap();
        for number in 1..CONTAINERS_MAX {
            table.promise_container(&number.to_string()).unwrap();
        }
        let error = table.promise_container("one too many").unwrap_err();
        assert_eq!(error.code, Code::ResourceExhausted);
        let error = table.next_process("c").unwrap_err();
        assert_eq!(error.code, Code::NotFound);
    }

    #[test]
    fn there_is_one_answer() {
        let table = Table::default();
        table.answer(Ok(Answer::default())).unwrap();
        assert!(table.answer(Err(BridgeError::invalid("no"))).is_err());
        assert!(table.take_answer().unwrap().is_ok());
    }
}
