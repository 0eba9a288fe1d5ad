//! The functions that policies have besides Rego's own.
//!
//! | function | value |
//! |---|---|
//! | `load_json(path)` | what a file of the build context holds |
//! | `pin_image(image, digest)` | true; the image is used by that digest |
//! | `verify_git_signature(object, keys)` | whether a commit or tag is signed by one of the keys in a file |
//! | `verify_http_pgp_signature(http, signature, keys)` | the same of a download and a detached signature |
//! | `artifact_attestation(http, bundle)`, `github_attestation(http, repo)` | nothing: Sigstore's certificates are not verified here |
//!
//! A function that fails has no value, and the log says why. Paths are those of `--policy`.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::builtins;
use super::facts::{Facts, GitObject};
use super::question::Question;
use super::rego::Case;
use crate::oci::Digest;
use crate::signing::openpgp::{self, Validity};
use crate::signing::ssh;

/// What git signs for.
const GIT_PURPOSE: &str = "git";

/// The files that policies may read.
pub trait PolicyFiles: Send + Sync {
    /// Reads a file; `None` where there is none.
    fn read(&self, path: &str) -> Result<Option<String>, String>;
}

/// What the functions of one evaluation work with, and what they were asked.
#[derive(Clone)]
pub(super) struct Calls(Arc<Shared>);

struct Shared {
    input: Value,
    facts: Facts,
    files: Arc<dyn PolicyFiles>,
    now_s: i64,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    questions: BTreeSet<Question>,
    pins: BTreeSet<Digest>,
    notes: Vec<String>,
}

/// Computes a value, or none; fails with the reason.
type Function = fn(&Shared, &[Value]) -> Result<Option<Value>, String>;

const FUNCTIONS: [(&str, u8, Function); 6] = [
    ("load_json", 1, load_json),
    ("pin_image", 2, pin_image),
    ("verify_git_signature", 2, verify_git_signature),
    ("verify_http_pgp_signature", 3, verify_http_signature),
    ("artifact_attestation", 2, sigstore),
    ("github_attestation", 2, sigstore),
];

impl Calls {
    pub(super) fn new(case: &Case<'_>, input: &Value, files: &Arc<dyn PolicyFiles>) -> Self {
        Self(Arc::new(Shared {
            input: input.clone(),
            facts: case.facts.clone(),
            files: Arc::clone(files),
            now_s: case.now_s,
            said: Mutex::default(),
        }))
    }

    /// Returns what was asked, which digests were pinned, and why functions failed.
    pub(super) fn outcome(&self) -> (BTreeSet<Question>, BTreeSet<Digest>, Vec<String>) {
        let said = std::mem::take(&mut *self.0.said());
        (said.questions, said.pins, said.notes)
    }
}

impl Shared {
    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, question: Question) {
        self.said().questions.insert(question);
    }

    fn file(&self, path: &Value) -> Result<String, String> {
        let path = text(path)?;
        let read = self.files.read(path)?;
        read.ok_or_else(|| format!("there is no file {path}"))
    }

    /// Fails unless a value is this member of the input.
    fn is_input(&self, member: &str, value: &Value) -> Result<(), String> {
        match self.input[member] == *value {
            true => Ok(()),
            false => Err(format!("the first argument has to be input.{member}")),
        }
    }
}

/// Adds the functions to an engine, and Rego's own.
pub(super) fn add(engine: &mut regorus::Engine, calls: &Calls) -> Result<(), String> {
    for (name, count, function) in FUNCTIONS {
        let of_json = move |shared: &Shared, arguments: &[regorus::Value]| {
            let values = arguments.iter().map(serde_json::to_value);
            let values: Vec<Value> = values
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?;
            Ok(function(shared, &values)?.map(regorus::Value::from))
        };
        add_one(engine, calls, (name, count), of_json)?;
    }
    for (name, count, function) in builtins::all() {
        let computed = move |shared: &Shared, arguments: &[regorus::Value]| {
            function(shared.now_s, arguments).map(Some)
        };
        add_one(engine, calls, (name, count), computed)?;
    }
    Ok(())
}

