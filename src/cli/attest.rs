//! What was typed after `--provenance`, `--sbom` and `--attest` becomes what is meant.

use std::collections::BTreeMap;

use super::args::{AttestArgs, csv, value};
use super::env::Environment;
use super::program::Program;
use super::provenance;
use crate::engine::request::{
    Asked, AttestationRequest, Attributes, BUILD_ARG_PREFIX, Custom, GitFacts, InvalidAttestation,
    Reported,
};

/// Variable that says how much provenance the metadata file tells.
const METADATA: &str = "BUILDX_METADATA_PROVENANCE";
/// Variable that says whether provenance tells what git knows about the folder.
const GIT_INFO: &str = "BUILDX_GIT_INFO";
/// Variable that says whether labels tell it.
const GIT_LABELS: &str = "BUILDX_GIT_LABELS";
/// Variable that says whether a tree with changes is marked.
const GIT_CHECK_DIRTY: &str = "BUILDX_GIT_CHECK_DIRTY";

/// Reads the options; warns of what has no effect.
pub(crate) fn meant(
    program: &Program,
    args: &AttestArgs,
    build_args: &BTreeMap<String, String>,
) -> Result<AttestationRequest, String> {
    let request = read(args, build_args, &program.environment)?;
    for ignored in request.sbom.iter().flat_map(|sbom| &sbom.ignored) {
        let text = format!("{ignored} of --sbom is ignored: cooper scans images by itself");
        program.console.warn(&text);
    }
    Ok(request)
}

fn read(
    args: &AttestArgs,
    build_args: &BTreeMap<String, String>,
    environment: &Environment,
) -> Result<AttestationRequest, String> {
    let mut request = AttestationRequest {
        reported: reported(environment)?,
        git: git(environment),
        ..AttestationRequest::default()
    };
    // The later option of a kind wins, and an option wins over a build argument.
    for (kind, text) in typed(args, build_args) {
        let attributes = match kind {
            Some(kind) => shorthand(kind, &text)?,
            None => attributes(&text)?,
        };
        add(&mut request, attributes)?;
    }
    let refused = |error: InvalidAttestation| error.to_string();
    request.check_filenames().map_err(refused)?;
    if request.provenance.is_some() || request.reported.is_some() {
        request.environment = provenance::environment(environment)?;
    }
    Ok(request)
}

/// Lists what was typed, what wins last: its kind where that is not part of the text.
fn typed(
    args: &AttestArgs,
    build_args: &BTreeMap<String, String>,
) -> Vec<(Option<String>, String)> {
    let from_build_args = build_args.iter().filter_map(|(name, value)| {
        let kind = name.strip_prefix(BUILD_ARG_PREFIX)?.to_lowercase();
        Some((Some(kind), value.clone()))
    });
    let own = args.attest.iter().map(|text| (None, text.clone()));
    let shorthand =
        |kind: &str, text: &Option<String>| text.clone().map(|text| (Some(kind.to_owned()), text));
    from_build_args
        .chain(own)
        .chain(shorthand("provenance", &args.provenance))
        .chain(shorthand("sbom", &args.sbom))
        .collect()
}

/// Reads the value of `--provenance` or `--sbom`: a boolean, or attributes.
fn shorthand(kind: String, text: &str) -> Result<Attributes, String> {
    let mut attributes = match value::boolean(text) {
        Ok(true) => Attributes::new(),
        Ok(false) => Attributes::from([("disabled".to_owned(), "true".to_owned())]),
        Err(_) if text.is_empty() => Attributes::new(),
        Err(_) => attributes(text)?,
    };
    attributes.insert("type".to_owned(), kind);
    Ok(attributes)
}

fn attributes(text: &str) -> Result<Attributes, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(format!(
            "invalid attestation field {field:?}: expected key=value"
        )),
    };
    csv::fields(text)?.into_iter().map(pair).collect()
}

fn add(request: &mut AttestationRequest, mut attributes: Attributes) -> Result<(), String> {
    let disabled = match attributes.remove("disabled") {
        Some(text) => {
            value::boolean(&text).map_err(|why| format!("invalid disabled {text:?}: {why}"))?
        }
        None => false,
    };
    if disabled {
        match attributes.get("type").map(String::as_str) {
            Some("provenance") => request.provenance = None,
            Some("sbom") => request.sbom = None,
            _ => {}
        }
        return Ok(());
    }
    let refused = |error: InvalidAttestation| error.to_string();
    match Asked::from_attributes(attributes).map_err(refused)? {
        Asked::Provenance(options) => request.provenance = Some(options),
        Asked::Sbom(options) => request.sbom = Some(options),
        Asked::Custom {
            predicate_type,
            filename,
            file,
        } => {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("cannot read the attestation {file}: {error}"))?;
            let custom = Custom::new(predicate_type, filename, &file, &text);
            request.custom.push(custom.map_err(refused)?);
        }
    }
    Ok(())
}

