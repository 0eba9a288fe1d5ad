//! Changes to an image config: history entries, environment, what a stage inherits; and values
//! written the way Go prints them, since history texts contain them.

use super::dockerfile::instruction::Healthcheck;
use crate::oci::{History, ImageConfig, Platform};

/// Who writes the history entries; other tools look for it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// `PATH` of images that have none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the config that a stage without a base image starts with.
pub(super) fn empty(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::empty(platform);
    image.config.working_dir = "/".to_owned();
    set_default_path(&mut image);
    image
}

/// Makes the config that a stage starts with from the one of its base.
///
/// Members that nobody here knows are left behind: they are about the base (an inline cache,
/// the container it was committed from), not about what is built on it.
pub(super) fn inherit(mut image: ImageConfig) -> ImageConfig {
    image.created = None;
    image.config.on_build.clear();
    image.other.clear();
    image.config.other.clear();
    image
}

/// Sets `PATH` where the base image has none.
pub(super) fn set_default_path(image: &mut ImageConfig) {
    let has_path = image
        .config
        .env
        .iter()
        .any(|pair| pair.starts_with("PATH="));
    if !has_path && image.os != "windows" {
        image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
}

/// Sets a variable, in its place where it was set before.
pub(super) fn set_env(image: &mut ImageConfig, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let known = image.config.env.iter_mut().find(|known| {
        let key = known.split_once('=').map_or(known.as_str(), |(key, _)| key);
        key == name
    });
    match known {
        Some(known) => *known = pair,
        None => image.config.env.push(pair),
    }
}

/// Adds a history entry; `epoch` is the time of everything new, where one is given.
pub(super) fn commit(
    image: &mut ImageConfig,
    created_by: String,
    makes_layer: bool,
    epoch: Option<i64>,
) {
    image.history.push(History {
        created: epoch.and_then(rfc3339),
        created_by,
        author: String::new(),
        comment: HISTORY_COMMENT.into(),
        empty_layer: !makes_layer,
    });
}

fn rfc3339(seconds: i64) -> Option<String> {
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

/// Writes a list as Go's `%v` does: `[a b]`.
pub(super) fn go_list<T: AsRef<str>>(values: &[T]) -> String {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    format!("[{}]", values.join(" "))
}

/// Writes a list as Go's `%q` does: `["a" "b"]`.
pub(super) fn go_quoted_list(values: &[String]) -> String {
    go_list(
        &values
            .iter()
            .map(|value| go_quoted(value))
            .collect::<Vec<_>>(),
    )
}

/// Writes a text as a Go string literal.
fn go_quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\"");
    for ch in text.chars() {
        match ch {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ch if ch < ' ' || ch == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(ch));
            }
            ch if ch.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(ch));
            }
            ch => out.push(ch),
        }
    }
    out.push('"');
    out
}

/// Writes a duration as Go does: `1m30s`, `1.5s`, `100ms`, `0s`.
pub(super) fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let small = [("ns", 1_u64), ("µs", 1_000), ("ms", 1_000_000)];
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, size) = small
            .iter()
            .rev()
            .find(|(_, size)| total >= *size)
            .unwrap_or(&small[0]);
        return format!("{sign}{}{unit}", decimal(total, *size));
    }
    let minutes = total / 60_000_000_000;
    let seconds = decimal(total % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// Divides, writing as many decimals as there are.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// Converts a `HEALTHCHECK` whose command is already in its final form.
pub(super) fn healthcheck(check: &Healthcheck, test: Vec<String>) -> crate::oci::Healthcheck {
    let nanoseconds = |duration: Option<std::time::Duration>| {
        let nanoseconds = duration.unwrap_or_default().as_nanos();
        i64::try_from(nanoseconds).unwrap_or(i64::MAX)
    };
    match check {
        Healthcheck::None => crate::oci::Healthcheck {
            test,
            ..crate::oci::Healthcheck::default()
        },
        Healthcheck::Command(command) => crate::oci::Healthcheck {
            test,
            interval: nanoseconds(command.interval),
            timeout: nanoseconds(command.timeout),
            start_period: nanoseconds(command.start_period),
            start_interval: nanoseconds(command.start_interval),
            retries: i64::from(command.retries.unwrap_or_default()),
        },
    }
}

/// Writes a health check as its history entry shows it.
pub(super) fn healthcheck_text(check: &crate::oci::Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        go_list(&check.test),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_000_000_000, "-1m30s"),
        ] {
            assert_eq!(go_duration(nanoseconds), text);
        }
    }

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        let values = ["/bin/sh", "-c", "echo \"a\\b\"\n\tä\u{1}"].map(str::to_owned);
        assert_eq!(
            go_quoted_list(&values),
            r#"["/bin/sh" "-c" "echo \"a\\b\"\n\tä\x01"]"#
        );
    }

    #[test]
    fn variables_keep_their_place() {
        let mut image = empty(&Platform::linux("amd64", ""));
        set_env(&mut image, "A", "1");
        set_env(&mut image, "PATH", "/x");
        set_env(&mut image, "A", "2=3");
        assert_eq!(image.config.env, ["PATH=/x", "A=2=3"]);
    }

    #[test]
    fn a_given_time_is_the_time_of_new_entries() {
        let mut image = ImageConfig::default();
        commit(&mut image, "RUN x".to_owned(), true, Some(1));
        assert_eq!(
            image.history[0].created.as_deref(),
            Some("1970-01-01T00:00:01Z")
        );
    }
}
