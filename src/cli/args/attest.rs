//! The options of `cooper build` about what is said of the result.

use std::ffi::{OsStr, OsString};

use clap::Args;

/// Options that mean `true` without a value.
const WITH_OPTIONAL_VALUES: [&str; 2] = ["--provenance", "--sbom"];

/// Options that attach statements to the result.
#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// Attach how the image was built (SLSA provenance): a boolean, or mode=min|max, version=v1|v0.2,
    /// builder-id=, filename=, reproducible=BOOL, inline-only=BOOL, complete-materials=BOOL
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL | KEY=VALUE,…")]
    pub(crate) provenance: Option<String>,
    /// Attach the list of the software in the image (SPDX); the scanner is built in
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL | KEY=VALUE,…")]
    pub(crate) sbom: Option<String>,
    /// Attach a statement: type=provenance, type=sbom, or one of your own (repeatable)
    ///
    /// Your own: type=custom,predicate-type=URI,file=PATH[,filename=NAME], where the file is JSON.
    /// Short names of predicate types: cyclonedx, openvex, scai, spdx, test-result, vuln.
    #[arg(long = "attest", value_name = "type=TYPE,…")]
    pub(crate) attest: Vec<String>,
    /// Sign what is pushed, and the statements about it, as cosign does: key=FILE
    ///
    /// Environment: COSIGN_PASSWORD for a key that is encrypted.
    #[arg(long, value_name = "key=FILE")]
    pub(crate) sign: Option<String>,
}

/// Joins values that stand as words of their own to their options: buildx takes `--provenance false`.
///
/// Alone the options mean `true` here, so a word behind them counts as a value only if it looks
/// like one: a boolean, or `key=value`.
pub(crate) fn join_values(args: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(args.len());
    let mut only_operands = false;
    for word in args {
        match joined.last_mut() {
            Some(last) if !only_operands && takes_value(last) && is_value(&word) => {
                last.push("=");
                last.push(word);
            }
            _ => {
                only_operands |= word == "--";
                joined.push(word);
            }
        }
    }
    joined
}

fn takes_value(option: &OsStr) -> bool {
    let mut known = WITH_OPTIONAL_VALUES.iter();
    known.any(|known| option == OsStr::new(known))
}

fn is_value(word: &OsStr) -> bool {
    let Some(word) = word.to_str() else {
        return false;
    };
    let is_key =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match word.split_once('=') {
        Some((key, _)) => is_key(key) && !key.starts_with('-'),
        None => matches!(word, "true" | "false" | "1" | "0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_words_of_their_own() {
        for (typed, expected) in [
            ("--provenance false .", "--provenance=false ."),
            (
                "--sbom true --provenance mode=max,version=v1 .",
                "--sbom=true --provenance=mode=max,version=v1 .",
            ),
            ("--sbom generator=scan .", "--sbom=generator=scan ."),
            ("--provenance .", "--provenance ."),
            ("--provenance --sbom app", "--provenance --sbom app"),
            ("--provenance=true false", "--provenance=true false"),
            ("--provenance dir/a=b", "--provenance dir/a=b"),
            ("-- --sbom true", "-- --sbom true"),
        ] {
            let words = typed.split(' ').map(OsString::from).collect();
            let joined = join_values(words).join(OsStr::new(" "));
            assert_eq!(joined, OsString::from(expected), "{typed}");
        }
    }
}
