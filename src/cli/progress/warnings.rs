//! Warnings as they are listed when a build has ended, and as JSON.
//!
//! Those about a place in the Dockerfile are counted and listed with that place; others (about
//! the machine, about the command line) are not findings and are told one by one.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::text;
use crate::cli::failure;
use crate::engine::SourcePlace;
use crate::oci::Digest;
use crate::progress::{Place, Warning, WarningSource};

/// Columns of a line of the Dockerfile that are shown.
const LINE_COLUMNS: usize = 120;

/// Lists the findings; with explanations, links and more lines of the Dockerfile on demand.
pub(crate) fn listed(warnings: &[Warning], in_detail: bool) -> String {
    let mut shown = String::new();
    let found: Vec<(&Warning, &WarningSource)> = warnings
        .iter()
        .filter_map(|warning| Some((warning, warning.source.as_ref()?)))
        .collect();
    let hint = match in_detail {
        true => "",
        false => " (use --debug to expand)",
    };
    match found.len() {
        0 => return shown,
        1 => _ = writeln!(shown, " 1 warning found{hint}:"),
        count => _ = writeln!(shown, " {count} warnings found{hint}:"),
    }
    for (warning, source) in found {
        let _ = writeln!(shown, " - {}", short(warning));
        match in_detail {
            true => detail(&mut shown, warning, source),
            false => pointed_line(&mut shown, source, warning.help.as_deref()),
        }
    }
    shown
}

/// Returns those that are about no place in the Dockerfile, each in one line.
pub(crate) fn others(warnings: &[Warning]) -> impl Iterator<Item = String> {
    let others = warnings.iter().filter(|warning| warning.source.is_none());
    others.map(|warning| match &warning.help {
        Some(help) => format!("{} ({help})", warning.short),
        None => warning.short.clone(),
    })
}

/// Returns the rule, what it found, and the line.
fn short(warning: &Warning) -> String {
    let rule = match warning.rule.as_str() {
        "" => String::new(),
        rule => format!("{rule}: "),
    };
    let line = match &warning.source {
        Some(source) => format!(" (line {})", source.first_line),
        None => String::new(),
    };
    format!("{rule}{}{line}", warning.short)
}

fn detail(shown: &mut String, warning: &Warning, source: &WarningSource) {
    for line in warning.detail.iter().chain(&warning.help) {
        let _ = writeln!(shown, "{line}");
    }
    if !warning.url.is_empty() {
        let _ = writeln!(shown, "More info: {}", warning.url);
    }
    let place = SourcePlace {
        filename: source.filename.clone(),
        text: source.text.clone(),
        first_line: source.first_line,
        last_line: source.last_line,
    };
    failure::excerpt(shown, &place);
    shown.push('\n');
}

/// Draws the line that the warning is about, with carets under the place and how to mend it
/// behind them.
fn pointed_line(shown: &mut String, source: &WarningSource, help: Option<&str>) {
    let Place {
        line: number,
        column,
        columns,
    } = source.place;
    let index = (number as usize).checked_sub(1);
    let Some(line) = index.and_then(|index| source.text.lines().nth(index)) else {
        return;
    };
    let characters = line.chars().skip_while(|c| *c == '\u{feff}');
    let place = (column as usize).saturating_sub(1);
    let before: String = characters.clone().take(place).collect();
    let behind = characters.skip(place);
    let marked: String = match columns {
        Some(columns) => behind.take(columns as usize).collect(),
        None => behind.collect(),
    };
    let before = text::clip(&before, usize::MAX).chars().count();
    let marked = text::clip(marked.trim_end(), usize::MAX).chars().count();
    let _ = writeln!(shown, "{number:6} | {}", text::clip(line, LINE_COLUMNS));
    if before < LINE_COLUMNS {
        let carets = "^".repeat(marked.clamp(1, LINE_COLUMNS - before));
        let row = format!(
            "       | {}{carets} {}",
            " ".repeat(before),
            help.unwrap_or_default()
        );
        let _ = writeln!(shown, "{}", row.trim_end());
    }
}

