//! The actions of a file op, in the order they need, and the layers they make.
//!
//! An action names what it changes and what it reads by index: first the inputs of the op, then
//! the results of its actions. A result that exactly one other action changes further is never
//! committed: a chain of actions makes one layer. Everything that is an output of the op, or
//! used twice, is a layer of its own on top of the stack it was made from.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use tokio_util::sync::CancellationToken;

use super::earlier::Earlier;
use super::target::Target;
use super::{FileOpError, Step, key, owner};
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;
use crate::session::tree::{Origin, Tree};
use crate::snapshot::{Active, LayerId, LayerInfo, Snapshotter, View};
use crate::sys::root::Root;

/// Most actions one op may have.
pub const ACTIONS_MAX: usize = 100_000;

/// What a file op is given.
#[derive(Debug, Clone)]
pub enum FileInput {
    /// A folder of the user, walked.
    Tree(Arc<Tree>),
    /// The state of a file system: layers, lowest first.
    Stack(Vec<LayerId>),
}

/// With what a file op is performed.
#[derive(Debug)]
pub struct FileOpContext<'a> {
    /// Keeps the layers.
    pub snapshotter: &'a Snapshotter,
    /// Folder of the notes that spare a copy from writing again what its last run wrote.
    pub copies: Option<&'a Path>,
    /// When the new layers are said to be made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Stops the work.
    pub cancel: &'a CancellationToken,
    /// Takes what is left of an action that fails, where somebody wants that.
    pub failed: Option<&'a Mutex<FailedAction>>,
}

/// An action that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedAction {
    /// Which one it was.
    pub index: Option<usize>,
    /// What it had made of the file system that it changes.
    pub stack: Option<Vec<LayerId>>,
}

/// What a file op made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Performed {
    /// The stack of each output.
    pub outputs: Vec<Vec<LayerId>>,
    /// What the user should hear of although nothing failed.
    pub warnings: Vec<String>,
}

/// Performs an op.
pub fn perform(
    op: &pb::FileOp,
    inputs: &[FileInput],
    context: &FileOpContext<'_>,
) -> Result<Performed, FileOpError> {
    let plan = Plan::new(op, inputs.len())?;
    let mut run = Run {
        op,
        inputs,
        context,
        plan: &plan,
        results: op.actions.iter().map(|_| None).collect(),
        warnings: Vec::new(),
    };
    for index in &plan.order {
        if let Err(error) = run.perform(*index) {
            run.failed(|failed| failed.index = Some(*index));
            return Err(error);
        }
    }
    let mut outputs = Vec::new();
    for action in &plan.outputs {
        match &run.results[*action] {
            Some(Made::Layer(stack)) => outputs.push(stack.clone()),
            // Outputs are committed as soon as they are made.
            _ => return Err(invalid("an output was not made")),
        }
    }
    Ok(Performed {
        outputs,
        warnings: run.warnings,
    })
}

/// What an index of an action refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nothing,
    Input(usize),
    Action(usize),
}

/// The actions that matter, and what becomes of them.
#[derive(Debug)]
struct Plan {
    input_count: usize,
    /// The action that makes each output.
    outputs: Vec<usize>,
    /// The actions that outputs need, each after what it needs.
    order: Vec<usize>,
    /// Actions whose results must be layers.
    committed: Vec<bool>,
}

impl Plan {
    fn new(op: &pb::FileOp, input_count: usize) -> Result<Self, FileOpError> {
        if op.actions.len() > ACTIONS_MAX {
            return Err(invalid(format!("more than {ACTIONS_MAX} actions")));
        }
        let mut plan = Self {
            input_count,
            outputs: outputs(op)?,
            order: Vec::new(),
            committed: vec![false; op.actions.len()],
        };
        let mut uses = vec![0_usize; op.actions.len()];
        for output in &plan.outputs {
            plan.committed[*output] = true;
        }
        for action in &op.actions {
            let changed = plan.place(action.input, op)?;
            for place in plan.needs(action, op)? {
                if let Place::Action(index) = place {
                    uses[index] += 1;
                    // What is only read must stay as it is for its reader.
                    plan.committed[index] |= place != changed || uses[index] > 1;
                }
            }
        }
        plan.sort(op)?;
        Ok(plan)
    }

