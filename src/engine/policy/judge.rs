//! Policies in Rego at work: rounds of evaluation, with what they ask found out between them.

use std::sync::Arc;

use super::facts::Prober;
use super::{IMAGE, Refused};
use crate::engine::clock;
use crate::engine::error::EngineError;
use crate::llb::pb;
use crate::oci::{Digest, Platform, Reference};
use crate::policy::{self, Case, Decision, Env, Facts, LogLevel, PolicyFiles, RegoPolicy, Round};
use crate::progress::{LogStream, Progress, VertexProgress};

/// Most rounds that one policy takes for one source.
const ROUNDS_MAX: usize = 10;

/// A policy and how much it tells.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) policy: Arc<RegoPolicy>,
    pub(super) log_level: LogLevel,
}

/// The policies of one build, all of which have to allow a source.
pub(super) struct RegoJudges {
    pub(super) judges: Vec<Judge>,
    pub(super) env: Env,
    pub(super) files: Arc<dyn PolicyFiles>,
    pub(super) prober: Prober,
    pub(super) progress: Progress,
}

impl std::fmt::Debug for RegoJudges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegoJudges")
            .field("judges", &self.judges)
            .finish_non_exhaustive()
    }
}

impl RegoJudges {
    /// Judges a source, as a step of the progress; returns it with the digest that a policy pins
    /// it to.
    pub(super) async fn judge(
        &self,
        source: &pb::SourceOp,
        platform: &Platform,
    ) -> Result<Option<pb::SourceOp>, Refused> {
        let name = match source.identifier.starts_with(IMAGE) {
            true => format!("{} ({platform})", source.identifier),
            false => policy::shown(&source.identifier),
        };
        let title = format!("[policy] check {name}");
        let step = self.progress.of_vertex(Digest::of(title.as_bytes()));
        step.start(&title);
        let judged = self.judge_by_all(source, platform, &step).await;
        step.complete(judged.as_ref().err().map(ToString::to_string));
        judged
    }

    async fn judge_by_all(
        &self,
        source: &pb::SourceOp,
        platform: &Platform,
        step: &VertexProgress,
    ) -> Result<Option<pb::SourceOp>, Refused> {
        let mut facts = Facts::default();
        for judge in &self.judges {
            let told = Telling { judge, step };
            let decision = self.decide(told, (source, platform), &mut facts).await?;
            if !decision.is_allowed {
                return Err(Refused::Policy {
                    source_name: policy::shown(&source.identifier),
                    policy: judge.policy.name().to_owned(),
                    messages: decision.messages,
                });
            }
            let mut pins = decision.pins.into_iter();
            match (pins.next(), pins.next()) {
                (None, _) => {}
                (Some(pin), None) => {
                    let name = policy::shown(&source.identifier);
                    let Some(pinned) = pinned(source, pin) else {
                        // The policies after this one have not been asked yet.
                        return Err(Refused::Broken {
                            policy: judge.policy.name().to_owned(),
                            reason: format!("it pins {name}, which is no name of an image"),
                        });
                    };
                    told.say(LogLevel::Info, &format!("pinned: {}", pinned.identifier));
                    return Ok(Some(pinned));
                }
                (Some(_), Some(_)) => {
                    return Err(Refused::Broken {
                        policy: judge.policy.name().to_owned(),
                        reason: format!("it pins {} to several digests", source.identifier),
                    });
                }
            }
        }
        Ok(None)
    }

    /// Asks one policy, and finds out what it asks in turn.
    async fn decide(
        &self,
        told: Telling<'_>,
        about: (&pb::SourceOp, &Platform),
        facts: &mut Facts,
    ) -> Result<Decision, Refused> {
        for _ in 0..ROUNDS_MAX {
            let round = self.round(told.judge, about, facts).await?;
            told.say(LogLevel::Debug, &round.input.to_string());
            for note in &round.notes {
                told.say(LogLevel::Info, note);
            }
            if round.questions.is_empty() {
                told.say_decision(&round.decision);
                return Ok(round.decision);
            }
            for question in round.questions {
                told.say(
                    LogLevel::Info,
                    &format!("finding out: {}", question.as_str()),
                );
                let answered = self.prober.answer(question, about, facts, told.step).await;
                answered.map_err(|error| unanswered(about.0, error))?;
            }
        }
        let name = policy::shown(&about.0.identifier);
        Err(Refused::Broken {
            policy: told.judge.policy.name().to_owned(),
            reason: format!("it asks about {name} again and again"),
        })
    }

    /// Evaluates a policy where it does not hold up others.
    async fn round(
        &self,
        judge: &Judge,
        (source, platform): (&pb::SourceOp, &Platform),
        facts: &Facts,
    ) -> Result<Round, Refused> {
        let (policy, files) = (Arc::clone(&judge.policy), Arc::clone(&self.files));
        let (source, platform) = (source.clone(), platform.clone());
        let (env, facts) = (self.env.clone(), facts.clone());
        let evaluating = tokio::task::spawn_blocking(move || {
            let case = Case {
                source: &source,
                platform: &platform,
                env: &env,
                facts: &facts,
                now_s: clock::now_ns().div_euclid(1_000_000_000),
            };
            policy.judge(&case, &files)
        });
        let broken = |reason: String| Refused::Broken {
            policy: judge.policy.name().to_owned(),
            reason,
        };
        let evaluated = evaluating
            .await
            .map_err(|error| broken(error.to_string()))?;
        evaluated.map_err(broken)
    }
}

/// Where a policy tells what it does.
#[derive(Clone, Copy)]
struct Telling<'a> {
    judge: &'a Judge,
    step: &'a VertexProgress,
}

impl Telling<'_> {
    fn say(&self, level: LogLevel, text: &str) {
        if level <= self.judge.log_level {
            let line = format!("{}: {}\n", self.judge.policy.name(), text.trim_end());
            self.step.log(LogStream::Stderr, line.as_bytes());
        }
    }

    fn say_decision(&self, decision: &Decision) {
        self.say(LogLevel::Debug, &format!("{decision:?}"));
        self.say(
            LogLevel::Info,
            if decision.is_allowed { "ALLOW" } else { "DENY" },
        );
        for message in &decision.messages {
            self.say(LogLevel::Info, &format!(" - {message}"));
        }
    }
}

fn unanswered(source: &pb::SourceOp, error: EngineError) -> Refused {
    Refused::Unanswered {
        source_name: policy::shown(&source.identifier),
        error: Box::new(error),
    }
}

/// Returns an image by a digest.
fn pinned(source: &pb::SourceOp, digest: Digest) -> Option<pb::SourceOp> {
    let reference: Reference = source.identifier.strip_prefix(IMAGE)?.parse().ok()?;
    let mut pinned = source.clone();
    let checksum = ("image.checksum".to_owned(), digest.to_string());
    pinned.attrs.extend([checksum]);
    pinned.identifier = format!("{IMAGE}{}", reference.with_digest(digest));
    Some(pinned)
}
