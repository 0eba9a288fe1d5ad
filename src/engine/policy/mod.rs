//! Judging sources by the user's policies before anything is fetched from them.
//!
//! A source is judged where the frontend asks about it, and again in every definition before that
//! is solved: the build context's, the Dockerfile's, those of other frontends and of steps that
//! come across one. What a policy puts in the place of a source is what the build then knows.
//!
//! Read in order: this file (who is asked), `load` (reading policies in Rego), `judge` (asking
//! them), `facts` (finding out what they ask), `eval` (asking without a build).

mod eval;
mod facts;
mod judge;
mod load;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;

use super::error::{EngineError, ErrorKind};
use crate::llb::{Definition, Vertex, pb};
use crate::oci::{Platform, Reference};
use crate::policy::{self, Denial, PolicyOption, SourcePolicy};
use crate::solver::{self, FailureKind, OpError};

use judge::RegoJudges;

pub use eval::{JudgeRequest, Judgement, run_policy_tests};
pub(super) use load::PolicyPlace;

/// Scheme of images in registries.
const IMAGE: &str = "docker-image://";
/// Most times that policies may replace one source together.
const REPLACEMENTS_MAX: usize = 10;

/// What a user's policies are.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Lists of rules, all of which judge every source.
    pub sources: Vec<SourcePolicy>,
    /// Which policies in Rego judge too; where nothing is said, the one beside the Dockerfile.
    pub options: Vec<PolicyOption>,
    /// Whether images of Docker's that builders use unasked have to be signed.
    pub uses_default: bool,
}

/// Says why a source may not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A rule says so.
    #[error(transparent)]
    Rule(#[from] Denial),
    /// A policy in Rego says so.
    #[error("source {source_name:?} not allowed by policy {policy}{}", listed(.messages))]
    Policy {
        /// The source.
        source_name: String,
        /// The policy.
        policy: String,
        /// Why, in its words.
        messages: Vec<String>,
    },
    /// A policy in Rego cannot be evaluated.
    #[error("policy {policy} cannot judge: {reason}")]
    Broken {
        /// The policy.
        policy: String,
        /// Why not.
        reason: String,
    },
    /// What a policy asked cannot be found out.
    #[error("cannot find out what the policy asks about {source_name:?}: {error}")]
    Unanswered {
        /// The source.
        source_name: String,
        /// Why not.
        error: Box<EngineError>,
    },
    /// Policies replace what other policies replaced, again and again.
    #[error("policies replace {0:?} again and again")]
    Circle(String),
    /// A policy replaces an image by something that is none.
    #[error("the policy replaces the image {image} by {by:?}, which is no image of a registry")]
    NotAnImage {
        /// The image.
        image: String,
        /// What would take its place.
        by: String,
    },
}

impl Refused {
    /// Says whether the user, and no server, is at fault.
    pub(super) fn is_input(&self) -> bool {
        match self {
            Self::Unanswered { error, .. } => error.kind != ErrorKind::Registry,
            _ => true,
        }
    }

    /// Makes it the failure of a step.
    fn into_op(self) -> OpError {
        let kind = match self.is_input() {
            true => FailureKind::User,
            false => FailureKind::Remote,
        };
        OpError::new(kind, self.to_string()).caused_by(self)
    }
}

fn listed(messages: &[String]) -> String {
    match messages {
        [] => String::new(),
        messages => format!(": {}", messages.join("; ")),
    }
}

/// A source and the platform that it is wanted for.
type Case = (String, BTreeMap<String, String>, String);
/// What takes the place of a source, once that is known.
type Verdict = Arc<OnceCell<Option<pb::SourceOp>>>;

/// Judges the sources of one build; each is judged once.
#[derive(Debug, Default)]
pub(super) struct Guard {
    policies: Policies,
    rego: OnceLock<RegoJudges>,
    verdicts: Mutex<BTreeMap<Case, Verdict>>,
}

impl Guard {
    /// Judges by a user's policies.
    pub(super) fn new(policies: Policies) -> Self {
        Self {
            policies,
            ..Self::default()
        }
    }

    /// Says whether there is nothing to judge by.
    fn is_idle(&self) -> bool {
        self.policies.sources.is_empty() && self.rego.get().is_none()
    }

    /// Judges a source; returns what takes its place, if something does.
    pub(super) async fn judge(
        &self,
        source: &pb::SourceOp,
        platform: &Platform,
    ) -> Result<Option<pb::SourceOp>, Refused> {
        if self.is_idle() {
            return Ok(None);
        }
        let Some(rego) = self.rego.get() else {
            return self.judge_by_rules(source);
        };
        let (attrs, platform_name) = (source.attrs.clone(), platform.to_string());
        let case = (source.identifier.clone(), attrs, platform_name);
        let verdict = {
            let verdicts = self.verdicts.lock();
            let mut verdicts = verdicts.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(verdicts.entry(case).or_default())
        };
        let judging = || self.judge_by_all(rego, source, platform);
        Ok(verdict.get_or_try_init(judging).await?.clone())
    }