    /// Puts what the outputs need in order; an action that needs itself is an error.
    fn sort(&mut self, op: &pb::FileOp) -> Result<(), FileOpError> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Entered,
            Done,
        }
        let mut marks = vec![Mark::New; op.actions.len()];
        let mut pending: Vec<usize> = self.outputs.iter().rev().copied().collect();
        while let Some(index) = pending.last().copied() {
            match marks[index] {
                Mark::Done => drop(pending.pop()),
                Mark::Entered => {
                    marks[index] = Mark::Done;
                    self.order.push(index);
                    pending.pop();
                }
                Mark::New => {
                    marks[index] = Mark::Entered;
                    for place in self.needs(&op.actions[index], op)? {
                        match place {
                            Place::Action(needed) if marks[needed] == Mark::Entered => {
                                return Err(invalid(format!("action {needed} needs itself")));
                            }
                            Place::Action(needed) => pending.push(needed),
                            Place::Input(_) | Place::Nothing => {}
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists what an action refers to, what it changes first.
    fn needs(&self, action: &pb::FileAction, op: &pb::FileOp) -> Result<Vec<Place>, FileOpError> {
        let mut indices = vec![action.input, action.secondary_input];
        if let Some(owner) = key::owner(action) {
            for user in [&owner.user, &owner.group].into_iter().flatten() {
                // Accounts of the tree that is changed are read in it.
                if let Some(User::ByName(name)) = &user.user
                    && name.input != action.input
                {
                    indices.push(name.input);
                }
            }
        }
        indices
            .into_iter()
            .map(|index| self.place(index, op))
            .collect()
    }

    fn place(&self, index: i64, op: &pb::FileOp) -> Result<Place, FileOpError> {
        if index == -1 {
            return Ok(Place::Nothing);
        }
        let index = usize::try_from(index).map_err(|_| invalid(format!("index {index}")))?;
        match index.checked_sub(self.input_count) {
            None => Ok(Place::Input(index)),
            Some(action) if action < op.actions.len() => Ok(Place::Action(action)),
            Some(_) => Err(invalid(format!("index {index}"))),
        }
    }
}

/// What an action made.
#[derive(Debug)]
enum Made {
    /// A layer, with the stack it ends.
    Layer(Vec<LayerId>),
    /// A tree that the next action changes further.
    Open(Box<Open>),
}

/// A tree that is being changed, and the stack it began from.
#[derive(Debug)]
struct Open {
    active: Active,
    below: Vec<LayerId>,
    target: Target,
    view: PathBuf,
}

/// Something to read from; holds the view for as long.
#[derive(Debug)]
struct Readable {
    origin: Origin,
    _view: Option<View>,
}

/// A file system whose accounts are asked; closed before its view goes.
struct Accounts {
    root: Root,
    _readable: Option<Readable>,
}

struct Run<'a> {
    op: &'a pb::FileOp,
    inputs: &'a [FileInput],
    context: &'a FileOpContext<'a>,
    plan: &'a Plan,
    results: Vec<Option<Made>>,
    warnings: Vec<String>,
}

impl Run<'_> {
    fn perform(&mut self, index: usize) -> Result<(), FileOpError> {
        if self.context.cancel.is_cancelled() {
            return Err(FileOpError::Cancelled);
        }
        let description = &self.op.actions[index];
        let Some(action) = &description.action else {
            return Err(invalid(format!("action {index} says nothing")));
        };
        let source = match action {
            Action::Copy(_) => Some(self.readable(description.secondary_input)?),
            _ => None,
        };
        let open = self.changeable(description.input)?;
        let owner = self.owner(description, &open)?;
        let earlier = self.earlier(source.as_ref());
        let step = Step {
            action,
            source: source.as_ref().map(|readable| &readable.origin),
            owner,
            earlier: earlier.as_ref(),
            cancel: self.context.cancel,
        };
        if let Err(error) = super::apply(&step, &open.target, &open.view) {
            if self.context.failed.is_some() {
                // What cannot be kept is not shown: the step has failed anyway.
                let stack = self.commit(open).ok();
                self.failed(|failed| failed.stack = stack);
            }
            return Err(error);
        }
        let made = match self.plan.committed[index] {
            true => Made::Layer(self.commit(open)?),
            false => Made::Open(open),
        };
        if let (Some(earlier), Made::Layer(stack)) = (earlier, &made)
            && let Some(layer) = stack.last()
        {
            earlier.keep(layer);
        }
        self.results[index] = Some(made);
        Ok(())
    }

    /// Notes what is left of an action.
    fn failed(&self, note: impl FnOnce(&mut FailedAction)) {
        if let Some(failed) = self.context.failed {
            note(&mut failed.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Looks up what the last run of this op wrote, for an op that is one copy of a user's folder.
    fn earlier(&self, source: Option<&Readable>) -> Option<Earlier> {
        let ([_], Some(notes), Some(source)) = (&*self.op.actions, self.context.copies, source)
        else {
            return None;
        };
        let Origin::Tree(tree) = &source.origin else {
            return None;
        };
        let op = self.op.encode_to_vec();
        let snapshotter = self.context.snapshotter;
        Some(Earlier::find(notes, snapshotter, &op, tree))
    }

    /// Opens what an action changes.
    fn changeable(&mut self, index: i64) -> Result<Box<Open>, FileOpError> {
        match self.plan.place(index, self.op)? {
            Place::Nothing => self.open(Vec::new()),
            Place::Input(input) => match &self.inputs[input] {
                FileInput::Stack(stack) => self.open(stack.clone()),
                FileInput::Tree(tree) => self.open_copy_of(tree),
            },
            Place::Action(action) => match self.results[action].take() {
                Some(Made::Open(open)) => Ok(open),
                Some(Made::Layer(stack)) => {
                    let open = self.open(stack.clone());
                    self.results[action] = Some(Made::Layer(stack));
                    open
                }
                None => Err(invalid(format!("action {action} was not performed"))),
            },
        }
    }

    fn open(&self, below: Vec<LayerId>) -> Result<Box<Open>, FileOpError> {
        let active = self.context.snapshotter.prepare(&below)?;
        let (view, layer) = (active.mounted()?.to_owned(), active.upper().to_owned());
        let target = match view == layer {
            true => Target::directory(&view),
            false => Target::merged(&view, &layer),
        };
        Ok(Box::new(Open {
            target: target.map_err(FileOpError::io("open", "/"))?,
            active,
            below,
            view,
        }))
    }

    /// Makes a user's folder a file system of its own, for an op that changes it.
    fn open_copy_of(&self, tree: &Arc<Tree>) -> Result<Box<Open>, FileOpError> {
        let open = self.open(Vec::new())?;
        let origin = Origin::Tree(Arc::clone(tree));
        super::fill(&open.target, &origin, self.context.cancel)?;
        Ok(open)
    }

    /// Opens what an action reads.
    fn readable(&self, index: i64) -> Result<Readable, FileOpError> {
        let stack = match self.plan.place(index, self.op)? {
            Place::Nothing => Vec::new(),
            Place::Input(input) => match &self.inputs[input] {
                FileInput::Tree(tree) => {
                    return Ok(Readable {
                        origin: Origin::Tree(tree.clone()),
                        _view: None,
                    });
                }
                FileInput::Stack(stack) => stack.clone(),
            },
            Place::Action(action) => match &self.results[action] {
                Some(Made::Layer(stack)) => stack.clone(),
                // What is read is always committed.
                _ => return Err(invalid(format!("action {action} was not performed"))),
            },
        };
        let view = self.context.snapshotter.view(&stack)?;
        Ok(Readable {
            origin: Origin::Directory(view.path().to_owned()),
            _view: Some(view),
        })
    }

    /// Finds the owner that an action names. One that the image does not know is root, as with
    /// BuildKit, but not without a word.
    fn owner(
        &mut self,
        action: &pb::FileAction,
        open: &Open,
    ) -> Result<Option<(u32, u32)>, FileOpError> {
        let accounts = |named: &pb::NamedUserOpt| match named.input {
            // As with BuildKit; whoever copies onto nothing has to give numbers.
            -1 => Err(invalid(format!(
                "the owner {:?} cannot be looked up without an image: use a number",
                named.name
            ))),
            index if index == action.input => Ok(Accounts {
                root: open.target.view().clone(),
                _readable: None,
            }),
            index => self.accounts(index),
        };
        let mut unknown = Vec::new();
        let Some(wanted) = key::owner(action) else {
            return Ok(None);
        };
        let mut found = (0, 0);
        match wanted.user.as_ref().and_then(|user| user.user.as_ref()) {
            Some(User::ById(id)) => found = (*id, *id),
            Some(User::ByName(name)) => match owner::user(&accounts(name)?.root, &name.name)? {
                Some(user) => found = user,
                None => unknown.push(("user", &name.name)),
            },
            None => {}
        }
        match wanted.group.as_ref().and_then(|group| group.user.as_ref()) {
            Some(User::ById(id)) => found.1 = *id,
            Some(User::ByName(name)) => match owner::group(&accounts(name)?.root, &name.name)? {
                Some(group) => found.1 = group,
                None => unknown.push(("group", &name.name)),
            },
            None => {}
        }
        for (kind, name) in unknown {
            self.warn_unknown(kind, name);
        }
        Ok(Some(found))
    }

    fn warn_unknown(&mut self, kind: &str, name: &str) {
        let warning = format!("the image has no {kind} {name:?}: the files belong to root");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Opens another file system whose accounts are asked.
    fn accounts(&self, index: i64) -> Result<Accounts, FileOpError> {
        let readable = self.readable(index)?;
        let dir = match &readable.origin {
            Origin::Tree(tree) => tree.dir(),
            Origin::Directory(dir) => dir,
        };
        Ok(Accounts {
            root: Root::open(dir).map_err(FileOpError::io("open", "/"))?,
            _readable: Some(readable),
        })
    }

    fn commit(&self, open: Box<Open>) -> Result<Vec<LayerId>, FileOpError> {
        let open = *open;
        // Nothing of the tree may be open when it is unmounted.
        drop(open.target);
        let info = LayerInfo {
            created_ns: self.context.created_ns,
        };
        let layer = open.active.commit(info)?;
        let mut stack = open.below;
        stack.push(layer);
        Ok(stack)
    }
}

/// Finds the action that makes each output: every number from 0 once.
fn outputs(op: &pb::FileOp) -> Result<Vec<usize>, FileOpError> {
    let mut outputs: Vec<(i64, usize)> = Vec::new();
    for (index, action) in op.actions.iter().enumerate() {
        if action.output != -1 {
            outputs.push((action.output, index));
        }
    }
    outputs.sort_unstable();
    for (expected, (output, _)) in (0_i64..).zip(&outputs) {
        if *output != expected {
            let reason = format!("outputs are not numbered from 0, each once: {output}");
            return Err(invalid(reason));
        }
    }
    if outputs.is_empty() {
        return Err(invalid("no outputs"));
    }
    Ok(outputs.into_iter().map(|(_, action)| action).collect())
}

fn invalid(reason: impl Into<String>) -> FileOpError {
    FileOpError::Invalid(reason.into())
}

#[cfg(test)]
mod tests;
