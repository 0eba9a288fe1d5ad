//! Options about registries: buildah's names, for every command that talks to one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value;

/// How registries are reached, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// User name and password for the registry; without a password it is asked for
    #[arg(
        long,
        value_name = "USER[:PASSWORD]",
        help_heading = "Registry options"
    )]
    pub(crate) creds: Option<String>,
    /// File with registry credentials, read before docker's and podman's
    ///
    /// Environment: REGISTRY_AUTH_FILE.
    #[arg(long, value_name = "PATH", help_heading = "Registry options")]
    pub(crate) authfile: Option<PathBuf>,
    /// Folder with certificates for registries: *.crt, *.cert, *.key
    #[arg(
        long = "cert-dir",
        value_name = "DIR",
        help_heading = "Registry options"
    )]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Check certificates and refuse plain HTTP (false: of no registry)
    #[arg(long = "tls-verify", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean, value_name = "BOOL", help_heading = "Registry options")]
    pub(crate) tls_verify: Option<bool>,
    /// Times that a failed request is repeated [default: 6]
    #[arg(long, value_name = "TIMES", help_heading = "Registry options")]
    pub(crate) retry: Option<u32>,
    /// Longest pause before the first repetition, doubled for each further one [default: 500ms]
    #[arg(long = "retry-delay", value_name = "DURATION", value_parser = duration, help_heading = "Registry options")]
    pub(crate) retry_delay: Option<Duration>,
    /// Place to look first for images of a registry, docker.io where none is named (repeatable)
    #[arg(
        long = "registry-mirror",
        value_name = "[REGISTRY=]HOST[/PATH]",
        help_heading = "Registry options"
    )]
    pub(crate) mirrors: Vec<String>,
}

/// How several jobs make one image.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JoinArgs {
    /// Add what is pushed to the image that other jobs push under the same name
    ///
    /// ID names the run that the jobs belong to; that of GitHub, GitLab, CircleCI, Azure or
    /// Jenkins is known. A newer run replaces the images of older ones, platform by platform.
    #[arg(long, value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) join: Option<String>,
    /// Platforms to wait for: the tag changes when this run has pushed them all
    #[arg(long = "join-platforms", value_name = "PLATFORM", value_delimiter = ',', value_parser = value::platform, requires = "join")]
    pub(crate) join_platforms: Vec<crate::oci::Platform>,
}

/// Reads a time as Go writes it: `500ms`, `2s`, `1m`; seconds where no unit stands.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "invalid duration {text:?}: expected 500ms, 2s or 1m"
            ));
        }
    };
    match number.parse::<f64>() {
        Ok(number) if number * factor <= 86400.0 => Ok(Duration::from_secs_f64(number * factor)),
        _ => Err(format!(
            "invalid duration {text:?}: expected 500ms, 2s or 1m"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [("500ms", 500), ("2s", 2000), ("1.5", 1500), ("1m", 60_000)] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for bad in ["", "s", "1d", "-1s", "1000h", "1.2.3s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
