//! Signatures that `ssh-keygen -Y sign` makes, verified against public keys as they stand in
//! `authorized_keys`.

use ssh_key::{AuthorizedKeys, HashAlg, SshSig};

/// Begins an armored signature.
pub const ARMOR: &str = "-----BEGIN SSH SIGNATURE-----";

/// Says why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSshSignature {
    /// The signature cannot be read.
    #[error("the SSH signature cannot be read: {0}")]
    Unreadable(String),
    /// The keys cannot be read.
    #[error("the SSH public key cannot be read: {0}")]
    UnreadableKey(String),
    /// It was made for another purpose.
    #[error("it was made for {0:?}, not for \"git\"")]
    Purpose(String),
    /// None of the keys made it.
    #[error("it was made by the key {issuer}, which is none of the given keys ({given})")]
    UnknownIssuer {
        /// Who made it.
        issuer: String,
        /// The keys there are.
        given: String,
    },
    /// The bytes are not those that were signed.
    #[error("it does not fit what it is about (key {0})")]
    Wrong(String),
}

/// Returns the version of an armored signature, and the fingerprint of the key that it says made
/// it.
pub fn claimed_signer(signature: &str) -> Option<(u32, String)> {
    let signature = SshSig::from_pem(signature.trim_end()).ok()?;
    let key = signature.public_key().fingerprint(HashAlg::Sha256);
    Some((signature.version(), key.to_string()))
}

/// Verifies a signature of `data` that was made for `purpose` by one of the keys.
pub fn verify(
    signature: &str,
    keys: &str,
    data: &[u8],
    purpose: &str,
) -> Result<(), BadSshSignature> {
    let signature = SshSig::from_pem(signature.trim_end())
        .map_err(|error| BadSshSignature::Unreadable(error.to_string()))?;
    if signature.namespace() != purpose {
        return Err(BadSshSignature::Purpose(signature.namespace().to_owned()));
    }
    let mut given = Vec::new();
    for entry in AuthorizedKeys::new(keys) {
        let entry = entry.map_err(|error| BadSshSignature::UnreadableKey(error.to_string()))?;
        let key = entry.public_key();
        if key.key_data() == signature.public_key() {
            let fits = key.verify(purpose, data, &signature);
            let name = key.fingerprint(HashAlg::Sha256).to_string();
            return fits.map_err(|_| BadSshSignature::Wrong(name));
        }
        given.push(key.fingerprint(HashAlg::Sha256).to_string());
    }
    if given.is_empty() {
        return Err(BadSshSignature::UnreadableKey("there is none".to_owned()));
    }
    Err(BadSshSignature::UnknownIssuer {
        issuer: signature
            .public_key()
            .fingerprint(HashAlg::Sha256)
            .to_string(),
        given: given.join(", "),
    })
}
