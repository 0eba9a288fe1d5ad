//! Reading policies in Rego: the one beside the Dockerfile, those that are named, what they import.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::Prober;
use super::judge::{Judge, RegoJudges};
use super::{Guard, Policies};
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::remote::Setup;
use crate::engine::request::BuildRequest;
use crate::policy::{self, Env, LogLevel, PolicyChoice, PolicyFiles, RegoPolicy};
use crate::session::Session;
use crate::snapshot::View;
use crate::source::local;

/// Ends the name of the policy beside a Dockerfile.
const EXTENSION: &str = ".rego";
/// Begins paths that count from the current folder.
const CURRENT: &str = "cwd://";

/// Where the policies of a build are.
#[derive(Debug, Default)]
pub(in crate::engine) struct PolicyPlace {
    /// Name of the Dockerfile.
    pub(in crate::engine) filename: String,
    /// The Dockerfile, where it is a file on this machine.
    pub(in crate::engine) dockerfile: Option<PathBuf>,
    /// Whether the Dockerfile is in the build context.
    pub(in crate::engine) is_in_context: bool,
    /// The folder that is the build context.
    pub(in crate::engine) folder: Option<PathBuf>,
    /// The build context that comes from elsewhere.
    pub(in crate::engine) view: Option<View>,
}

/// The files that policies may read: those of the build context, and of the current folder.
pub(super) struct Folders {
    context: Option<PathBuf>,
    /// Keeps what comes from elsewhere.
    _view: Option<View>,
}

impl Folders {
    /// Takes a folder of this machine for the build context.
    pub(super) fn of(context: Option<PathBuf>) -> Self {
        Self {
            context,
            _view: None,
        }
    }
}

impl PolicyFiles for Folders {
    fn read(&self, path: &str) -> Result<Option<String>, String> {
        let read = match (path.strip_prefix(CURRENT), &self.context) {
            (Some(rest), _) => local::read_text_in(Path::new("."), Path::new(rest)),
            (None, Some(folder)) => {
                let path = Path::new(path);
                local::read_text_in(folder, path.strip_prefix(folder).unwrap_or(path))
            }
            (None, None) => Ok(None),
        };
        read.map_err(|error| crate::solver::error::chain(&error))
    }
}

impl PolicyPlace {
    /// Reads the policy beside the Dockerfile.
    fn beside(&self) -> Result<Option<(String, String)>, EngineError> {
        let name = format!("{}{EXTENSION}", self.filename);
        let text = match (&self.dockerfile, &self.view) {
            (Some(path), _) => {
                let mut path = path.as_os_str().to_owned();
                path.push(EXTENSION);
                local::read_text(Path::new(&path))?
            }
            (None, Some(view)) if self.is_in_context => {
                local::read_text_in(view.path(), Path::new(&name))?
            }
            _ => None,
        };
        Ok(text.map(|text| (name, text)))
    }
}

impl Guard {
    /// Reads the policies of a build, which judge its sources from then on.
    pub(in crate::engine) fn load(
        &self,
        setup: &Setup<'_>,
        session: &Arc<Session>,
        request: &BuildRequest,
        place: PolicyPlace,
    ) -> Result<(), EngineError> {
        let user = |text: String| EngineError::new(ErrorKind::User, text);
        let beside = place.beside()?;
        let Policies {
            options,
            uses_default,
            ..
        } = &self.policies;
        let chosen = policy::chosen(beside.is_some(), options).map_err(user)?;
        let is_disabled = options.iter().any(|option| option.disabled);
        let uses_default = *uses_default && !is_disabled;
        if chosen.is_empty() && !uses_default {
            return Ok(());
        }
        let env = Env {
            args: request.build_args.clone(),
            labels: request.labels.clone(),
            filename: place.filename.clone(),
            target: request.target.clone().unwrap_or_default(),
        };
        let folder = place.view.as_ref().map(|view| view.path().to_owned());
        let files: Arc<dyn PolicyFiles> = Arc::new(Folders {
            context: folder.or(place.folder),
            _view: place.view,
        });
        let mut judges = Vec::new();
        if uses_default {
            judges.push(read_one(
                vec![policy::default_policy()],
                LogLevel::Info,
                &files,
            )?);
        }
        for choice in chosen {
            let modules = modules(&choice, beside.as_ref(), &files)?;
            let judge = read_one(modules, choice.log_level, &files)?;
            refuse_rights(&judge.policy, &env, &files)?;
            judges.push(judge);
        }
        let judges = RegoJudges {
            judges,
            env,
            files,
            prober: Prober {
                images: setup.images.clone(),
                content: setup.engine.content.clone(),
                worker: setup.worker(session),
                pull: request.pull,
                cancel: setup.cancel.clone(),
            },
            progress: setup.progress.clone(),
        };
        // A build reads its policies once.
        let _ = self.rego.set(judges);
        Ok(())
    }
}

fn modules(
    choice: &PolicyChoice,
    beside: Option<&(String, String)>,
    files: &Arc<dyn PolicyFiles>,
) -> Result<Vec<(String, String)>, EngineError> {
    if choice.files.is_empty() {
        return Ok(beside.into_iter().cloned().collect());
    }
    let read = choice.files.iter().map(|name| {
        let user = |text: String| EngineError::new(ErrorKind::User, text);
        match files.read(name).map_err(user)? {
            Some(text) => Ok((name.clone(), text)),
            None => Err(user(format!("policy file {name} not found")).with_hint(format!(
                "paths count from the build context; write {CURRENT}{name} for a file in the current folder"
            ))),
        }
    });
    read.collect()
}

fn read_one(
    modules: Vec<(String, String)>,
    log_level: LogLevel,
    files: &Arc<dyn PolicyFiles>,
) -> Result<Judge, EngineError> {
    let policy = RegoPolicy::read(modules, files);
    let policy = policy.map_err(|reason| {
        EngineError::new(ErrorKind::User, format!("cannot read the policy: {reason}"))
    })?;
    Ok(Judge {
        policy: Arc::new(policy),
        log_level,
    })
}

/// Fails where a policy wants more than to judge sources.
fn refuse_rights(
    policy: &RegoPolicy,
    env: &Env,
    files: &Arc<dyn PolicyFiles>,
) -> Result<(), EngineError> {
    let user = |text: String| EngineError::new(ErrorKind::User, text);
    let failed = |reason| user(format!("failed to evaluate policy caps: {reason}"));
    match policy.rights(env, files).map_err(failed)?.first() {
        None => Ok(()),
        Some(right) => Err(user(format!(
            "{} wants {right}: steps do not reach the network through a proxy here",
            policy.name()
        ))),
    }
}
