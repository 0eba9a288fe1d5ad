//! The options of `cooper build` that ask something instead of building.

use clap::{ArgAction, Args, ValueEnum};

use super::{csv, value};

/// Questions and how they are answered.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Answer a question instead of building: check, outline, targets, context or
    /// subrequests.describe [default: build]
    ///
    /// check: what the rules find in the Dockerfile. outline: arguments, secrets and SSH agents
    /// that the target takes. targets: the stages. context: what is read of the build context and
    /// what of it no step uses. Fields: format=text|json, for check also sarif, github and
    /// gitlab; ignorestatus=BOOL: findings do not make the command fail.
    #[arg(long, value_name = "METHOD[,format=FORMAT]")]
    pub(crate) call: Option<String>,
    /// The same as --call, as older versions of buildx name it
    #[arg(long, hide = true)]
    pub(crate) print: Option<String>,
    /// Shorthand for --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) check: bool,
    /// Form of the answer to --call and --check
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<ReportFormat>,
    /// With --check: mend in the Dockerfile what can be mended without changing what it means
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) fix: bool,
    /// With --fix: only show what would change
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) dry_run: bool,
}

/// A question as it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// What is asked.
    pub(crate) method: Method,
    /// Form of the answer.
    pub(crate) format: ReportFormat,
    /// Whether findings do not make the command fail.
    pub(crate) ignore_status: bool,
    /// Whether findings are mended.
    pub(crate) mending: Mending,
}

/// What is done about findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mending {
    /// Nothing.
    None,
    /// What would be done is shown.
    Shown,
    /// What can be mended is.
    Done,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// What the rules find
    #[value(alias = "lint")]
    Check,
    /// What the target takes from the user
    Outline,
    /// The stages
    Targets,
    /// What is read of the build contexts
    Context,
    /// What can be asked
    #[value(name = "subrequests.describe")]
    Describe,
}

/// Forms of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// JSON
    Json,
    /// Static Analysis Results Interchange Format 2.1.0; checks only
    Sarif,
    /// Annotations of GitHub workflows; checks only
    Github,
    /// GitLab's code quality report; checks only
    Gitlab,
}

impl CallArgs {
    /// Returns what is asked; `None` for a build.
    pub(crate) fn meant(&self) -> Result<Option<Call>, String> {
        let typed = self.call.as_deref().or(self.print.as_deref());
        let call = match typed {
            Some(text) => parse(text)?,
            None => Parsed::default(),
        };
        let method = match call.method {
            Some(method) if self.check && method != Method::Check => {
                return Err("--check and --call ask different questions".to_owned());
            }
            None if !self.check => return self.no_question(),
            method => method.unwrap_or(Method::Check),
        };
        let format = self.format.or(call.format).unwrap_or_default();
        let for_checks = !matches!(format, ReportFormat::Text | ReportFormat::Json);
        if for_checks && method != Method::Check {
            let name = format.to_possible_value();
            let name = name.as_ref().map_or("", |value| value.get_name());
            return Err(format!(
                "the format {name} is for checks only: use text or json"
            ));
        }
        let mending = match (self.fix, self.dry_run) {
            (true, true) => Mending::Shown,
            (true, false) => Mending::Done,
            (false, true) => return Err("--dry-run needs --fix".to_owned()),
            (false, false) => Mending::None,
        };
        if mending != Mending::None && (method != Method::Check || format != ReportFormat::Text) {
            return Err("--fix works with --check and the format text only".to_owned());
        }
        Ok(Some(Call {
            method,
            format,
            ignore_status: call.ignore_status,
            mending,
        }))
    }

    fn no_question(&self) -> Result<Option<Call>, String> {
        match (self.fix || self.dry_run, self.format) {
            (true, _) => Err("--fix and --dry-run need --check".to_owned()),
            (_, Some(_)) => Err("--format needs --check or --call".to_owned()),
            _ => Ok(None),
        }
    }
}