/// Reads what is to be told of what git knows; words that mean nothing count as not said.
fn git(environment: &Environment) -> GitFacts {
    let full = environment.text(GIT_LABELS).as_deref() == Some("full");
    GitFacts {
        info: !environment.is_false(GIT_INFO),
        labels: full || environment.is_true(GIT_LABELS),
        checks_dirty: environment.is_true(GIT_CHECK_DIRTY),
    }
}

fn reported(environment: &Environment) -> Result<Option<Reported>, String> {
    match environment.text(METADATA).as_deref() {
        None | Some("" | "0" | "false" | "disabled") => Ok(None),
        Some("1" | "true" | "min") => Ok(Some(Reported::Min)),
        Some("max") => Ok(Some(Reported::Max)),
        Some(other) => Err(format!(
            "invalid {METADATA} {other:?}: expected min, max or disabled"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(options: &[&str], build_args: &[(&str, &str)]) -> String {
        let mut args = AttestArgs {
            provenance: None,
            sbom: None,
            attest: Vec::new(),
            sign: None,
        };
        for option in options {
            match option.split_once('=') {
                Some(("provenance", text)) => args.provenance = Some(text.to_owned()),
                Some(("sbom", text)) => args.sbom = Some(text.to_owned()),
                _ => args.attest.push((*option).to_owned()),
            }
        }
        let pairs = build_args.iter();
        let build_args = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        match read(&args, &build_args.collect(), &Environment::default()) {
            Err(error) => format!("error: {error}"),
            Ok(request) => {
                let mode = request.provenance.map(|p| format!("{:?}", p.mode));
                let custom = request.custom.len();
                format!(
                    "{} {} {custom}",
                    mode.unwrap_or_default(),
                    request.sbom.is_some()
                )
            }
        }
    }

    #[test]
    fn nothing_is_said_unless_asked_for_and_later_words_win() {
        let provenance = ("BUILDKIT_ATTEST_PROVENANCE", "mode=min");
        for (options, build_args, expected) in [
            (&[][..], &[][..], " false 0"),
            (&["provenance=true"], &[], "Max false 0"),
            (&["provenance=false", "sbom=false"], &[], " false 0"),
            (&["provenance=mode=min", "sbom=true"], &[], "Min true 0"),
            (&["type=provenance,mode=min"], &[], "Min false 0"),
            (&["type=sbom", "sbom=false"], &[], " false 0"),
            (&["type=sbom,disabled=true"], &[], " false 0"),
            (&[], &[provenance], "Min false 0"),
            (&["provenance=mode=max"], &[provenance], "Max false 0"),
            (&["provenance=false"], &[provenance], " false 0"),
            (&[], &[("BUILDKIT_ATTEST_SBOM", "")], " true 0"),
            (
                &["mode=max"],
                &[],
                "error: attestation type not specified: expected type=provenance, sbom or custom",
            ),
            (
                &["sbom=yes"],
                &[],
                "error: invalid attestation field \"yes\": expected key=value",
            ),
            (
                &["type=custom,predicate-type=openvex,file=/nowhere"],
                &[],
                "error: cannot read the attestation /nowhere: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(show(options, build_args), expected, "{options:?}");
        }
    }

    #[test]
    fn variables_say_what_is_told_of_git() {
        let facts = |info, labels, checks_dirty| GitFacts {
            info,
            labels,
            checks_dirty,
        };
        for (variables, expected) in [
            (&[][..], facts(true, false, false)),
            (&[("BUILDX_GIT_INFO", "0")], facts(false, false, false)),
            (&[("BUILDX_GIT_LABELS", "1")], facts(true, true, false)),
            (&[("BUILDX_GIT_LABELS", "full")], facts(true, true, false)),
            (&[("BUILDX_GIT_LABELS", "some")], facts(true, false, false)),
            (&[("BUILDX_GIT_CHECK_DIRTY", "T")], facts(true, false, true)),
        ] {
            assert_eq!(git(&Environment::of(variables)), expected, "{variables:?}");
        }
    }
}
