//! `cooper sign`, `cooper verify`, and `cooper build --sign`.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::{BuildArgs, SignArgs, VerifyArgs, csv, value};
use super::failure::Failure;
use super::program::Program;
use super::registries;
use crate::engine::request::{
    BuildOutcome, OutputSpec, PrivateKey, PublicKey, SignRequest, VerifyRequest,
};
use crate::engine::{Engine, EngineError, ErrorKind};
use crate::oci::Reference;
use crate::progress::Progress;
use crate::session::Session;

/// Variable with the password of a key.
const PASSWORD: &str = "COSIGN_PASSWORD";

/// `cooper sign`.
pub(crate) fn sign(program: &Program, args: &SignArgs) -> Result<(), Failure> {
    let key = Arc::new(private_key(program, &args.key)?);
    let engine = program.engine_with(&args.registry)?;
    let images = references(&args.images)?;
    let session = registries::session(program, &args.registry, &images)?;
    for image in images {
        let request = SignRequest {
            image,
            key: Arc::clone(&key),
            insecure: Vec::new(),
        };
        let (result, journal) = program.show(&args.progress, async |progress, cancel| {
            engine.sign(&request, &session, &progress, &cancel).await
        })?;
        let signed = result.map_err(|error| program.fail(error, &journal))?;
        let line = format!("{}@{}", request.image.name(), signed.digest);
        program.console.result(&line).map_err(Failure::stdout)?;
    }
    Ok(())
}

/// `cooper verify`.
pub(crate) fn verify(program: &Program, args: &VerifyArgs) -> Result<(), Failure> {
    let text = read(&args.key)?;
    let key = PublicKey::read(&text).map_err(|error| unusable(&args.key, &error.to_string()))?;
    let engine = program.engine_with(&args.registry)?;
    let images = references(&args.images)?;
    let session = registries::session(program, &args.registry, &images)?;
    for image in images {
        let request = VerifyRequest {
            image,
            key: key.clone(),
            statements: args.attestations,
        };
        let (result, journal) = program.show(&args.progress, async |progress, cancel| {
            engine
                .verify_signatures(&request, &session, &progress, &cancel)
                .await
        })?;
        let verified = result.map_err(|error| program.fail(error, &journal))?;
        for spoken in &verified.spoken {
            let line = spoken.to_string();
            program.console.result(&line).map_err(Failure::stdout)?;
        }
    }
    Ok(())
}

/// What `--sign` asks of a build.
#[derive(Debug)]
pub(crate) struct Signing {
    key: Arc<PrivateKey>,
    /// Registries that may be asked without checks.
    insecure: Vec<String>,
    session: Session,
}

/// Reads `--sign` before anything is built; `None` where it was not given.
pub(crate) fn meant(
    program: &Program,
    args: &BuildArgs,
    outputs: &[OutputSpec],
) -> Result<Option<Signing>, Failure> {
    let Some(text) = &args.attest.sign else {
        return Ok(None);
    };
    let mut key = None;
    for (name, value) in csv::pairs(text).map_err(Failure::Usage)? {
        match name.as_str() {
            "key" if !value.is_empty() => key = Some(value),
            _ => {
                let message = format!("unknown field {name:?} of --sign: expected key=FILE");
                return Err(Failure::Usage(message));
            }
        }
    }
    let key = key.ok_or_else(|| Failure::Usage("--sign needs key=FILE".to_owned()))?;
    let mut pushes = outputs.iter().filter_map(|output| match output {
        OutputSpec::Image { push, .. } => push.as_ref(),
        _ => None,
    });
    let Some(first) = pushes.next() else {
        let message = "--sign signs what is pushed: add --push";
        return Err(Failure::Usage(message.to_owned()));
    };
    let names = args.names.iter().filter(|_| first.insecure);
    Ok(Some(Signing {
        key: Arc::new(private_key(program, Path::new(&key))?),
        insecure: names.map(|name| name.domain().to_owned()).collect(),
        session: registries::session(program, &args.registry, &args.names)?,
    }))
}

impl Signing {
    /// Signs what a build has pushed, under each of its names.
    pub(crate) async fn sign(
        &self,
        engine: &Engine,
        outcome: &BuildOutcome,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let Some(image) = &outcome.image else {
            return Ok(());
        };
        for name in &image.names {
            let request = SignRequest {
                image: name.clone().with_digest(image.root.digest.clone()),
                key: Arc::clone(&self.key),
                insecure: self.insecure.clone(),
            };
            engine
                .sign(&request, &self.session, progress, cancel)
                .await?;
        }
        Ok(())
    }
}

fn private_key(program: &Program, path: &Path) -> Result<PrivateKey, Failure> {
    let password = program.environment.text(PASSWORD);
    let key = PrivateKey::read(&read(path)?, password.as_deref());
    key.map_err(|error| unusable(path, &error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, reason: &str) -> Failure {
    let text = format!("cannot use the key {}: {reason}", path.display());
    EngineError::new(ErrorKind::User, text).into()
}

fn references(images: &[String]) -> Result<Vec<Reference>, Failure> {
    let read = |image: &String| value::reference(image).map_err(Failure::Usage);
    images.iter().map(read).collect()
}
