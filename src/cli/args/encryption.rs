//! Options about encrypted images: buildah's names.

use clap::Args;

/// Whom an image is encrypted for.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EncryptionArgs {
    /// Encrypt the layers of the image for the owner of a key: jwe:FILE (a public key) or
    /// pkcs7:FILE (a certificate) (repeatable)
    #[arg(
        long = "encryption-key",
        value_name = "KIND:FILE",
        value_delimiter = ','
    )]
    pub(crate) encryption_keys: Vec<String>,
    /// Encrypt this layer only: 0 is the lowest, -1 the highest (repeatable)
    #[arg(
        long = "encrypt-layer",
        value_name = "NUMBER",
        value_delimiter = ',',
        allow_negative_numbers = true,
        requires = "encryption_keys"
    )]
    pub(crate) encrypt_layers: Vec<i64>,
}

/// What opens encrypted images.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DecryptionArgs {
    /// Private key that opens encrypted layers; PASSPHRASE may be file=PATH, fd=NUMBER or
    /// pass=TEXT (repeatable)
    #[arg(
        long = "decryption-key",
        value_name = "KEY[:PASSPHRASE]",
        value_delimiter = ','
    )]
    pub(crate) decryption_keys: Vec<String>,
}
