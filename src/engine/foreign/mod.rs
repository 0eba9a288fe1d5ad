//! Frontends that are programs in images: run, served and asked.
//!
//! Read in order: this file (when one is asked, and what), `options` (what it is told) with `stages`, `lent`
//! (the Dockerfile as it sees it), `run` (its container), `bridge` (what its calls do), `forward`
//! (handing work to another frontend), `container` (containers that it makes) with `remains` (of failed steps), `answer` (what it
//! returns becomes what our own frontend would have made) with `attested`, `errors`.

mod answer;
mod attested;
mod bridge;
mod container;
mod errors;
mod forward;
pub(super) mod lent;
mod options;
mod remains;
mod run;
mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::Build;
use super::error::{EngineError, ErrorKind};
use super::platforms::Targets;
use crate::frontend::Lowered;
use crate::frontend::diagnostic::{Diagnostic, Source, Span};
use crate::frontend::syntax::{self, Foreign};
use crate::solver::error::chain;
pub(super) use attested::Saying;
use run::FrontendRun;

/// Option that asks a question instead of a build.
const QUESTION: &str = "requestid";
/// Parts of the answer to a question.
const ANSWER_TEXT: &str = "result.txt";
const ANSWER_JSON: &str = "result.json";
const ANSWER_STATUS: &str = "result.statuscode";

/// What a frontend from an image answers to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignAnswer {
    /// For people.
    pub text: String,
    /// For machines.
    pub json: String,
    /// What a program that shows it exits with.
    pub status: i32,
}

impl Build {
    /// Finds the frontend that the build needs, unless it is the built-in one, and checks that it
    /// may be used. Looks once.
    pub(super) fn foreign_frontend(&self) -> Result<Option<&Foreign>, EngineError> {
        if let Some(found) = self.foreign.get() {
            return Ok(found.as_ref());
        }
        if self.inputs.definition.is_some() {
            return Ok(None);
        }
        let rules = &self.engine.frontend_rules()?;
        let options = super::options::frontend_options(&self.request, &self.inputs)?;
        let foreign = syntax::foreign(&self.inputs.text, &options);
        match &foreign {
            Some(foreign) => rules.refuse_image(&foreign.image),
            None => rules.refuse_dockerfile(),
        }
        .map_err(|reason| {
            let span = foreign.as_ref().and_then(|foreign| foreign.span);
            self.shown_at(span, EngineError::new(ErrorKind::Config, reason))
        })?;
        Ok(self.foreign.get_or_init(|| foreign).as_ref())
    }

    /// Draws what is wrong with a frontend where the Dockerfile asks for it.
    fn shown_at(&self, span: Option<Span>, error: EngineError) -> EngineError {
        let Some(span) = span else {
            return error;
        };
        let source = Source::new(&self.inputs.filename, &self.inputs.text);
        let drawn = Diagnostic::error(span, chain(&error)).render(&source);
        error.with_diagnostic(drawn)
    }

    /// Has a frontend from an image translate.
    pub(super) async fn ask_frontend(
        self: &Arc<Self>,
        foreign: Foreign,
    ) -> Result<(Targets, Vec<Lowered>), EngineError> {
        let mut options = self.frontend_opts(&foreign, None);
        let inputs = self.stages(&foreign, &mut options).await?;
        let run = FrontendRun::first(&foreign, options, inputs);
        let mut answer = self.run_frontend(run).await?;
        let said = std::mem::take(&mut answer.attestations);
        let read = self.lowered_of(answer)?;
        let said = self.read_attested(said, &read.platforms).await?;
        // There is one translation in the life of a build.
        let _ = self.said_by_frontend.set(said);
        Ok((read.targets, read.lowered))
    }

    /// Asks a frontend from an image a question.
    pub(super) async fn question_frontend(
        self: &Arc<Self>,
        foreign: Foreign,
        question: &str,
    ) -> Result<ForeignAnswer, EngineError> {
        let options = self.frontend_opts(&foreign, Some(question));
        let run = FrontendRun::first(&foreign, options, BTreeMap::new());
        let mut answer = self.run_frontend(run).await?;
        let mut text = |key: &str| {
            let bytes = answer.metadata.remove(key);
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (shown, json) = (text(ANSWER_TEXT), text(ANSWER_JSON));
        let status = text(ANSWER_STATUS).and_then(|status| status.parse().ok());
        if shown.is_none() && json.is_none() {
            let name = &foreign.image;
            let text = format!("the frontend {name} does not answer {question}");
            return Err(EngineError::new(ErrorKind::User, text));
        }
        Ok(ForeignAnswer {
            text: shown.unwrap_or_default(),
            json: json.unwrap_or_default(),
            status: status.unwrap_or(0),
        })
    }
}
