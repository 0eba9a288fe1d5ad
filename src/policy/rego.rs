//! Policies in Rego: modules of the package `docker`, evaluated for one source at a time.
//!
//! What is not known of a source is found out when a policy needs it: a round of evaluation ends
//! with a decision, or with questions. A source that is denied for what is known already is denied
//! without questions, so nothing is asked of its server: only lines that were reached count then.
//! Before a source is allowed everything counts that the policy names anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use serde_json::{Value, json};

use super::decision::Decision;
use super::env::Env;
use super::facts::Facts;
use super::functions::{self, Calls, PolicyFiles};
use super::input;
use super::negation;
use super::policy_test::{self, PolicyTest};
use super::question::{self, Kind, Question};
use super::recursion::Functions;
use super::words;
use crate::llb::pb;
use crate::oci::Platform;

/// What is evaluated.
const ENTRY: &str = "data.docker.decision";
/// Name of the helpers that every policy has.
const HELPERS: &str = "builtin helpers";
/// Name of [`default_policy`] in messages.
const DEFAULT: &str = "default policy";
/// Begins the names of helpers that ask for signatures.
const SIGNATURE_HELPERS: &str = "docker_github_builder";
/// What some editors begin files with.
const MARK: char = '\u{feff}';
/// Most modules of one policy.
const MODULES_MAX: usize = 100;
/// Deepest that brackets may stand in brackets: the parser takes twice as long for each.
const NESTING_MAX: usize = 16;
/// Longest that one evaluation may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Steps between looks at the clock.
const TIME_CHECK_STEPS: NonZeroU32 = NonZeroU32::new(1024).expect("it is not zero");

/// A policy: modules that are evaluated together.
#[derive(Debug, Clone)]
pub struct RegoPolicy {
    /// Where it was read from, as messages show it.
    name: String,
    pub(super) engine: regorus::Engine,
    /// Names that ask questions, by module and line.
    mentions: BTreeMap<String, Vec<(u32, String)>>,
    functions: Functions,
    /// The tests in the modules, by their names.
    pub(super) tests: BTreeMap<String, PolicyTest>,
}

/// What is asked of a policy.
#[derive(Debug)]
pub struct Case<'a> {
    /// The source.
    pub source: &'a pb::SourceOp,
    /// The platform it is wanted for.
    pub platform: &'a Platform,
    /// The build.
    pub env: &'a Env,
    /// What is known.
    pub facts: &'a Facts,
    /// The time in seconds since 1970.
    pub now_s: i64,
}

/// What came of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// What is decided, as far as anything is.
    pub decision: Decision,
    /// What has to be found out first; the decision counts where nothing has.
    pub questions: BTreeSet<Question>,
    /// What the policy printed, and why its functions failed.
    pub notes: Vec<String>,
    /// What it was given.
    pub input: Value,
}

/// Returns the policy that images of Docker's builders have to be signed.
pub fn default_policy() -> (String, String) {
    (DEFAULT.to_owned(), include_str!("default.rego").to_owned())
}

impl RegoPolicy {
    /// Reads modules by name and text, and what they import.
    pub fn read(
        modules: Vec<(String, String)>,
        files: &Arc<dyn PolicyFiles>,
    ) -> Result<Self, String> {
        let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        let name = names.join(", ");
        let mut policy = Self {
            name,
            engine: regorus::Engine::new(),
            mentions: BTreeMap::new(),
            functions: Functions::default(),
            tests: BTreeMap::new(),
        };
        // As with OPA, a function that fails has no value.
        policy.engine.set_strict_builtin_errors(false);
        policy
            .engine
            .set_execution_timer_config(ExecutionTimerConfig {
                limit: TIME_MAX,
                check_interval: TIME_CHECK_STEPS,
            });
        let helpers = include_str!("builtin.rego");
        let (negations, unless) = negation::MODULE;
        for (name, text) in [(HELPERS, helpers), (negations, unless)] {
            policy.add(name.to_owned(), text.to_owned())?;
        }
        let given = modules.iter();
        let given: BTreeSet<String> = given
            .map(|(_, text)| words::package_of(&words::words(text)))
            .collect();
        let mut waiting = modules;
        let mut known = BTreeSet::new();
        while let Some((name, text)) = waiting.pop() {
            if policy.mentions.len() > MODULES_MAX {
                return Err(format!("the policy has more than {MODULES_MAX} modules"));
            }
            for package in words::imports(&text) {
                let path = format!("{}.rego", package.join("/"));
                if given.contains(&package.join(".")) || !known.insert(path.clone()) {
                    continue;
                }
                let read = files.read(&path)?;
                let imported = read.ok_or_else(|| {
                    format!(
                        "{name} imports data.{}: there is no {path}",
                        package.join(".")
                    )
                })?;
                waiting.push((path, words::with_package(&imported, &package)));
            }
            policy.add(name, text)?;
        }
        match policy.functions.recursive() {
            None => Ok(policy),
            Some(name) => Err(format!(
                "the function {name} calls itself, which Rego forbids"
            )),
        }
    }

