//! Signatures with a key of one's own, in the forms that cosign reads and writes; and those of
//! others on what builds are made of.
//!
//! | file | what it knows |
//! |---|---|
//! | [`key`] | private and public keys: ECDSA P-256 and Ed25519, PEM |
//! | `sealed` | keys that a password locks (`cosign generate-key-pair`) |
//! | [`envelope`] | signed statements: DSSE |
//! | [`cosign`] | what is signed of an image, and the manifests it is stored in |
//! | [`openpgp`] | detached OpenPGP signatures, verified |
//! | [`ssh`] | signatures of `ssh-keygen`, verified |
//!
//! Invariants: a private key is never shown, not by `Debug` either; what is verified are the bytes
//! that are then read. Deliberately absent: registries, certificates, transparency logs.

pub mod cosign;
pub mod envelope;
pub mod key;
pub mod openpgp;
mod sealed;
pub mod ssh;

pub use key::{InvalidKey, PrivateKey, PublicKey};

#[cfg(test)]
mod others_tests;
#[cfg(test)]
mod tests;
