//! Why a Dockerfile cannot become a definition.

use super::diagnostic::{Diagnostic, Diagnostics, Source};
use super::resolve::ResolveError;

/// Says why a Dockerfile cannot become a definition.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// The Dockerfile is at fault.
    #[error("{0}")]
    Dockerfile(Diagnostics),
    /// An image cannot be looked up.
    #[error("cannot resolve {image}: {source}")]
    Image {
        /// The image as the Dockerfile names it.
        image: String,
        /// Where it is named.
        finding: Box<Diagnostic>,
        /// What the resolver said.
        source: ResolveError,
    },
    /// The stage to build does not exist.
    #[error("target stage {target:?} does not exist{}{}", known(.stages), hint(.suggestion.as_deref()))]
    UnknownTarget {
        /// The wanted stage.
        target: String,
        /// The stages there are.
        stages: Vec<String>,
        /// The one that was perhaps meant.
        suggestion: Option<String>,
    },
    /// Rules found something in a Dockerfile that makes warnings errors.
    #[error("the Dockerfile makes warnings errors (error=true), and there are some: {}", .rules.join(", "))]
    Checks {
        /// The rules, by name.
        rules: Vec<&'static str>,
    },
    /// An option cannot be used.
    #[error("{option}: {reason}")]
    Option {
        /// Which option.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn known(stages: &[String]) -> String {
    match stages {
        [] => "; the Dockerfile names no stage".to_owned(),
        stages => format!("; there are {}", stages.join(", ")),
    }
}

fn hint(suggestion: Option<&str>) -> String {
    let hint = suggestion.map(|name| format!(" (did you mean {name:?}?)"));
    hint.unwrap_or_default()
}

impl FrontendError {
    /// Draws the error with the lines of the Dockerfile it is about.
    pub fn render(&self, source: &Source) -> String {
        match self {
            Self::Dockerfile(findings) => findings.render(source),
            Self::Image { finding, .. } => finding.render(source),
            Self::UnknownTarget { .. } | Self::Checks { .. } | Self::Option { .. } => {
                format!("{self}\n")
            }
        }
    }

    /// Says whether the only fault is that the file makes warnings errors.
    pub fn is_of_checks(&self) -> bool {
        matches!(self, Self::Checks { .. })
    }

    /// Returns the findings about places in the Dockerfile.
    pub fn findings(&self) -> &[Diagnostic] {
        match self {
            Self::Dockerfile(findings) => &findings.0,
            Self::Image { finding, .. } => std::slice::from_ref(finding),
            Self::UnknownTarget { .. } | Self::Checks { .. } | Self::Option { .. } => &[],
        }
    }
}

impl From<Diagnostic> for FrontendError {
    fn from(finding: Diagnostic) -> Self {
        Self::Dockerfile(Diagnostics(vec![finding]))
    }
}

impl From<Box<Diagnostic>> for FrontendError {
    fn from(finding: Box<Diagnostic>) -> Self {
        Self::from(*finding)
    }
}

impl From<Diagnostics> for FrontendError {
    fn from(findings: Diagnostics) -> Self {
        Self::Dockerfile(findings)
    }
}
