//! PEM: blocks of base64 between two lines, and the old way of encrypting them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, KeyIvInit};
use md5::{Digest as _, Md5};

use super::key::InvalidKey;

/// One block.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// What it says it is.
    pub(super) label: &'a str,
    /// How it is encrypted in OpenSSL's old way: a cipher and its first block.
    info: Option<&'a str>,
    bytes: Vec<u8>,
}

/// Reads the blocks of a text; `None` where there is none.
pub(super) fn blocks(text: &str) -> Option<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once(&format!("-----END {label}-----"))?;
        rest = after;
        let (headers, body) = match body.split_once("\n\n").or(body.split_once("\r\n\r\n")) {
            Some((headers, body)) if headers.contains(':') => (headers, body),
            _ => ("", body),
        };
        let info = headers
            .lines()
            .find_map(|line| line.trim().strip_prefix("DEK-Info:"));
        let body: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(body).ok()?;
        blocks.push(Block { label, info, bytes });
    }
    (!blocks.is_empty()).then_some(blocks)
}

impl Block<'_> {
    /// Returns the bytes, decrypted if they are encrypted in the old way.
    pub(super) fn open(&self, password: Option<&[u8]>) -> Result<Vec<u8>, InvalidKey> {
        let Some(info) = self.info else {
            return Ok(self.bytes.clone());
        };
        let password = password.ok_or(InvalidKey::NoPassword)?;
        let unsupported = || InvalidKey::Encryption(info.trim().to_owned());
        let (cipher, iv) = info.trim().split_once(',').ok_or_else(unsupported)?;
        let iv = bytes_of_hex(iv).ok_or_else(unsupported)?;
        let iv: [u8; 16] = iv.try_into().map_err(|_| unsupported())?;
        let opened = match cipher {
            "AES-128-CBC" => {
                let key: [u8; 16] = stretch(password, &iv);
                cbc::Decryptor::<aes::Aes128>::new(&key.into(), &iv.into())
                    .decrypt_padded_vec_mut::<Pkcs7>(&self.bytes)
            }
            "AES-192-CBC" => {
                let key: [u8; 24] = stretch(password, &iv);
                cbc::Decryptor::<aes::Aes192>::new(&key.into(), &iv.into())
                    .decrypt_padded_vec_mut::<Pkcs7>(&self.bytes)
            }
            "AES-256-CBC" => {
                let key: [u8; 32] = stretch(password, &iv);
                cbc::Decryptor::<aes::Aes256>::new(&key.into(), &iv.into())
                    .decrypt_padded_vec_mut::<Pkcs7>(&self.bytes)
            }
            _ => return Err(unsupported()),
        };
        opened.map_err(|_| InvalidKey::WrongPassword)
    }
}

/// Makes a key out of a password as OpenSSL did: MD5 over and over, salted with half the block.
fn stretch<const N: usize>(password: &[u8], iv: &[u8; 16]) -> [u8; N] {
    let mut key = [0; N];
    let mut last: Vec<u8> = Vec::new();
    for part in key.chunks_mut(16) {
        let mut hasher = Md5::new();
        hasher.update(&last);
        hasher.update(password);
        hasher.update(&iv[..8]);
        last = hasher.finalize().to_vec();
        part.copy_from_slice(&last[..part.len()]);
    }
    key
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim().as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}
