//! Signatures of files from web servers.

use std::io::Read;

use super::Error;
use crate::signing::openpgp::{self, Validity};

/// Fails unless a file has a detached OpenPGP signature that one of the keys made. `open` opens
/// the file; `now_s` is the time in seconds since 1970.
pub fn verify_file(
    url: &str,
    (signature, keys): (&str, &str),
    open: &dyn Fn() -> std::io::Result<Box<dyn Read>>,
    now_s: i64,
) -> Result<(), Error> {
    let verified = openpgp::verify(signature, keys, open, Validity::WhenSigned, now_s);
    verified.map_err(|error| Error::Unsigned {
        what: url.to_owned(),
        reason: error.to_string(),
    })
}
