//! `--filter` of `du` and `prune`: which items are meant.
//!
//! A filter is `KEY`, `KEY=VALUE`, `KEY!=VALUE` or `KEY~=REGEX`; all filters must match. As with
//! docker, `id=` takes a regular expression, and `until=DURATION` means what no build has used for
//! that long. Beyond docker's keys there is `project`, the build context.

use regex::Regex;

use super::usage::{RecordType, UsageItem};

/// Keys that name a property an item has or lacks.
const FLAGS: [&str; 5] = ["inuse", "mutable", "immutable", "shared", "private"];
/// Keys that name a text.
const TEXTS: [&str; 5] = ["id", "parents", "description", "type", "project"];
/// Keys with the time since the last use; the second is docker's old name.
const AGES: [&str; 2] = ["until", "unused-for"];
/// Nanoseconds in a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Filters that an item must all match.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    rules: Vec<Rule>,
    /// Only what was last used this long ago, or longer.
    pub unused_for_ns: Option<i64>,
}

#[derive(Debug, Clone)]
enum Rule {
    Flag {
        key: String,
        wanted: bool,
    },
    Text {
        key: String,
        value: String,
        wanted: bool,
    },
    Pattern {
        key: String,
        pattern: Regex,
    },
}

impl UsageFilter {
    /// Reads the values of `--filter`.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for text in texts {
            filter.add(text)?;
        }
        Ok(filter)
    }

    /// Requires a type, beside what is required already.
    #[must_use]
    pub fn of_type(mut self, kind: RecordType) -> Self {
        self.rules.push(Rule::Text {
            key: "type".to_owned(),
            value: kind.as_str().to_owned(),
            wanted: true,
        });
        self
    }

    /// Says whether an item is meant, as far as it can be told without a clock.
    pub fn matches(&self, item: &UsageItem) -> bool {
        self.rules.iter().all(|rule| rule.matches(item))
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let refused = |reason: &str| format!("invalid filter {text:?}: {reason}");
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim().to_lowercase(), Some(value.trim())),
            None => (text.trim().to_lowercase(), None),
        };
        let (key, operator) = match name.strip_suffix(['!', '~']) {
            Some(key) => (key.trim_end().to_owned(), name.chars().next_back()),
            None => (name, None),
        };
        if AGES.contains(&key.as_str()) {
            let age = value.filter(|_| operator.is_none());
            let age = age.and_then(duration_ns);
            let age = age.ok_or_else(|| refused("expected a duration such as 24h or 1h30m"))?;
            if self.unused_for_ns.replace(age).is_some() {
                return Err(refused("only one duration can be given"));
            }
            return Ok(());
        }
        if FLAGS.contains(&key.as_str()) {
            let wanted = match value {
                None | Some("" | "true" | "1") => true,
                Some("false" | "0") => false,
                Some(_) => return Err(refused("expected true or false")),
            };
            let wanted = match operator {
                None => wanted,
                Some('!') => !wanted,
                Some(_) => return Err(refused("it is true or false and takes no pattern")),
            };
            self.rules.push(Rule::Flag { key, wanted });
            return Ok(());
        }
        if !TEXTS.contains(&key.as_str()) {
            let keys = [&AGES[..1], &TEXTS[..], &FLAGS[..]].concat().join(", ");
            return Err(refused(&format!("no such key, expected one of {keys}")));
        }
        let value = value.ok_or_else(|| refused("expected a value after ="))?;
        let rule = match operator {
            Some('~') => pattern(key, value),
            None if key == "id" => pattern(key, value),
            operator => Ok(Rule::Text {
                value: checked(&key, value).map_err(|reason| refused(&reason))?,
                key,
                wanted: operator.is_none(),
            }),
        };
        self.rules.push(rule.map_err(|reason| refused(&reason))?);
        Ok(())
    }
}

/// Reads a duration: Go's (`1h30m`, `45s`, `100ms`), with days (`2d`), or a number of seconds.
pub fn duration_ns(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return (seconds >= 0).then(|| seconds.saturating_mul(SECOND_NS));
    }
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit_ns = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND_NS,
            "m" => 60 * SECOND_NS,
            "h" => 3_600 * SECOND_NS,
            "d" => 86_400 * SECOND_NS,
            _ => return None,
        };
        let part = match number.parse::<i64>() {
            Ok(whole) => whole.checked_mul(unit_ns)?,
            // Half a second more or less than nanoseconds can say is no matter.
            Err(_) => (number.parse::<f64>().ok()? * unit_ns as f64) as i64,
        };
        total = total.checked_add(part)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

fn pattern(key: String, value: &str) -> Result<Rule, String> {
    let pattern = Regex::new(value).map_err(|error| error.to_string())?;
    Ok(Rule::Pattern { key, pattern })
}