/// A value of `--call`; without a method it stands for a build.
#[derive(Debug, Default)]
struct Parsed {
    method: Option<Method>,
    format: Option<ReportFormat>,
    ignore_status: bool,
}

fn parse(text: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    if text.is_empty() {
        return Ok(parsed);
    }
    let mut named = false;
    for field in csv::fields(text)? {
        match field.split_once('=') {
            Some(("format", format)) => {
                let format = ReportFormat::from_str(format, true)
                    .map_err(|_| unknown::<ReportFormat>("format", format))?;
                parsed.format = Some(format);
            }
            Some(("ignorestatus", status)) => {
                let status = value::boolean(status);
                parsed.ignore_status =
                    status.map_err(|error| format!("invalid ignorestatus of --call: {error}"))?;
            }
            Some(_) => {
                return Err(format!(
                    "invalid field {field:?} of --call: expected format=… or ignorestatus=…"
                ));
            }
            None if named => return Err(format!("--call {text:?} names two methods")),
            None => {
                named = true;
                if field != "build" {
                    let method = Method::from_str(&field, false)
                        .map_err(|_| unknown::<Method>("method", &field))?;
                    parsed.method = Some(method);
                }
            }
        }
    }
    Ok(parsed)
}

fn unknown<T: ValueEnum>(what: &str, text: &str) -> String {
    let values = T::value_variants().iter().filter_map(T::to_possible_value);
    let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
    format!(
        "unknown {what} {text:?} of --call: expected {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Typed {
        #[command(flatten)]
        call: CallArgs,
    }

    fn meant(words: &str) -> Result<Option<Call>, String> {
        let words = std::iter::once("x").chain(words.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        typed.call.meant()
    }

    #[test]
    fn questions_are_read_as_buildx_reads_them() {
        use ReportFormat::{Json, Sarif, Text};
        let call = |method, format, ignore_status| Call {
            method,
            format,
            ignore_status,
            mending: Mending::None,
        };
        for (words, expected) in [
            ("", None),
            ("--call build", None),
            ("--call=", None),
            ("--check=false", None),
            ("--check", Some(call(Method::Check, Text, false))),
            ("--call lint", Some(call(Method::Check, Text, false))),
            (
                "--call outline,format=json",
                Some(call(Method::Outline, Json, false)),
            ),
            ("--print=targets", Some(call(Method::Targets, Text, false))),
            (
                "--call=subrequests.describe",
                Some(call(Method::Describe, Text, false)),
            ),
            ("--call=context", Some(call(Method::Context, Text, false))),
            (
                "--call=check,ignorestatus=1,format=sarif",
                Some(call(Method::Check, Sarif, true)),
            ),
            (
                "--check --format=json",
                Some(call(Method::Check, Json, false)),
            ),
            (
                "--check --call=check,format=json",
                Some(call(Method::Check, Json, false)),
            ),
        ] {
            assert_eq!(meant(words), Ok(expected), "{words}");
        }
        let fix = meant("--check --fix --dry-run").unwrap().unwrap();
        assert_eq!(fix.mending, Mending::Shown);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, expected) in [
            (
                "--call outlin",
                "unknown method \"outlin\" of --call: expected check, outline, targets, context, \
                 subrequests.describe",
            ),
            ("--call check,x=1", "invalid field \"x=1\" of --call"),
            (
                "--call check,targets",
                "--call \"check,targets\" names two methods",
            ),
            (
                "--call check,format=xml",
                "unknown format \"xml\" of --call",
            ),
            ("--call targets --check", "ask different questions"),
            (
                "--call targets,format=sarif",
                "the format sarif is for checks only",
            ),
            ("--fix", "--fix and --dry-run need --check"),
            ("--check --dry-run", "--dry-run needs --fix"),
            ("--check --fix --format json", "the format text only"),
            ("--format json", "--format needs --check or --call"),
        ] {
            let error = meant(words).unwrap_err();
            assert!(error.contains(expected), "{words}: {error}");
        }
    }
}
