//! `--source-policy-file` and `--policy`: which policies a build is held to.

use std::path::Path;

use super::args::{PolicyArgs, csv, value};
use super::env::Environment;
use super::failure::Failure;
use crate::engine::request::{Policies, PolicyOption, SourcePolicy};
use crate::engine::{EngineError, ErrorKind};

/// Reads the policies that a build is held to.
pub(crate) fn meant(args: &PolicyArgs, environment: &Environment) -> Result<Policies, Failure> {
    let typed = args.source_policy_file.as_deref();
    let inherited = environment.source_policy();
    let files = inherited.iter().map(|path| path.as_path()).chain(typed);
    let sources = files.map(source_policy);
    Ok(Policies {
        sources: sources.collect::<Result<_, _>>()?,
        options: options(&args.policies).map_err(Failure::Usage)?,
        uses_default: environment.is_true("BUILDX_DEFAULT_POLICY"),
    })
}

fn options(typed: &[String]) -> Result<Vec<PolicyOption>, String> {
    let options = typed.iter().map(|text| option(text));
    options.collect()
}

fn option(text: &str) -> Result<PolicyOption, String> {
    let mut option = PolicyOption::default();
    for (key, value) in csv::pairs(text).map_err(|reason| format!("--policy {reason}"))? {
        let invalid = || format!("--policy {text:?}: invalid value {key}={value}");
        let boolean = || value::boolean(&value).map_err(|_| invalid());
        match key.as_str() {
            "filename" if !value.is_empty() => option.files.push(value),
            "reset" => option.reset = boolean()?,
            "disabled" => option.disabled = boolean()?,
            "strict" => option.strict = Some(boolean()?),
            "log-level" => {
                let level = value.parse();
                let level = level.map_err(|reason| format!("--policy {text:?}: {reason}"))?;
                option.log_level = Some(level);
            }
            _ => return Err(invalid()),
        }
    }
    Ok(option)
}

fn source_policy(path: &Path) -> Result<SourcePolicy, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    let parsed = SourcePolicy::parse(&path.to_string_lossy(), &bytes);
    parsed.map_err(|error| {
        let text = format!("{} is no source policy: {error}", path.display());
        EngineError::new(ErrorKind::User, text).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::LogLevel;

    #[test]
    fn options_are_read() {
        let typed = "filename=a.rego,filename=cwd://b,reset=true,strict=1,log-level=debug";
        let expected = PolicyOption {
            files: vec!["a.rego".to_owned(), "cwd://b".to_owned()],
            reset: true,
            disabled: false,
            strict: Some(true),
            log_level: Some(LogLevel::Debug),
        };
        assert_eq!(option(typed), Ok(expected));
        for wrong in [
            "a.rego",
            "filename=",
            "reset=maybe",
            "log-level=loud",
            "file=a",
        ] {
            assert!(option(wrong).is_err(), "{wrong}");
        }
    }
}
