//! What a frontend says about its results: read out of the files that it returned.
//!
//! A statement is a predicate in a file, or a bundle: a folder of whole statements. The document
//! about the software itself (`sbom-core`) comes before all others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::bridge::BuildBridge;
use crate::attestation::{About, Attestation, SPDX, Subject};
use crate::engine::build::Build;
use crate::engine::clock;
use crate::engine::error::{EngineError, ErrorKind};
use crate::gateway::wire::{self, AttestationKind, InTotoSubjectKind};
use crate::gateway::{Attested, Files};

/// Largest statement that is read; BuildKit's.
const STATEMENT_BYTES_MAX: u64 = 40 << 20;
/// Most statements in one bundle.
const BUNDLE_MAX: usize = 1000;
/// Begins the predicate types that only the builder itself may use.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// What is remarked about an attestation: that only images carry it, and the stem of the file
/// that holds the software itself.
const INLINE_ONLY: &str = "inline-only";
const SBOM_CORE: &str = "sbom-core";

/// What a frontend says about each of its results, in their order.
pub(in crate::engine) type Saying = Vec<Vec<Attestation>>;

/// A statement in a bundle.
#[derive(Deserialize)]
struct Bundled {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
    #[serde(default)]
    predicate: Option<Box<RawValue>>,
}

/// One statement with where it was found.
struct Found {
    path: String,
    attestation: Attestation,
}

impl Build {
    /// Returns what a frontend says about a result.
    pub(in crate::engine) fn said_by_frontend(&self, result: usize) -> &[Attestation] {
        let all = self.said_by_frontend.get();
        all.and_then(|all| all.get(result))
            .map_or(&[], Vec::as_slice)
    }

    /// Says whether a frontend has listed the software of its results itself.
    pub(in crate::engine) fn has_foreign_sbom(&self) -> bool {
        let mut all = self.said_by_frontend.get().into_iter().flatten().flatten();
        all.any(|attestation| attestation.predicate_type == SPDX)
    }

    /// Reads what is said about the results of these platforms.
    pub(super) async fn read_attested(
        self: &Arc<Self>,
        mut said: BTreeMap<String, Vec<Attested>>,
        platforms: &[String],
    ) -> Result<Saying, EngineError> {
        let cancel = self.cancel.child_token();
        let _over = cancel.clone().drop_guard();
        let bridge = BuildBridge::new(self, BTreeMap::new(), 0, cancel);
        let mut saying = Vec::new();
        for platform in platforms {
            let mut found = Vec::new();
            for attested in said.remove(platform).unwrap_or_default() {
                let files = match &attested.files {
                    Some(_) => Some(bridge.look(&attested.files).await?),
                    None => None,
                };
                let statement = attested.statement;
                let reading =
                    tokio::task::spawn_blocking(move || read(&statement, files.as_deref()));
                let read = reading
                    .await
                    .map_err(|error| EngineError::new(ErrorKind::Internal, error.to_string()))?;
                found.extend(read?);
            }
            found.sort_by_key(|(is_core, _)| !is_core);
            saying.push(
                found
                    .into_iter()
                    .map(|(_, attestation)| attestation)
                    .collect(),
            );
        }
        Ok(saying)
    }
}

/// Reads one statement or a bundle; says of each whether it is about the software itself.
fn read(
    statement: &wire::Attestation,
    files: Option<&Files>,
) -> Result<Vec<(bool, Attestation)>, EngineError> {
    let found = match statement.kind() {
        AttestationKind::InToto => vec![predicate(statement, files)?],
        AttestationKind::Bundle => bundle(statement, files)?,
    };
    let core = statement.metadata.get(SBOM_CORE);
    let is_core = |path: &str| {
        let stem = path.split('.').next().unwrap_or_default();
        core.is_some_and(|core| core.as_slice() == stem.as_bytes())
    };
    let found = found.into_iter();
    Ok(found
        .map(|found| (is_core(&found.path), found.attestation))
        .collect())
}

fn predicate(statement: &wire::Attestation, files: Option<&Files>) -> Result<Found, EngineError> {
    let predicate_type = &statement.in_toto_predicate_type;
    if predicate_type.starts_with(PROVENANCE) {
        return Err(wrong("frontend may not set provenance attestations"));
    }
    if statement.path.is_empty() {
        return Err(wrong("attestation does not have set path"));
    }
    let files = files.ok_or_else(|| wrong("attestation does not have available content"))?;
    let text = text_of(files, &statement.path)?;
    let text = if text.is_empty() {
        "null".to_owned()
    } else {
        text
    };
    let text = serde_json::from_str::<&RawValue>(&text)
        .map_err(|error| wrong(&format!("{} is no predicate: {error}", statement.path)))?
        .get()
        .to_owned();
    let about = statement.in_toto_subjects.iter().map(|subject| {
        let name = Some(subject.name.clone()).filter(|name| !name.is_empty());
        match subject.kind() {
            InTotoSubjectKind::Self_ => About::Result(name),
            InTotoSubjectKind::Raw => {
                let digests = subject.digest.iter();
                let digests = digests.filter_map(|digest| digest.split_once(':'));
                About::Other(Subject {
                    name: name.unwrap_or_else(|| Subject::NAMELESS.to_owned()),
                    digest: digests
                        .map(|(algorithm, hex)| (algorithm.to_owned(), hex.to_owned()))
                        .collect(),
                })
            }
        }
    });
    let about = about.collect();
    Ok(found(
        statement,
        &statement.path,
        predicate_type,
        (about, text),
    ))
}

