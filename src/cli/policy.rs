//! `--source-policy-file`: files become policies.

use std::path::Path;

use super::args::PolicyArgs;
use super::env::Environment;
use super::failure::Failure;
use crate::engine::request::{Policies, SourcePolicy};
use crate::engine::{EngineError, ErrorKind};

/// Reads the policies that a build is held to.
pub(crate) fn meant(args: &PolicyArgs, environment: &Environment) -> Result<Policies, Failure> {
    let typed = args.source_policy_file.as_deref();
    let inherited = environment.source_policy();
    let files = inherited.iter().map(|path| path.as_path()).chain(typed);
    let sources = files.map(source_policy);
    Ok(Policies {
        sources: sources.collect::<Result<_, _>>()?,
    })
}

fn source_policy(path: &Path) -> Result<SourcePolicy, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    let parsed = SourcePolicy::parse(&path.to_string_lossy(), &bytes);
    parsed.map_err(|error| {
        let text = format!("{} is no source policy: {error}", path.display());
        EngineError::new(ErrorKind::User, text).into()
    })
}