/// Refuses a type that does not exist: nothing would ever match.
fn checked(key: &str, value: &str) -> Result<String, String> {
    if key == "type" {
        value.parse::<RecordType>()?;
    }
    Ok(value.to_owned())
}

impl Rule {
    fn matches(&self, item: &UsageItem) -> bool {
        match self {
            Self::Flag { key, wanted } => flag(item, key) == *wanted,
            Self::Text { key, value, wanted } => {
                let is_same = match key.as_str() {
                    "parents" => same_ids(&item.parents, value),
                    key => text(item, key) == *value,
                };
                is_same == *wanted
            }
            Self::Pattern { key, pattern } => pattern.is_match(&text(item, key)),
        }
    }
}

fn flag(item: &UsageItem, key: &str) -> bool {
    match key {
        "inuse" => item.is_in_use,
        "mutable" => item.is_mutable,
        "immutable" => !item.is_mutable,
        "shared" => item.is_shared,
        _ => !item.is_shared,
    }
}

fn text(item: &UsageItem, key: &str) -> String {
    match key {
        "id" => item.id.clone(),
        "parents" => item.parents.join(";"),
        "description" => item.description.clone(),
        "project" => item.project.clone(),
        _ => item.record_type.as_str().to_owned(),
    }
}

/// Compares lists of ids, whatever their order.
fn same_ids(parents: &[String], value: &str) -> bool {
    let mut wanted: Vec<&str> = value.split(';').filter(|id| !id.is_empty()).collect();
    let mut parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    parents.sort_unstable();
    wanted == parents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::usage::item;

    fn sample() -> UsageItem {
        UsageItem {
            record_type: RecordType::CacheMount,
            parents: vec!["p1".to_owned(), "p2".to_owned()],
            description: "cached mount /root/.cache of RUN go build".to_owned(),
            is_mutable: true,
            project: "/src/app".to_owned(),
            ..item("abc123", 1)
        }
    }

    #[test]
    fn filters_are_matched_as_docker_matches_them() {
        for (texts, expected) in [
            (&[][..], true),
            (&["id=abc"], true),
            (&["id=^c1"], false),
            (&["id!=abc123"], false),
            (&["id~=^abc"], true),
            (&["type=exec.cachemount"], true),
            (&["type!=exec.cachemount"], false),
            (&["type!=regular"], true),
            (&["type~=^exec"], true),
            (&["description=cached"], false),
            (&["description~=go build$"], true),
            (&["parents=p2;p1"], true),
            (&["parents=p1"], false),
            (&["parents~=p1"], true),
            (&["mutable"], true),
            (&["mutable=true"], true),
            (&["immutable="], false),
            (&["inuse"], false),
            (&["inuse=false"], true),
            (&["private", "shared"], false),
            (&["private", "mutable!=false"], true),
            (&["project=/src/app"], true),
            (&["ID=abc", "Type=regular"], false),
        ] {
            let filter = UsageFilter::parse(texts.iter().copied()).unwrap();
            assert_eq!(filter.matches(&sample()), expected, "{texts:?}");
        }
        let any = UsageFilter::default();
        assert!(
            any.clone()
                .of_type(RecordType::CacheMount)
                .matches(&sample())
        );
        assert!(!any.of_type(RecordType::Regular).matches(&sample()));
    }

    #[test]
    fn wrong_filters_are_refused() {
        for text in [
            "color=red",
            "type=layer",
            "id~=(",
            "until=soon",
            "until!=1h",
            "inuse=maybe",
            "shared~=x",
            "description",
        ] {
            let refused = UsageFilter::parse([text]).unwrap_err();
            assert!(refused.contains("invalid filter"), "{refused}");
        }
        assert!(UsageFilter::parse(["until=1h", "unused-for=2h"]).is_err());
        let filter = UsageFilter::parse(["until=1h30m"]).unwrap();
        assert_eq!(filter.unused_for_ns, Some(5400 * SECOND_NS));
    }

    #[test]
    fn durations_are_read_as_go_reads_them_and_as_seconds() {
        for (text, expected) in [
            ("172800", Some(172_800 * SECOND_NS)),
            ("48h", Some(172_800 * SECOND_NS)),
            ("2d", Some(172_800 * SECOND_NS)),
            ("1h30m5s", Some(5405 * SECOND_NS)),
            ("1.5s", Some(1_500_000_000)),
            ("250ms", Some(250_000_000)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("h", None),
            ("1", Some(SECOND_NS)),
            ("1x", None),
            ("1h2", None),
        ] {
            assert_eq!(duration_ns(text), expected, "{text}");
        }
    }
}
