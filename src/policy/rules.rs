//! BuildKit's source policies: rules that allow, deny and replace sources by what they are called.
//!
//! A policy says nothing about a source that none of its rules matches; of several matching rules
//! that allow or deny, the last one counts. A rule that replaces the source ends the round, and all
//! policies judge what took its place, until nothing is replaced any more.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy as wire;
use regex::Regex;

use super::file::{self, InvalidPolicy};
use super::identifier::shown;
use crate::llb::pb;

/// Most times that one source may be replaced.
const REPLACEMENTS_MAX: usize = 20;

/// A list of rules.
#[derive(Debug, Clone)]
pub struct SourcePolicy {
    /// Where it was read from, as messages show it.
    name: Arc<str>,
    rules: Arc<[Rule]>,
}

/// Says why a source is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A rule denies it.
    #[error("source {source_name:?} denied by policy: rule {rule} of {policy}")]
    Denied {
        /// The source.
        source_name: String,
        /// The policy.
        policy: String,
        /// The number of the rule, from 1, and what it selects.
        rule: String,
    },
    /// Rules replace what other rules replaced, again and again.
    #[error(
        "source {0:?} was replaced more than {REPLACEMENTS_MAX} times by policy: its rules go in a circle"
    )]
    Circle(String),
}

#[derive(Debug)]
struct Rule {
    action: Action,
    identifier: String,
    selects: Selects,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
enum Action {
    Allow,
    Deny,
    Replace(wire::Update),
}

/// How identifiers are compared with that of a rule; the same text always matches.
#[derive(Debug)]
enum Selects {
    Exactly,
    /// The whole, with a group for each `*`.
    Wildcard(Regex),
    /// Any part.
    Part(Regex),
}

#[derive(Debug)]
struct Condition {
    key: String,
    is: Is,
}

/// What the attribute of a source has to be; one that is not there is empty.
#[derive(Debug)]
enum Is {
    Equal(String),
    Other(String),
    Matching(Regex),
}

impl SourcePolicy {
    /// Reads a policy; `name` is what messages call it.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, InvalidPolicy> {
        let policy = file::read(bytes)?;
        let rules = policy.rules.into_iter().enumerate();
        let rules = rules.map(|(index, rule)| {
            Rule::read(rule)
                .map_err(|reason| InvalidPolicy::new(format!("rules[{index}]: {reason}")))
        });
        Ok(Self {
            name: name.into(),
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Judges a source once; says whether it was replaced.
    fn judge(&self, source: &mut pb::SourceOp) -> Result<bool, Denial> {
        let name = source.identifier.clone();
        let mut denied = None;
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.matches(source) {
                continue;
            }
            match &rule.action {
                Action::Allow => denied = None,
                Action::Deny => denied = Some((index, rule)),
                Action::Replace(update) => {
                    if rule.replace(update, source) {
                        return Ok(true);
                    }
                }
            }
        }
        match denied {
            None => Ok(false),
            Some((index, rule)) => Err(Denial::Denied {
                source_name: shown(&name),
                policy: self.name.to_string(),
                rule: format!("{} ({:?})", index + 1, rule.identifier),
            }),
        }
    }
}

/// Judges a source by all policies and replaces it as they say; says whether it was replaced.
pub fn evaluate(policies: &[SourcePolicy], source: &mut pb::SourceOp) -> Result<bool, Denial> {
    let mut is_replaced = false;
    for _ in 0..=REPLACEMENTS_MAX {
        let mut is_other = false;
        for policy in policies {
            is_other = policy.judge(source)?;
            if is_other {
                break;
            }
        }
        if !is_other {
            return Ok(is_replaced);
        }
        is_replaced = true;
    }
    Err(Denial::Circle(shown(&source.identifier)))
}

impl Rule {
    fn read(rule: wire::Rule) -> Result<Self, String> {
        let selector = rule.selector.clone().ok_or("it has no selector")?;
        let action = match rule.action() {
            wire::PolicyAction::Allow => Action::Allow,
            wire::PolicyAction::Deny => Action::Deny,
            wire::PolicyAction::Convert => Action::Replace(
                rule.updates
                    .ok_or("it replaces the source by nothing: updates are missing")?,
            ),
        };
        let identifier = selector.identifier.clone();
        let selects = match selector.match_type() {
            wire::MatchType::Exact => Selects::Exactly,
            wire::MatchType::Regex => Selects::Part(pattern(&identifier)?),
            wire::MatchType::Wildcard => Selects::Wildcard(wildcard(&identifier)?),
        };
        let conditions = selector.constraints.into_iter().map(|constraint| {
            let condition = constraint.condition();
            let (key, value) = (constraint.key, constraint.value);
            let is = match condition {
                wire::AttrMatch::Equal => Is::Equal(value),
                wire::AttrMatch::Notequal => Is::Other(value),
                wire::AttrMatch::Matches => Is::Matching(pattern(&value)?),
            };
            Ok(Condition { key, is })
        });
        Ok(Self {
            action,
            identifier,
            selects,
            conditions: conditions.collect::<Result<_, String>>()?,
        })
    }

    fn matches(&self, source: &pb::SourceOp) -> bool {
        let attr = |key: &str| source.attrs.get(key).map_or("", String::as_str);
        let holds = |condition: &Condition| match &condition.is {
            Is::Equal(value) => attr(&condition.key) == value,
            Is::Other(value) => attr(&condition.key) != value,
            Is::Matching(pattern) => pattern.is_match(attr(&condition.key)),
        };
        let name = &source.identifier;
        let is_meant = *name == self.identifier
            || match &self.selects {
                Selects::Exactly => false,
                Selects::Wildcard(pattern) | Selects::Part(pattern) => pattern.is_match(name),
            };
        is_meant && self.conditions.iter().all(holds)
    }

    /// Changes a source; says whether it is another one now.
    fn replace(&self, update: &wire::Update, source: &mut pb::SourceOp) -> bool {
        let template = match update.identifier.as_str() {
            "" => &self.identifier,
            identifier => identifier,
        };
        let name = self.filled(template, &source.identifier);
        let mut is_other = false;
        if !name.is_empty() && name != source.identifier {
            source.identifier = name;
            is_other = true;
        }
        for (key, value) in &update.attrs {
            let old = source.attrs.insert(key.clone(), value.clone());
            is_other |= old.as_ref() != Some(value);
        }
        is_other
    }

    /// Fills `$1`, `${1}` … in a template with what the rule's pattern found.
    fn filled(&self, template: &str, name: &str) -> String {
        match &self.selects {
            Selects::Exactly => template.to_owned(),
            Selects::Part(pattern) => pattern.replace_all(name, template).into_owned(),
            Selects::Wildcard(pattern) => match pattern.captures(name) {
                None => name.to_owned(),
                Some(found) => {
                    let mut filled = String::new();
                    found.expand(template, &mut filled);
                    filled
                }
            },
        }
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("{text:?} is not a regular expression: {error}"))
}

fn wildcard(text: &str) -> Result<Regex, String> {
    if text.contains("**") {
        return Err(format!(
            "{text:?} is not a wildcard: two stars stand together"
        ));
    }
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    pattern(&format!("^{}$", parts.join("(.*)")))
}

#[cfg(test)]
mod tests;
