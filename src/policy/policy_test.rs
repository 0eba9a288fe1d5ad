//! Tests of policies: rules named `test_…` in modules whose names end in `_test.rego`.
//!
//! A test says what a policy is given: `with input as {…}`. That is what functions of policies know
//! of the source, and what the decision is made for that is shown with the outcome.

use std::sync::Arc;

use serde_json::{Value, json};

use super::env::Env;
use super::facts::Facts;
use super::functions::{Calls, PolicyFiles};
use super::rego::{self, Case, RegoPolicy};
use super::words::{self, Word};
use crate::llb::pb;
use crate::oci::Platform;

/// Ends the names of modules with tests.
const MODULE: &str = "_test.rego";
/// Begins the names of tests.
const TEST: &str = "test_";

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyTest {
    pub(super) name: String,
    package: String,
    /// What the policy is given, as the test writes it.
    input: Option<String>,
}

/// What came of one test of a policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestOutcome {
    /// The rule.
    pub name: String,
    /// Whether it is true.
    pub is_passed: bool,
    /// What the test gives the policy, as far as that is written in it.
    pub input: Option<Value>,
    /// What the policy decides for that.
    pub decision: Option<Value>,
    /// What it printed, and why functions failed.
    pub notes: Vec<String>,
}

impl TestOutcome {
    /// Says whether the policy allows what it is given, if it says so.
    pub fn is_allowed(&self) -> Option<bool> {
        self.decision.as_ref()?.get("allow")?.as_bool()
    }

    /// Returns why the policy denies it.
    pub fn messages(&self) -> Vec<&str> {
        let messages = self
            .decision
            .as_ref()
            .and_then(|value| value.get("deny_msg"));
        match messages {
            Some(Value::String(message)) => vec![message],
            Some(Value::Array(messages)) => messages.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// Finds the tests of a module.
pub(super) fn tests(module: &str, text: &str, words: &[Word<'_>]) -> Vec<PolicyTest> {
    if !module.ends_with(MODULE) {
        return Vec::new();
    }
    let package = words::package_of(words);
    let definitions = words::definitions(words);
    let tests = definitions.into_iter().filter(|words| is_test(words));
    let tests = tests.map(|words| PolicyTest {
        name: words[0].text.to_owned(),
        package: package.clone(),
        input: input(text, words),
    });
    tests.collect()
}

/// Says whether a definition is that of a test: without arguments, and true or false.
fn is_test(words: &[Word<'_>]) -> bool {
    let is_named = words
        .first()
        .is_some_and(|word| word.text.starts_with(TEST));
    let next: Vec<&str> = words.iter().skip(1).take(3).map(|word| word.text).collect();
    is_named
        && match next.as_slice() {
            ["(", ..] => false,
            [":", "=", value] => ["true", "false"].contains(value),
            _ => true,
        }
}

/// Finds the object behind `with input as`.
fn input(text: &str, words: &[Word<'_>]) -> Option<String> {
    let starts = words.windows(4).position(|words| {
        let [with, input, as_word, object] = words else {
            return false;
        };
        [with.text, input.text, as_word.text, object.text] == ["with", "input", "as", "{"]
    });
    let words = &words[starts? + 3..];
    let mut depth = 0_usize;
    for word in words.iter().filter(|word| !word.is_string) {
        match word.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(words[0].start..=word.start).map(str::to_owned);
        }
    }
    None
}

impl RegoPolicy {
    /// Evaluates the tests that have `run` in their names.
    pub fn test(
        &self,
        run: &str,
        files: &Arc<dyn PolicyFiles>,
    ) -> Result<Vec<TestOutcome>, String> {
        let tests = self.tests.values().filter(|test| test.name.contains(run));
        tests.map(|test| self.test_one(test, files)).collect()
    }

    fn test_one(
        &self,
        test: &PolicyTest,
        files: &Arc<dyn PolicyFiles>,
    ) -> Result<TestOutcome, String> {
        let (source, platform) = (pb::SourceOp::default(), Platform::host());
        let (env, facts) = (Env::default(), Facts::default());
        let case = Case {
            source: &source,
            platform: &platform,
            env: &env,
            facts: &facts,
            now_s: 0,
        };
        let input = test.input.as_ref().and_then(|text| self.value_of(text));
        let given = input.clone().unwrap_or_else(|| json!({}));
        let evaluate = |rule: &str| {
            let calls = Calls::new(&case, &given, files);
            let path = format!("data.{}.{rule}", test.package);
            let mut engine = self.engine.clone();
            let value = rego::evaluate(&mut engine, &path, &given, &calls)?;
            let (_, _, mut notes) = calls.outcome();
            notes.extend(engine.take_prints().unwrap_or_default());
            Ok::<_, String>((value, notes))
        };
        let (value, notes) = evaluate(&test.name)?;
        Ok(TestOutcome {
            name: test.name.clone(),
            is_passed: value == Some(json!(true)),
            input,
            // A package without a decision has none.
            decision: evaluate("decision").ok().and_then(|(value, _)| value),
            notes,
        })
    }

    /// Evaluates an object as a test writes it.
    fn value_of(&self, text: &str) -> Option<Value> {
        let results = self
            .engine
            .clone()
            .eval_query(text.to_owned(), false)
            .ok()?;
        let expression = results.result.first()?.expressions.first()?;
        serde_json::to_value(&expression.value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found() {
        let text = "package docker\n\ntest_a if decision.allow with input as {\"image\": {\"x\": \"}\"}}\n\ntest_b := false\ntest_c := 1\ntest_d(x) if x\nother if true with input as {}\n";
        let found = |module| tests(module, text, &words::words(text));
        let test = |name: &str, input: Option<&str>| PolicyTest {
            name: name.to_owned(),
            package: "docker".to_owned(),
            input: input.map(str::to_owned),
        };
        let expected = [
            test("test_a", Some("{\"image\": {\"x\": \"}\"}}")),
            test("test_b", None),
        ];
        assert_eq!(found("x_test.rego"), expected);
        assert_eq!(found("x.rego"), []);
    }
}