    /// Judges a source by lists of rules.
    fn judge_by_rules(&self, source: &pb::SourceOp) -> Result<Option<pb::SourceOp>, Refused> {
        let mut judged = pb::SourceOp {
            identifier: policy::normalized(source),
            attrs: source.attrs.clone(),
        };
        let is_replaced = policy::evaluate(&self.policies.sources, &mut judged)?;
        Ok(is_replaced.then_some(judged))
    }

    /// Judges a source by everything there is, until nothing takes its place any more.
    async fn judge_by_all(
        &self,
        rego: &RegoJudges,
        source: &pb::SourceOp,
        platform: &Platform,
    ) -> Result<Option<pb::SourceOp>, Refused> {
        let mut judged = source.clone();
        for _ in 0..REPLACEMENTS_MAX {
            let ruled = self.judge_by_rules(&judged)?;
            judged = ruled.unwrap_or_else(|| pb::SourceOp {
                identifier: policy::normalized(&judged),
                attrs: judged.attrs.clone(),
            });
            match rego.judge(&judged, platform).await? {
                Some(pinned) => judged = pinned,
                None => {
                    let is_same = judged.identifier == policy::normalized(source)
                        && judged.attrs == source.attrs;
                    return Ok((!is_same).then_some(judged));
                }
            }
        }
        Err(Refused::Circle(policy::shown(&source.identifier)))
    }

    /// Judges an image that is looked up by its name; returns the one to look up.
    pub(super) async fn judge_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Reference, Refused> {
        let source = pb::SourceOp {
            identifier: format!("{IMAGE}{reference}"),
            ..pb::SourceOp::default()
        };
        let Some(other) = self.judge(&source, platform).await? else {
            return Ok(reference.clone());
        };
        let name = other.identifier.strip_prefix(IMAGE);
        let parsed = name.and_then(|name| name.parse::<Reference>().ok());
        let parsed = parsed.ok_or_else(|| Refused::NotAnImage {
            image: reference.familiar(),
            by: other.identifier,
        })?;
        Ok(parsed.with_default_tag())
    }

    /// Judges an image of an OCI layout that is looked up; nothing takes its place before it is in
    /// a definition.
    pub(super) async fn judge_layout_image(
        &self,
        reference: &Reference,
        store: &str,
        platform: &Platform,
    ) -> Result<(), Refused> {
        let source = pb::SourceOp {
            identifier: format!("oci-layout://{reference}"),
            attrs: [("oci.store".to_owned(), store.to_owned())].into(),
        };
        match self.judge(&source, platform).await? {
            None => Ok(()),
            Some(other) => Err(Refused::NotAnImage {
                image: source.identifier,
                by: other.identifier,
            }),
        }
    }

    /// Judges what is read without a definition: a folder of the user's, an archive in a bucket.
    pub(super) async fn judge_input(
        &self,
        identifier: String,
        platform: &Platform,
    ) -> Result<(), EngineError> {
        let source = pb::SourceOp {
            identifier,
            ..pb::SourceOp::default()
        };
        let judged = self.judge(&source, platform).await;
        let judged = judged.map_err(|refused| EngineError::from_op(refused.into_op()))?;
        // Attributes say how a source travels, and this one does not.
        match judged.filter(|other| other.identifier != source.identifier) {
            None => Ok(()),
            Some(other) => {
                let (name, by) = (source.identifier, other.identifier);
                let text = format!("the policy replaces {name} by {by:?}: it cannot be replaced");
                Err(EngineError::new(ErrorKind::User, text))
            }
        }
    }

    /// Judges the sources of a definition; returns it with what takes their places.
    pub(super) async fn judge_definition(
        &self,
        definition: Definition,
    ) -> Result<Definition, EngineError> {
        if self.is_idle() {
            return Ok(definition);
        }
        let invalid = |error: crate::llb::InvalidDefinition| {
            EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
        };
        let loaded = definition.load().map_err(invalid)?;
        let mut others = BTreeMap::new();
        for vertex in &loaded.vertices {
            if let Some(other) = self.judge_vertex(vertex, &definition).await? {
                others.insert(vertex.digest.clone(), other);
            }
        }
        definition.with_sources(&others).map_err(invalid)
    }

    /// Judges the sources of vertices that have been built already, and replaces them.
    pub(super) async fn replace(&self, vertices: &mut [Vertex]) -> Result<(), EngineError> {
        for vertex in vertices {
            let other = self.judge_vertex(vertex, &Definition::default()).await?;
            if let Some(other) = other {
                vertex.op = pb::op::Op::Source(other);
            }
        }
        Ok(())
    }

    async fn judge_vertex(
        &self,
        vertex: &Vertex,
        definition: &Definition,
    ) -> Result<Option<pb::SourceOp>, EngineError> {
        let pb::op::Op::Source(source) = &vertex.op else {
            return Ok(None);
        };
        let judged = self.judge(source, &vertex.platform).await;
        judged.map_err(|refused| {
            let definitions = std::slice::from_ref(definition);
            let failure = solver::job::failure(definitions, vertex, refused.into_op());
            EngineError::from_solve(failure, definitions)
        })
    }
}