/// Reads a folder of statements.
fn bundle(statement: &wire::Attestation, files: Option<&Files>) -> Result<Vec<Found>, EngineError> {
    let files = files.ok_or_else(|| wrong("no ref provided for attestation bundle"))?;
    let folder = statement.path.trim_matches('/');
    let mut entries = files
        .list(folder, "")
        .map_err(|error| wrong(&error.message))?;
    if entries.len() > BUNDLE_MAX {
        let text = format!("attestation bundle has more than {BUNDLE_MAX} statements");
        return Err(wrong(&text));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let one = |name: &str| {
        let path = match folder {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        let text = text_of(files, &path)?;
        let bundled: Bundled = serde_json::from_str(&text)
            .map_err(|error| wrong(&format!("cannot decode in-toto statement {path}: {error}")))?;
        let (wanted, is) = (&statement.in_toto_predicate_type, &bundled.predicate_type);
        if !wanted.is_empty() && wanted != is {
            let text = format!("bundle entry {is} does not match required predicate type {wanted}");
            return Err(wrong(&text));
        }
        if is.starts_with(PROVENANCE) {
            return Err(wrong("frontend may not bundle provenance attestations"));
        }
        let mut about: Vec<About> = bundled.subject.into_iter().map(About::Other).collect();
        if about.is_empty() {
            about.push(About::Result(None));
        }
        let predicate = bundled
            .predicate
            .map_or("null".to_owned(), |raw| raw.get().to_owned());
        Ok(found(statement, &path, is, (about, predicate)))
    };
    entries.iter().map(|entry| one(&entry.path)).collect()
}

fn found(
    statement: &wire::Attestation,
    path: &str,
    predicate_type: &str,
    (about, predicate): (Vec<About>, String),
) -> Found {
    let inline_only = statement.metadata.get(INLINE_ONLY);
    let filename = Path::new(path).file_name().unwrap_or_default();
    Found {
        path: path.trim_matches('/').to_owned(),
        attestation: Attestation {
            filename: filename.to_string_lossy().into_owned(),
            predicate_type: predicate_type.to_owned(),
            inline_only: inline_only.is_some_and(|value| value == b"true"),
            time_s: clock::now_ns().div_euclid(1_000_000_000),
            predicate: Arc::new(predicate),
            about,
        },
    }
}

fn text_of(files: &Files, path: &str) -> Result<String, EngineError> {
    let bytes = files.whole(path, STATEMENT_BYTES_MAX);
    let bytes = bytes.map_err(|error| {
        wrong(&format!(
            "cannot read in-toto attestation: {}",
            error.message
        ))
    })?;
    String::from_utf8(bytes).map_err(|_| wrong(&format!("{path} is no text")))
}

fn wrong(text: &str) -> EngineError {
    EngineError::new(ErrorKind::User, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in of {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = Files::of_folder(temp.path()).unwrap();
        (temp, files)
    }

    fn one(kind: AttestationKind, path: &str, predicate_type: &str) -> wire::Attestation {
        wire::Attestation {
            kind: kind as i32,
            path: path.to_owned(),
            in_toto_predicate_type: predicate_type.to_owned(),
            metadata: [("sbom-core", "d/a"), ("inline-only", "true")]
                .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
                .into(),
            ..wire::Attestation::default()
        }
    }

    #[test]
    fn predicates_and_bundles_are_read() {
        let statement = r#"{"predicateType":"t","subject":[{"name":"n","digest":{"sha1":"00"}}],"predicate":{"b": 1}}"#;
        let (_temp, files) = files(&[("p.json", " {\"a\": 1}\n"), ("d/a.json", statement)]);
        let told = read(&one(AttestationKind::InToto, "/p.json", "u"), Some(&files)).unwrap();
        assert_eq!((told[0].0, told[0].1.inline_only), (false, true));
        assert_eq!(told[0].1.predicate.write(&[]).unwrap(), "{\"a\": 1}");
        assert_eq!(told[0].1.filename, "p.json");
        let told = read(&one(AttestationKind::Bundle, "d", ""), Some(&files)).unwrap();
        let (is_core, attestation) = &told[0];
        assert!(*is_core);
        assert_eq!(attestation.predicate_type, "t");
        assert_eq!(attestation.predicate.write(&[]).unwrap(), "{\"b\": 1}");
        let about = attestation.subjects(&[]);
        assert_eq!(
            (about[0].name.as_str(), about[0].digest["sha1"].as_str()),
            ("n", "00")
        );
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let (_temp, files) = files(&[
            ("d/a", r#"{"predicateType":"t"}"#),
            ("bad", "no json"),
            (
                "slsa/a",
                r#"{"predicateType":"https://slsa.dev/provenance/v1"}"#,
            ),
        ]);
        use AttestationKind::{Bundle, InToto};
        for (kind, path, predicate_type, expected) in [
            (
                InToto,
                "bad",
                "https://slsa.dev/provenance/v1",
                "frontend may not set provenance",
            ),
            (InToto, "", "t", "attestation does not have set path"),
            (InToto, "bad", "t", "bad is no predicate: "),
            (
                InToto,
                "none",
                "t",
                "cannot read in-toto attestation: open none: no such",
            ),
            (
                Bundle,
                "d",
                "u",
                "bundle entry t does not match required predicate type u",
            ),
            (
                Bundle,
                "slsa",
                "",
                "frontend may not bundle provenance attestations",
            ),
            (Bundle, "none", "", "open none: no such file"),
            (Bundle, "", "", "cannot decode in-toto statement bad"),
        ] {
            let refused = read(&one(kind, path, predicate_type), Some(&files));
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(expected), "{path}: {text}");
        }
        for (kind, expected) in [
            (InToto, "attestation does not have available content"),
            (Bundle, "no ref provided for attestation bundle"),
        ] {
            assert_eq!(
                read(&one(kind, "p", ""), None).unwrap_err().to_string(),
                expected
            );
        }
    }
}
