//! Certificates in files: folders of `certs.d`, and files that are named one by one.

use std::path::{Path, PathBuf};

use super::rules::CertificateFiles;
use super::{CONFIG_BYTES_MAX, ConfigError, is_absent};
use crate::registry::tls::Tls;

/// Reads a folder as docker does: every `*.crt` is an authority, every `*.cert` our certificate
/// with its key in the `*.key` of the same name.
pub(super) fn of_folder(dir: &Path) -> Result<Tls, ConfigError> {
    let failed = |error: std::io::Error| ConfigError {
        path: dir.to_owned(),
        reason: error.to_string(),
    };
    let entries = match std::fs::read_dir(dir) {
        // Root's certificates are no concern of others.
        Err(error) if is_absent(&error) => return Ok(Tls::default()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| !is_forbidden(path));
    paths.sort();
    let mut tls = Tls::default();
    for path in paths {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("crt") => tls.authorities.push(bytes_of(&path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !is_forbidden(&key) {
                    tls.identity = Some(pair(&path, &key)?);
                }
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// Says whether a file is there that we may not read, such as root's key.
fn is_forbidden(path: &Path) -> bool {
    let opened = std::fs::File::open(path);
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Adds the certificates in files.
pub(super) fn add(tls: &mut Tls, files: &CertificateFiles) -> Result<(), ConfigError> {
    for path in &files.authorities {
        tls.authorities.push(bytes_of(path)?);
    }
    if let Some((certificate, key)) = &files.identity {
        tls.identity = Some(pair(certificate, key)?);
    }
    Ok(())
}

/// Reads the certificates in files whose names are relative to a folder.
pub(super) fn of_files(files: &CertificateFiles, dir: &Path) -> Result<Tls, ConfigError> {
    let identity = files.identity.as_ref();
    let absolute = CertificateFiles {
        authorities: files
            .authorities
            .iter()
            .map(|path| dir.join(path))
            .collect(),
        identity: identity.map(|(certificate, key)| (dir.join(certificate), dir.join(key))),
    };
    let mut tls = Tls::default();
    add(&mut tls, &absolute)?;
    Ok(tls)
}

/// Puts a certificate and its key together.
fn pair(certificate: &PathBuf, key: &PathBuf) -> Result<Vec<u8>, ConfigError> {
    let mut pem = bytes_of(certificate)?;
    if certificate != key {
        pem.push(b'\n');
        pem.extend(bytes_of(key)?);
    }
    Ok(pem)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |reason: String| ConfigError {
        path: path.to_owned(),
        reason,
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
            Err(failed("it is too large".to_owned()))
        }
        Err(error) if is_absent(&error) => Err(failed("it cannot be read".to_owned())),
        _ => std::fs::read(path).map_err(|error| failed(error.to_string())),
    }
}
