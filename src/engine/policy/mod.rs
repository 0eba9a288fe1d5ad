//! Judging sources by the user's policies before anything is fetched from them.
//!
//! A source is judged where the frontend asks about it, and again in every definition before that
//! is solved: the build context's, the Dockerfile's, those of other frontends and of steps that
//! come across one. What a policy puts in the place of a source is what the build then knows.

use std::collections::BTreeMap;

use super::error::{EngineError, ErrorKind};
use crate::llb::{Definition, Vertex, pb};
use crate::oci::{Platform, Reference};
use crate::policy::{self, Denial, SourcePolicy};
use crate::solver::{self, FailureKind, OpError};

/// Scheme of images in registries.
const IMAGE: &str = "docker-image://";

/// What a user's policies are.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Lists of rules, all of which judge every source.
    pub sources: Vec<SourcePolicy>,
}

/// Says why a source may not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A rule says so.
    #[error(transparent)]
    Rule(#[from] Denial),
    /// A policy replaces an image by something that is none.
    #[error("the policy replaces the image {image} by {by:?}, which is no image of a registry")]
    NotAnImage {
        /// The image.
        image: String,
        /// What would take its place.
        by: String,
    },
}

/// Judges the sources of one build.
#[derive(Debug)]
pub(super) struct Guard {
    policies: Policies,
}

impl Guard {
    /// Judges by a user's policies.
    pub(super) fn new(policies: Policies) -> Self {
        Self { policies }
    }

    /// Says whether there is nothing to judge by.
    fn is_idle(&self) -> bool {
        self.policies.sources.is_empty()
    }

    /// Judges a source; returns what takes its place, if something does.
    pub(super) async fn judge(
        &self,
        source: &pb::SourceOp,
        _platform: &Platform,
    ) -> Result<Option<pb::SourceOp>, Refused> {
        if self.is_idle() {
            return Ok(None);
        }
        let mut judged = pb::SourceOp {
            identifier: policy::normalized(source),
            attrs: source.attrs.clone(),
        };
        let is_replaced = policy::evaluate(&self.policies.sources, &mut judged)?;
        Ok(is_replaced.then_some(judged))
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

    /// Judges a folder of the user's before it is read.
    pub(super) async fn judge_folder(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<(), EngineError> {
        let source = pb::SourceOp {
            identifier: format!("local://{name}"),
            ..pb::SourceOp::default()
        };
        let judged = self.judge(&source, platform).await;
        let judged = judged.map_err(|refused| {
            EngineError::new(ErrorKind::User, refused.to_string()).with_source(refused)
        });
        // Attributes say how a folder travels, and this one does not.
        match judged?.filter(|other| other.identifier != source.identifier) {
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
            let error = OpError::new(FailureKind::User, refused.to_string()).caused_by(refused);
            let failure = solver::job::failure(definitions, vertex, error);
            EngineError::from_solve(failure, definitions)
        })
    }
}
