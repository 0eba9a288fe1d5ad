//! Asking a policy about one source, or about its tests, without a build.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::facts::Prober;
use super::judge::{Judge, RegoJudges};
use super::load::Folders;
use super::{Guard, Refused};
use crate::engine::Engine;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::remote::Setup;
use crate::engine::request::PullPolicy;
use crate::llb::{GitUrl, pb};
use crate::oci::{Digest, Platform};
use crate::policy::{self, Env, Facts, LogLevel, PolicyFiles, RegoPolicy, TestOutcome};
use crate::progress::Progress;
use crate::session::Session;
use crate::source::{Images, Repositories, WebFiles};

/// Asks what policies know of a source, or decide about it.
#[derive(Debug, Clone, Default)]
pub struct JudgeRequest {
    /// An image (`docker-image://`), a repository, a URL, or a folder.
    pub source: String,
    /// The platform of an image; the host's where `None`.
    pub platform: Option<Platform>,
    /// The policy: its name, its text, and the name of the Dockerfile that it is for.
    pub policy: Option<(String, String, String)>,
    /// Members of the input that are found out, where there is no policy: `image.labels`.
    pub fields: Vec<String>,
}

/// What is known of a source, and what a policy decides about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// The input of policies.
    pub input: Value,
    /// What takes the place of the source, where a policy says so.
    pub replaced_by: Option<String>,
    /// Fields that were asked for and are no members of the input that can be found out.
    pub unknown_fields: Vec<String>,
}

impl Engine {
    /// Has a policy judge a source; fails where it is denied.
    pub async fn judge(
        &self,
        request: &JudgeRequest,
        session: Session,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Judgement, EngineError> {
        let client = self.registry(&session, Vec::new());
        let guard = Guard::default();
        let images = Images::new(client.clone(), self.content.clone());
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let setup = Setup {
            engine: self,
            guard: &guard,
            images: &images,
            web_files: &WebFiles::new(client, self.content.clone()),
            repositories: &Repositories::new(&self.dir("cache/git")),
            platform: platform.clone(),
            progress: &progress,
            cancel: &cancel,
        };
        let session = Arc::new(session);
        let prober = Prober {
            images: images.clone(),
            content: self.content.clone(),
            worker: setup.worker(&session),
            pull: PullPolicy::Missing,
            cancel: cancel.clone(),
        };
        let source = source(&request.source)?;
        let asking = ask(request, &source, &platform, prober, &progress);
        tokio::select! {
            judgement = asking => judgement,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        }
    }
}

async fn ask(
    request: &JudgeRequest,
    source: &pb::SourceOp,
    platform: &Platform,
    prober: Prober,
    progress: &Progress,
) -> Result<Judgement, EngineError> {
    let Some((name, text, filename)) = request.policy.clone() else {
        return describe(request, source, platform, &prober, progress).await;
    };
    let files: Arc<dyn PolicyFiles> = Arc::new(Folders::of(Some(PathBuf::from("."))));
    let policy = RegoPolicy::read(vec![(name, text)], &files);
    let policy = policy.map_err(|reason| {
        EngineError::new(ErrorKind::User, format!("cannot read the policy: {reason}"))
    })?;
    let judges = RegoJudges {
        judges: vec![Judge {
            policy: Arc::new(policy),
            log_level: LogLevel::Info,
        }],
        env: Env {
            filename,
            ..Env::default()
        },
        files,
        prober,
        progress: progress.clone(),
    };
    let judged = judges.judge(source, platform).await;
    let judged = judged.map_err(|refused: Refused| EngineError::from_op(refused.into_op()))?;
    Ok(Judgement {
        replaced_by: judged.map(|other| other.identifier),
        ..Judgement::default()
    })
}

/// Finds out what was asked for, without any policy.
async fn describe(
    request: &JudgeRequest,
    source: &pb::SourceOp,
    platform: &Platform,
    prober: &Prober,
    progress: &Progress,
) -> Result<Judgement, EngineError> {
    let step = progress.of_vertex(Digest::of(source.identifier.as_bytes()));
    let mut facts = Facts::default();
    let mut questions = BTreeSet::new();
    let mut unknown_fields = Vec::new();
    for field in &request.fields {
        match policy::question_of(source, field) {
            Some(question) => {
                questions.insert(question);
            }
            None => unknown_fields.push(field.clone()),
        }
    }
    for question in questions {
        prober
            .answer(question, (source, platform), &mut facts, &step)
            .await?;
    }
    let env = Env::default();
    let input = policy::input_of(source, platform, (&env, 0), &facts);
    let mut input = input.map_err(|reason| EngineError::new(ErrorKind::User, reason))?;
    remove_env(&mut input);
    Ok(Judgement {
        input,
        unknown_fields,
        ..Judgement::default()
    })
}

/// Removes what is said of the build, which there is none of, from a source and its materials.
fn remove_env(input: &mut Value) {
    if let Some(members) = input.as_object_mut() {
        members.remove("env");
    }
    let materials = input.pointer_mut("/image/provenance/materials");
    let materials = materials.and_then(Value::as_array_mut);
    materials.into_iter().flatten().for_each(remove_env);
}

/// Reads a source as people write it.
fn source(text: &str) -> Result<pb::SourceOp, EngineError> {
    let user = |text: String| EngineError::new(ErrorKind::User, text);
    let of = |identifier: String| pb::SourceOp {
        identifier,
        ..pb::SourceOp::default()
    };
    if let Some(name) = text.strip_prefix("docker-image://") {
        let reference: Result<crate::oci::Reference, _> = name.parse();
        let reference = reference.map_err(|error| user(format!("{name:?}: {error}")))?;
        return Ok(of(format!(
            "docker-image://{}",
            reference.with_default_tag()
        )));
    }
    if text.starts_with("git://") {
        return Ok(of(text.to_owned()));
    }
    if let Some(url) = GitUrl::parse(text) {
        let url = url.map_err(|error| user(error.to_string()))?;
        let source = url.source();
        return Ok(pb::SourceOp {
            identifier: source.identifier,
            attrs: source.attrs,
        });
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(of(text.to_owned()));
    }
    match std::path::Path::new(text).exists() {
        true => Ok(of("local://context".to_owned())),
        false => Err(user(format!("invalid local path {text}"))),
    }
}

/// Runs the tests of a policy: `modules` are it and them, by name and text.
pub fn run_policy_tests(
    modules: Vec<(String, String)>,
    run: &str,
) -> Result<Vec<TestOutcome>, EngineError> {
    let user = |reason: String| EngineError::new(ErrorKind::User, reason);
    let files: Arc<dyn PolicyFiles> = Arc::new(Folders::of(Some(PathBuf::from("."))));
    let policy = RegoPolicy::read(modules, &files);
    let policy = policy.map_err(|reason| user(format!("cannot read the policy: {reason}")))?;
    let outcomes = policy.test(run, &files).map_err(user)?;
    match outcomes.is_empty() {
        true => Err(user("no tests found".to_owned())),
        false => Ok(outcomes),
    }
}