/// Returns the findings as a metadata file has them, if there are any.
pub(crate) fn json(warnings: &[Warning]) -> Option<serde_json::Value> {
    let found = warnings.iter().filter(|warning| warning.source.is_some());
    let found: Vec<WarningJson<'_>> = found.map(WarningJson::of).collect();
    if found.is_empty() {
        return None;
    }
    // Plain structures of strings and numbers always encode.
    serde_json::to_value(found).ok()
}

/// A warning as BuildKit's status messages have it; texts are base64.
#[derive(Debug, Serialize)]
pub(crate) struct WarningJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a Digest>,
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfoJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<RangeJson>,
}

#[derive(Debug, Serialize)]
struct SourceInfoJson<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Debug, Serialize)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Debug, Serialize)]
struct PositionJson {
    line: u32,
}

impl<'a> WarningJson<'a> {
    /// Takes over a warning.
    pub(crate) fn of(warning: &'a Warning) -> Self {
        let source = warning.source.as_ref();
        let range = |line| RangeJson {
            start: PositionJson { line },
            end: PositionJson { line },
        };
        let lines = source.map(|source| source.first_line..=source.last_line);
        Self {
            vertex: warning.vertex.as_ref(),
            level: 1,
            short: STANDARD.encode(short(warning)),
            detail: warning
                .detail
                .iter()
                .map(|line| STANDARD.encode(line))
                .collect(),
            url: &warning.url,
            source_info: source.map(|source| SourceInfoJson {
                filename: &source.filename,
                data: STANDARD.encode(source.text.as_bytes()),
                language: "Dockerfile",
            }),
            range: lines.into_iter().flatten().map(range).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(first_line: u32, place: Place) -> Warning {
        Warning {
            rule: "UndefinedVar".to_owned(),
            short: "the variable $x is not set here".to_owned(),
            detail: vec!["Variables are set before they are used".to_owned()],
            help: Some("set it".to_owned()),
            url: "https://example.test/undefined-var/".to_owned(),
            source: Some(WarningSource {
                filename: "Dockerfile".to_owned(),
                text: "FROM base\nCOPY a \\\n\t$x /\nRUN true\n".into(),
                first_line,
                last_line: 3,
                place,
            }),
            ..Warning::default()
        }
    }

    #[test]
    fn findings_are_counted_and_shown_with_their_line() {
        let here = Place {
            line: 3,
            column: 3,
            columns: Some(1),
        };
        let to_the_end = Place {
            line: 2,
            column: 6,
            columns: None,
        };
        let other = Warning {
            short: "files are copied".to_owned(),
            ..Warning::default()
        };
        let expected = "\u{20}2 warnings found (use --debug to expand):
 - UndefinedVar: the variable $x is not set here (line 2)
     3 |  $x /
       |   ^ set it
 - UndefinedVar: the variable $x is not set here (line 2)
     2 | COPY a \\
       |      ^^^ set it
";
        let all = [warning(2, here), other.clone(), warning(2, to_the_end)];
        assert_eq!(listed(&all, false), expected);
        assert_eq!(others(&all).collect::<Vec<_>>(), ["files are copied"]);
        assert_eq!(listed(&[other], false), "");
    }

    #[test]
    fn details_have_the_rule_a_link_and_the_instruction() {
        let expected = "\u{20}1 warning found:
 - UndefinedVar: the variable $x is not set here (line 2)
Variables are set before they are used
set it
More info: https://example.test/undefined-var/
Dockerfile:2
--------------------
   1 |     FROM base
   2 | >>> COPY a \\
   3 | >>>  $x /
     |      ^^^^
   4 |     RUN true
--------------------

";
        assert_eq!(listed(&[warning(2, Place::default())], true), expected);
    }

    #[test]
    fn json_has_one_range_for_each_line() {
        let warning = warning(2, Place::default());
        let json = serde_json::to_value(WarningJson::of(&warning)).unwrap();
        let short = STANDARD.decode(json["short"].as_str().unwrap()).unwrap();
        let expected = "UndefinedVar: the variable $x is not set here (line 2)";
        assert_eq!(String::from_utf8(short).unwrap(), expected);
        let range = serde_json::json!([
            { "start": { "line": 2 }, "end": { "line": 2 } },
            { "start": { "line": 3 }, "end": { "line": 3 } },
        ]);
        assert_eq!(json["range"], range);
        assert_eq!(json["sourceInfo"]["language"], "Dockerfile");
    }
}
