//! An ordered list of variables.

use std::borrow::Cow;
use std::sync::Arc;

use super::expand::Variables;
use crate::llb::state::Variable;

/// Variables in the order of their last setting, as a process gets them.
///
/// Stages and processes share a list as long as nobody changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Environment(Arc<Vec<Variable>>);

impl Environment {
    /// Sets a variable; one that was set before moves to the end.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let variables = Arc::make_mut(&mut self.0);
        variables.retain(|known| known.name() != name);
        variables.push(Variable::new(name, value));
    }

    /// Takes a variable out.
    pub(super) fn remove(&mut self, name: &str) {
        Arc::make_mut(&mut self.0).retain(|known| known.name() != name);
    }

    /// Returns the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|known| known.name() == name);
        found.map(Variable::value)
    }

    /// Returns the names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Variable::name)
    }

    /// Returns all variables, in order, to be shared.
    pub(super) fn shared(&self) -> Arc<Vec<Variable>> {
        Arc::clone(&self.0)
    }
}

impl Variables for Environment {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(Cow::Borrowed)
    }
}