    fn add(&mut self, name: String, text: String) -> Result<(), String> {
        let text = text.strip_prefix(MARK).map(str::to_owned).unwrap_or(text);
        let words = words::words(&text);
        if words::nesting(&words) > NESTING_MAX {
            return Err(format!(
                "{name} has brackets in more than {NESTING_MAX} others"
            ));
        }
        let mentions = words.iter().map(|word| (word.line, word.text.to_owned()));
        self.mentions.insert(name.clone(), mentions.collect());
        self.functions.add(&text);
        for test in policy_test::tests(&name, &text, &words) {
            self.tests.entry(test.name.clone()).or_insert(test);
        }
        let added = self
            .engine
            .add_policy(name, negation::rewritten(&text, &words));
        added.map(drop).map_err(|error| error.to_string())
    }

    /// Returns what messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Judges a source by what is known.
    pub fn judge(&self, case: &Case<'_>, files: &Arc<dyn PolicyFiles>) -> Result<Round, String> {
        let kind = Kind::of(case.source);
        let input = input::input(case.source, case.platform, (case.env, 0), case.facts)?;
        let calls = Calls::new(case, &input, files);
        let mut engine = self.engine.clone();
        engine.set_enable_coverage(true);
        let value = evaluate(&mut engine, ENTRY, &input, &calls)?;
        let (asked, pins, mut notes) = calls.outcome();
        notes.extend(engine.take_prints().unwrap_or_default());
        let decision = value.as_ref().map(Decision::read).transpose()?;
        let is_allowed = decision
            .as_ref()
            .is_some_and(|decision| decision.is_allowed);
        let mut questions = asked;
        if let Some(kind) = kind {
            questions.extend(self.questions(kind, &reached(&engine)?, is_allowed));
        }
        questions.retain(|question| !is_known(*question, case));
        let Some(mut decision) = decision else {
            return match questions.is_empty() {
                true => Err(format!(
                    "{} leaves `decision` of package docker undefined",
                    self.name
                )),
                false => Ok(Round {
                    questions,
                    notes,
                    input,
                    ..Round::default()
                }),
            };
        };
        decision.pins = pins;
        Ok(Round {
            decision,
            questions,
            notes,
            input,
        })
    }

    /// Asks which rights the policy wants for the whole build.
    pub fn rights(
        &self,
        env: &Env,
        files: &Arc<dyn PolicyFiles>,
    ) -> Result<BTreeSet<String>, String> {
        let input = json!({ "env": env.rights_question() });
        let (source, platform) = (pb::SourceOp::default(), Platform::host());
        let case = Case {
            source: &source,
            platform: &platform,
            env,
            facts: &Facts::default(),
            now_s: 0,
        };
        let calls = Calls::new(&case, &input, files);
        match evaluate(&mut self.engine.clone(), ENTRY, &input, &calls)? {
            Some(value) => Ok(Decision::read(&value)?.rights),
            None => Err(format!(
                "{} leaves `decision` of package docker undefined where there is no source",
                self.name
            )),
        }
    }

    /// Collects the questions of lines that were reached, or of all lines.
    fn questions(
        &self,
        kind: Kind,
        reached: &BTreeMap<String, BTreeSet<u32>>,
        all: bool,
    ) -> BTreeSet<Question> {
        let mut questions = BTreeSet::new();
        for (module, mentions) in &self.mentions {
            let lines = reached.get(module);
            let all = all && module != HELPERS;
            for (line, word) in mentions {
                if !all && !lines.is_some_and(|lines| lines.contains(line)) {
                    continue;
                }
                questions.extend(question::of_name(kind, word));
                if word.starts_with(SIGNATURE_HELPERS) && kind == Kind::Image {
                    questions.insert(Question::Attestations);
                }
            }
        }
        questions
    }
}

pub(super) fn evaluate(
    engine: &mut regorus::Engine,
    path: &str,
    input: &Value,
    calls: &Calls,
) -> Result<Option<Value>, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    engine.set_gather_prints(true);
    engine.set_input(regorus::Value::from(input.clone()));
    functions::add(engine, calls)?;
    let results = engine
        .eval_query(path.to_owned(), false)
        .map_err(|error| failed(&error))?;
    let results = results.result.into_iter();
    let values = results.flat_map(|result| result.expressions);
    let value = values.map(|expression| expression.value).next();
    match value.unwrap_or(regorus::Value::Undefined) {
        regorus::Value::Undefined => Ok(None),
        value => serde_json::to_value(&value)
            .map(Some)
            .map_err(|error| failed(&error)),
    }
}

/// Returns the lines that an evaluation came by, by module.
fn reached(engine: &regorus::Engine) -> Result<BTreeMap<String, BTreeSet<u32>>, String> {
    let report = engine
        .get_coverage_report()
        .map_err(|error| error.to_string())?;
    let files = report.files.into_iter();
    let files = files.map(|file| (file.path, file.covered));
    Ok(files.collect())
}

/// Says whether a question is answered already, or has no answer.
fn is_known(question: Question, case: &Case<'_>) -> bool {
    let facts = case.facts;
    match question {
        Question::Image => facts.image.is_some(),
        Question::Attestations => facts.attestations.is_some(),
        Question::Commit => facts.commit.is_some(),
        Question::Objects => facts.objects.is_some(),
        Question::File => facts.file.is_some(),
    }
}

#[cfg(test)]
mod tests;
