//! Questions about a build that are answered without building.
//!
//! The answers are values; [`subrequests`] lists what may be asked, in BuildKit's shape. Base
//! images are looked up where the answer depends on them. `build_context` finds out what is read
//! of folders.

mod build_context;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::build::Build;
use super::error::{EngineError, ErrorKind};
use super::options;
use super::request::BuildRequest;
use crate::frontend::diagnostic::Source;
use crate::frontend::{self, FrontendError, LowerFailure, fix};
use crate::progress::Progress;
use crate::session::Session;
use crate::source::local;

pub use super::foreign::ForeignAnswer;
pub use crate::frontend::diagnostic::Diagnostic;
pub use crate::frontend::fix::Mended;
pub use crate::frontend::subrequest::{CheckResults, columns};
pub use crate::frontend::{CheckReport, LintWarning, Outline, RULES, Rule, Target, TargetList};
pub use build_context::{Amount, ContextReport, FolderReport, IgnoreLine, PathSize};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What do the rules find in the Dockerfile?
    Check,
    /// What can be mended of what the rules find?
    Mend,
    /// What does the build of the target take from the user?
    Outline,
    /// Which stages are there?
    Targets,
    /// What is read of the build contexts?
    Context,
}

impl Question {
    /// Returns what frontends call it; `None` for what only the built-in one is asked.
    fn id(self) -> Option<&'static str> {
        match self {
            Self::Check => Some("frontend.lint"),
            Self::Outline => Some("frontend.outline"),
            Self::Targets => Some("frontend.targets"),
            Self::Mend | Self::Context => None,
        }
    }
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// What the rules found.
    Check(CheckReport),
    /// What the rules found, and the text with what could be mended.
    Mended(CheckReport, Mended),
    /// What the target takes.
    Outline(Outline),
    /// The stages.
    Targets(TargetList),
    /// What is read.
    Context(ContextReport),
    /// What a frontend from an image says.
    Foreign(ForeignAnswer),
}

impl Engine {
    /// Answers a question about a build.
    pub async fn call(
        &self,
        mut request: BuildRequest,
        question: Question,
        session: Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Answer, EngineError> {
        // The answer is about one platform: the first one.
        request.platforms.truncate(1);
        let (progress, cancel) = (progress.clone(), cancel.clone());
        let build = Arc::new(Build::open(self, request, session, progress, cancel).await?);
        tokio::select! {
            answer = build.answer(question) => answer,
            () = build.cancel.cancelled() => Err(EngineError::cancelled()),
        }
    }
}

impl Build {
    async fn answer(self: &Arc<Self>, question: Question) -> Result<Answer, EngineError> {
        if let (Some(foreign), Some(id)) = (self.foreign_frontend()?, question.id()) {
            let answer = self.question_frontend(foreign.clone(), id).await;
            return answer.map(Answer::Foreign);
        }
        let text = &self.inputs.text;
        let options = &options::frontend_options(&self.request, &self.inputs)?;
        let resolver = &self.resolver();
        match question {
            Question::Check => Ok(Answer::Check(
                frontend::check(text, options, resolver).await,
            )),
            Question::Mend => {
                let report = frontend::check(text, options, resolver).await;
                let mended = fix::mend(&report, options, resolver).await;
                Ok(Answer::Mended(report, mended))
            }
            Question::Outline => {
                let outline = frontend::outline(text, options, resolver).await;
                outline
                    .map(Answer::Outline)
                    .map_err(|error| self.failed(error))
            }
            Question::Targets => {
                let list = TargetList::read(text);
                list.map(Answer::Targets)
                    .map_err(|error| self.failed(error))
            }
            Question::Context => {
                let lowered = frontend::lower(text, options, resolver).await;
                let lowered = lowered.map_err(|LowerFailure { error, .. }| self.failed(error))?;
                let folders = build_context::folders(&self.inputs, options);
                let reading = tokio::task::spawn_blocking(move || {
                    build_context::report(folders, &lowered.definition)
                });
                let report = reading.await.map_err(|error| {
                    let text = "the report was not finished";
                    EngineError::new(ErrorKind::Internal, text).with_source(error)
                })?;
                report.map(Answer::Context)
            }
        }
    }

    fn failed(&self, error: FrontendError) -> EngineError {
        let source = Source::new(&self.inputs.filename, &self.inputs.text);
        EngineError::from_frontend(error, &source)
    }
}

/// Draws why the Dockerfile of a report cannot be built, if it cannot.
pub fn build_error(report: CheckReport) -> Option<EngineError> {
    let source = report.source;
    let error = report.build_error?;
    Some(EngineError::from_frontend(error, &source))
}

/// Writes a mended Dockerfile, unless the file is not what was checked any more.
pub fn write_mended(path: &Path, checked: &str, mended: &str) -> Result<(), EngineError> {
    let user = |text: String| EngineError::new(ErrorKind::User, text);
    // To the byte: what was decoded must not be written back.
    if std::fs::read(path).ok().as_deref() != Some(checked.as_bytes()) {
        let text = format!(
            "{} changed while it was checked, or is not UTF-8",
            path.display()
        );
        return Err(user(text).with_hint("check it again"));
    }
    local::replace_text(path, mended).map_err(|error| {
        user(format!("cannot write {}: {error}", path.display())).with_source(error)
    })
}

/// Something that can be asked, as BuildKit's clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subrequest {
    /// Its full name.
    pub name: &'static str,
    /// Version of the answer's form.
    pub version: &'static str,
    /// How it is asked.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Options it takes.
    pub opts: Option<Vec<Named>>,
    /// Inputs it takes.
    pub inputs: Option<Vec<Named>>,
    /// Parts of the answer.
    pub metadata: Option<Vec<Named>>,
    /// File systems in the answer.
    pub refs: Option<Vec<Named>>,
}

/// A part of a [`Subrequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
}

/// Lists what can be asked.
pub fn subrequests() -> Vec<Subrequest> {
    const TARGET: Named = Named {
        name: "target",
        description: "The stage it is about",
    };
    const RESULTS: [&str; 3] = ["result.json", "result.txt", "result.statuscode"];
    let about = |name, description, opts: &[Named], results: usize| Subrequest {
        name,
        version: "1.0.0",
        kind: "rpc",
        description,
        opts: Some(opts.to_vec()),
        inputs: None,
        metadata: Some(
            RESULTS[..results]
                .iter()
                .map(|name| Named {
                    name,
                    description: "",
                })
                .collect(),
        ),
        refs: None,
    };
    vec![
        about(
            "frontend.outline",
            "What the build of the target takes from the user",
            &[TARGET],
            2,
        ),
        about("frontend.targets", "The stages that can be built", &[], 2),
        Subrequest {
            opts: None,
            ..about("frontend.subrequests.describe", "What can be asked", &[], 2)
        },
        about(
            "frontend.lint",
            "What the rules find in the Dockerfile",
            &[TARGET],
            3,
        ),
        about(
            "frontend.context",
            "What is read of the build contexts, and what of it no step uses",
            &[TARGET],
            2,
        ),
    ]
}

/// Returns a table of what can be asked.
pub fn subrequests_text() -> String {
    let all = subrequests();
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(all.iter().map(|about| {
        let name = about.name.strip_prefix("frontend.").unwrap_or(about.name);
        [name, about.version, about.description]
    }));
    columns(&rows, 1)
}
