//! `--encryption-key`, `--encrypt-layer` and `--decryption-key`: files become keys.

use std::path::Path;
use std::sync::Arc;

use super::args::{BuildArgs, DecryptionArgs, EncryptionArgs};
use super::failure::Failure;
use crate::engine::request::{
    BuildRequest, CachePlace, DecryptionKey, EncryptionOptions, InvalidLayerKey, Recipient,
};
use crate::engine::{EngineError, ErrorKind};

/// Reads whom an image is encrypted for; `None` where it is for everybody.
pub(crate) fn encryption(args: &EncryptionArgs) -> Result<Option<Arc<EncryptionOptions>>, Failure> {
    if args.encryption_keys.is_empty() {
        return Ok(None);
    }
    let recipients = args.encryption_keys.iter().map(|text| recipient(text));
    Ok(Some(Arc::new(EncryptionOptions {
        recipients: recipients.collect::<Result<_, _>>()?,
        layers: args.encrypt_layers.clone(),
    })))
}

/// Reads what opens encrypted images.
pub(crate) fn decryption(args: &DecryptionArgs) -> Result<Arc<[DecryptionKey]>, Failure> {
    let mut keys = Vec::new();
    for text in &args.decryption_keys {
        keys.extend(private_key(text)?);
    }
    Ok(keys.into())
}

/// Refuses what an encrypted image cannot go with.
pub(crate) fn check(args: &BuildArgs, request: &BuildRequest) -> Result<(), Failure> {
    if request.encryption.is_none() {
        return Ok(());
    }
    let places = request.cache_to.iter().map(|export| &export.place);
    let problem = if args.reproduce.verify {
        "--verify cannot compare encrypted images: their keys are random"
    } else if places
        .into_iter()
        .any(|place| matches!(place, CachePlace::Inline))
    {
        "an encrypted image cannot hold the cache: use another --cache-to than type=inline"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(problem.to_owned()))
}

fn recipient(text: &str) -> Result<Recipient, Failure> {
    let refused = |reason: &str| {
        Err(Failure::Usage(format!(
            "--encryption-key {text:?}: {reason}"
        )))
    };
    let expected = "expected jwe:FILE or pkcs7:FILE";
    let Some((kind, file)) = text.split_once(':') else {
        return refused(expected);
    };
    let read: fn(&[u8]) -> Result<Recipient, InvalidLayerKey> = match kind {
        "jwe" => Recipient::jwe,
        "pkcs7" => Recipient::pkcs7,
        "pgp" | "pkcs11" | "provider" => {
            return refused(&format!("{kind} is not supported: {expected}"));
        }
        _ => return refused(expected),
    };
    let path = Path::new(file);
    let bytes = std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))?;
    read(&bytes).map_err(|error| unusable(path, &error.to_string()))
}

/// Reads a private key; `None` for a certificate, which buildah wants beside the key of it.
fn private_key(text: &str) -> Result<Option<DecryptionKey>, Failure> {
    if text.starts_with("provider:") {
        let message = "--decryption-key: provider is not supported: expected the file of a key";
        return Err(Failure::Usage(message.to_owned()));
    }
    let (file, password) = match text.split_once(':') {
        Some((file, password)) if !Path::new(text).exists() => (file, Some(password)),
        _ => (text, None),
    };
    let path = Path::new(file);
    let password = password.map(passphrase).transpose()?;
    let bytes = std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))?;
    let key = DecryptionKey::read(&bytes, password.as_deref());
    key.map_err(|error| unusable(path, &error.to_string()))
}

fn passphrase(text: &str) -> Result<Vec<u8>, Failure> {
    let path = match text.split_once('=') {
        Some(("file", path)) => path.to_owned(),
        Some(("fd", number)) => format!("/proc/self/fd/{number}"),
        Some(("pass", password)) => return Ok(password.into()),
        _ => return Ok(text.into()),
    };
    let path = Path::new(&path);
    let mut bytes = std::fs::read(path).map_err(|error| unusable(path, &error.to_string()))?;
    // The end of the line is not part of it.
    while bytes
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}

fn unusable(path: &Path, reason: &str) -> Failure {
    let text = format!("cannot use the key {}: {reason}", path.display());
    EngineError::new(ErrorKind::User, text).into()
}