fn add_one(
    engine: &mut regorus::Engine,
    calls: &Calls,
    (name, count): (&'static str, u8),
    function: impl Fn(&Shared, &[regorus::Value]) -> Result<Option<regorus::Value>, String>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Result<(), String> {
    let shared = Arc::clone(&calls.0);
    let call = move |arguments: Vec<regorus::Value>| {
        let computed = function(&shared, &arguments).unwrap_or_else(|reason| {
            shared.said().notes.push(format!("{name}: {reason}"));
            None
        });
        Ok(computed.unwrap_or(regorus::Value::Undefined))
    };
    let added = engine.add_extension(name.to_owned(), count, Box::new(call));
    added.map_err(|error| error.to_string())
}

fn load_json(shared: &Shared, arguments: &[Value]) -> Result<Option<Value>, String> {
    let [path] = arguments else { return Ok(None) };
    let parsed = serde_json::from_str(&shared.file(path)?);
    parsed.map(Some).map_err(|error| format!("{path}: {error}"))
}

fn pin_image(shared: &Shared, arguments: &[Value]) -> Result<Option<Value>, String> {
    let [image, digest] = arguments else {
        return Ok(None);
    };
    if shared.input.get("image").is_none() {
        return Ok(Some(json!(false)));
    }
    shared.is_input("image", image)?;
    let digest: Digest = text(digest)?
        .parse()
        .map_err(|error| format!("{digest}: {error}"))?;
    if image["checksum"].as_str() != Some(digest.to_string().as_str()) {
        shared.said().pins.insert(digest);
    }
    Ok(Some(json!(true)))
}

fn verify_git_signature(shared: &Shared, arguments: &[Value]) -> Result<Option<Value>, String> {
    let [object, keys] = arguments else {
        return Ok(None);
    };
    let Some(git) = shared.input.get("git") else {
        return Ok(Some(json!(false)));
    };
    let Some(objects) = &shared.facts.objects else {
        shared.ask(Question::Objects);
        return Ok(Some(json!(false)));
    };
    let signed = match (git.get("commit"), git.get("tag"), &objects.tag) {
        (Some(commit), _, _) if commit == object => &objects.commit,
        (_, Some(tag), Some(of_tag)) if tag == object => of_tag,
        _ => {
            return Err(
                "the first argument has to be input.git.commit or input.git.tag".to_owned(),
            );
        }
    };
    verify_object(signed, &shared.file(keys)?, shared.now_s)?;
    Ok(Some(json!(true)))
}

fn verify_object(object: &GitObject, keys: &str, now_s: i64) -> Result<(), String> {
    let signature = object
        .signature
        .as_deref()
        .ok_or("the object is not signed")?;
    if signature.starts_with(ssh::ARMOR) {
        let verified = ssh::verify(signature, keys, &object.data, GIT_PURPOSE);
        return verified.map_err(|error| error.to_string());
    }
    let open = || Ok(Box::new(Cursor::new(object.data.clone())) as Box<dyn std::io::Read>);
    let verified = openpgp::verify(signature, keys, &open, Validity::WhenSigned, now_s);
    verified.map_err(|error| error.to_string())
}

fn verify_http_signature(shared: &Shared, arguments: &[Value]) -> Result<Option<Value>, String> {
    let [http, signature, keys] = arguments else {
        return Ok(None);
    };
    if shared.input.get("http").is_none() {
        return Ok(Some(json!(false)));
    }
    shared.is_input("http", http)?;
    let (signature, keys) = (shared.file(signature)?, shared.file(keys)?);
    let Some(file) = &shared.facts.file else {
        shared.ask(Question::File);
        return Ok(Some(json!(false)));
    };
    let open = || (file.open)();
    let verified = openpgp::verify(&signature, &keys, &open, Validity::WhenSigned, shared.now_s);
    match verified {
        Ok(()) => Ok(Some(json!(true))),
        Err(error) => {
            shared
                .said()
                .notes
                .push(format!("verify_http_pgp_signature: {error}"));
            Ok(Some(json!(false)))
        }
    }
}

/// Stands for what needs Sigstore's certificates.
fn sigstore(_: &Shared, _: &[Value]) -> Result<Option<Value>, String> {
    Err(
        "attestations of Sigstore cannot be verified here: its certificates are not known"
            .to_owned(),
    )
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("{value} is not a text"))
}
