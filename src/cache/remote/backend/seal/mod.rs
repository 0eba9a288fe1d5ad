//! Signed and encrypted caches: a store around any other.
//!
//! What the store below keeps for an object:
//!
//! ```text
//! "cooper-sealed-object-1\n"
//! flags       1: signed, 2: encrypted
//! if signed:  public key (32), Ed25519 signature (64) over
//!             "cooper cache object 1\0", name, "\0", flags, body
//! body        if encrypted: 32 random bytes, then a stream (`cipher`) of
//!                 u32 (little-endian), as many digests of 32 bytes, envelope
//!             else: envelope
//! ```
//!
//! An *envelope* is an object as `backend::envelope` writes it. A blob of an encrypted cache is
//! a stream; its digest says nothing without the key, so the object lists, beside each of its
//! blobs, the digest under which it is found. A signature covers objects; blobs are named there
//! by digest, and checked when they are fetched.
//!
//! Not hidden: sizes of blobs, about how many records there are, and when something is written.
//! Not prevented: that whoever can write puts an older signed object back.

mod cipher;
mod keys;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use ring::rand::SecureRandom as _;
use ring::signature::KeyPair as _;

pub use keys::SealSettings;

use self::cipher::{Broken, Cipher, Purpose};
use self::keys::Keys;
use super::transfer::{blocking, claim};
use super::{Direction, envelope};
use crate::cache::remote::buildkit::{Chains, Written};
use crate::cache::remote::store::{
    Answer, Condition, Coordination, FaultKind, OBJECT_BYTES_MAX, Object, ObjectName, RemoteStore,
    StoreError, Stored, Version,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, hex_of};
use crate::progress::VertexProgress;

/// Begins a sealed object.
const MAGIC: &[u8] = b"cooper-sealed-object-1\n";
/// What is signed begins with this.
const CONTEXT: &[u8] = b"cooper cache object 1\0";
/// Flag of a signed object.
const SIGNED: u8 = 1;
/// Flag of an encrypted object.
const ENCRYPTED: u8 = 2;
/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 64;
/// Random bytes of an encrypted object.
const RANDOM_BYTES: usize = 32;
/// Media type of an encrypted blob.
const SEALED_MEDIA_TYPE: &str = "application/vnd.dev.cooper.cache.sealed.v1";

/// Puts a seal around a store. Without keys, what is written stays plain, and what others sealed
/// is not taken for an empty cache.
pub fn wrap(
    store: Arc<dyn RemoteStore>,
    settings: &SealSettings,
    direction: Direction,
) -> Result<Arc<dyn RemoteStore>, StoreError> {
    let keys = settings.keys();
    Ok(Arc::new(SealedStore {
        inner: store,
        keys: Arc::new(keys.map_err(|error| StoreError::new(FaultKind::Permanent, error))?),
        direction,
        sealed: Mutex::default(),
    }))
}

/// A store whose objects are signed, encrypted, or both.
#[derive(Debug)]
struct SealedStore {
    inner: Arc<dyn RemoteStore>,
    keys: Arc<Keys>,
    direction: Direction,
    /// The encrypted blob of each blob, as far as is known.
    sealed: Mutex<BTreeMap<Digest, Descriptor>>,
}

/// Why an object was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unopened {
    /// Nobody sealed it.
    Plain,
    /// Signed, by whomever.
    Signed,
    /// Signed by nobody who is trusted, or changed.
    Untrusted,
    /// Encrypted with another key, or changed.
    Encrypted,
}

impl SealedStore {
    fn inner_name(&self, name: &ObjectName) -> Result<ObjectName, StoreError> {
        match &self.keys.encrypt {
            // The name is made of the key of a record, which people could guess.
            Some(cipher) if self.inner.coordination() == Coordination::Keyed => {
                let derived = cipher
                    .derive(Purpose::Name(name.as_str()))
                    .map_err(permanent)?;
                ObjectName::new(&hex_of(&derived)).ok_or_else(|| permanent("unsafe name"))
            }
            _ => Ok(name.clone()),
        }
    }

    fn learn(&self, blobs: &[Descriptor], sealed: Vec<Descriptor>) {
        let mut known = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        for (blob, sealed) in blobs.iter().zip(sealed) {
            known.insert(blob.digest.clone(), sealed);
        }
    }

    fn sealed_of(&self, blob: &Descriptor) -> Option<Descriptor> {
        let known = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&blob.digest).cloned()
    }

    async fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        let inner = self.inner_name(name)?;
        let Some(Stored { object, version }) = self.inner.read(&inner).await? else {
            return Ok(None);
        };
        let opened = match self.direction {
            // Writing without a signature would take it from those who look for one.
            Direction::Export if self.keys.sign.is_none() && is_signed(&object) => {
                Err(Unopened::Signed)
            }
            _ => open(&self.keys, name, &object),
        };
        let object = match opened {
            Ok((object, sealed)) => {
                self.learn(&object.blobs, sealed);
                object
            }
            Err(Unopened::Plain) if self.keys.is_empty() => object,
            // A cache that is sealed from now on begins empty.
            Err(Unopened::Plain) if self.direction == Direction::Export => Object::default(),
            Err(unopened) => return Err(self.refused(name, unopened)),
        };
        Ok(Some(Stored { object, version }))
    }

    fn refused(&self, name: &ObjectName, unopened: Unopened) -> StoreError {
        let (place, encrypted) = (self.inner.name(), self.keys.encrypt.is_some());
        let why = match unopened {
            Unopened::Plain if encrypted => "not encrypted",
            Unopened::Plain => "not signed",
            Unopened::Signed => "signed, and sign-key is not given",
            Unopened::Untrusted => "not signed by a key that verify-key names",
            Unopened::Encrypted if !encrypted => "encrypted, and encrypt-key is not given",
            Unopened::Encrypted => "encrypted with another key than encrypt-key, or damaged",
        };
        permanent(format!("{place}: {name} is {why}"))
    }

    async fn write_object(
        &self,
        name: &ObjectName,
        object: Object,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let mut sealed = Vec::new();
        if self.keys.encrypt.is_some() {
            let known = |blob: &Descriptor| self.sealed_of(blob).is_some();
            if !object.blobs.iter().all(known) {
                // The value was read by somebody else, who knows what we do not.
                self.read_object(name).await?;
            }
            for blob in &object.blobs {
                let unknown = || {
                    let what = &blob.digest;
                    permanent(format!("{name} names {what}, which nobody encrypted"))
                };
                sealed.push(self.sealed_of(blob).ok_or_else(unknown)?);
            }
        }
        let inner = match self.keys.is_empty() {
            true => object,
            false => close(&self.keys, name, object, sealed)?,
        };
        let name = self.inner_name(name)?;
        self.inner.write(&name, inner, condition).await
    }

    async fn fetch_sealed(
        &self,
        cipher: Access,
        blob: &Descriptor,
        into: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        if claim(into, blob).await? {
            return Ok(());
        }
        let unknown = || {
            let text = format!("{} is not in the encrypted cache", blob.digest);
            StoreError::new(FaultKind::Missing, text)
        };
        let sealed = self.sealed_of(blob).ok_or_else(unknown)?;
        let copy = Copy::new(into, &sealed);
        self.inner.fetch_blob(&sealed, into, progress).await?;
        let (store, blob) = (into.clone(), blob.clone());
        let opened = blocking(move || cipher.open_blob(&store, &sealed, &blob)).await;
        drop(copy);
        opened
    }

    async fn put_sealed(
        &self,
        cipher: Access,
        blob: &Descriptor,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let (store, plain) = (from.clone(), blob.clone());
        let sealed = blocking(move || cipher.seal_blob(&store, &plain)).await?;
        let copy = Copy::new(from, &sealed);
        self.inner.put_blob(&sealed, from, progress).await?;
        drop(copy);
        self.learn(std::slice::from_ref(blob), vec![sealed]);
        Ok(())
    }
}

impl RemoteStore for SealedStore {
    /// An index that was read with other keys is not this store's.
    fn name(&self) -> String {
        let signed = !self.keys.trusted.is_empty();
        let form = match (signed, self.keys.encrypt.is_some()) {
            (false, false) => return self.inner.name(),
            (true, true) => "signed, encrypted",
            (true, false) => "signed",
            (false, true) => "encrypted",
        };
        format!("{} ({form})", self.inner.name())
    }

    fn coordination(&self) -> Coordination {
        self.inner.coordination()
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        self.read_object(name).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        self.write_object(name, object, condition).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        self.inner.list(prefix, from)
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        async move { self.inner.remove(&self.inner_name(name)?).await }.boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        match Access::of(&self.keys) {
            Some(cipher) => self.fetch_sealed(cipher, blob, into, progress).boxed(),
            None => self.inner.fetch_blob(blob, into, progress),
        }
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        match Access::of(&self.keys) {
            Some(cipher) => self.put_sealed(cipher, blob, from, progress).boxed(),
            None => self.inner.put_blob(blob, from, progress),
        }
    }

    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        match self.keys.is_empty() {
            true => self.inner.read_buildkit(),
            // Nobody has signed those.
            false => async { Ok(Vec::new()) }.boxed(),
        }
    }

    fn write_buildkit<'a>(
        &'a self,
        cache: &'a Written,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        match self.keys.is_empty() {
            true => self.inner.write_buildkit(cache, from, progress),
            false => {
                let text = "a cache in BuildKit's format cannot be signed or encrypted";
                let refused = StoreError::new(FaultKind::Permanent, text);
                async { Err(refused) }.boxed()
            }
        }
    }

    fn refreshes_blobs(&self) -> bool {
        self.inner.refreshes_blobs()
    }

    fn keeps_blob<'a>(&'a self, blob: &'a Descriptor, now_ns: i64) -> Answer<'a, bool> {
        if self.keys.encrypt.is_none() {
            return self.inner.keeps_blob(blob, now_ns);
        }
        async move {
            match self.sealed_of(blob) {
                Some(sealed) => self.inner.keeps_blob(&sealed, now_ns).await,
                None => Ok(false),
            }
        }
        .boxed()
    }

    fn repository(&self) -> Option<String> {
        match self.keys.encrypt {
            // What lies there is not what an image wants.
            Some(_) => None,
            None => self.inner.repository(),
        }
    }
}

/// The key of an encrypted cache, for work on another thread.
struct Access(Arc<Keys>);

impl Access {
    fn of(keys: &Arc<Keys>) -> Option<Self> {
        keys.encrypt.as_ref().map(|_| Self(keys.clone()))
    }

    fn cipher(&self) -> Result<&Cipher, Broken> {
        self.0.encrypt.as_ref().ok_or(Broken)
    }

    /// Encrypts a blob into the local store.
    fn seal_blob(&self, store: &ContentStore, blob: &Descriptor) -> Result<Descriptor, StoreError> {
        let mut plain = store.open_blob(blob)?;
        let mut ingest = store.ingest()?;
        let digest = blob.digest.to_string();
        let sealed = self.cipher().map_err(io::Error::from);
        sealed
            .and_then(|cipher| cipher.seal(Purpose::Blob(&digest), &mut plain, &mut ingest))
            .map_err(|error| unusable(blob, error))?;
        let (digest, size) = ingest.commit(None)?;
        Ok(Descriptor::new(SEALED_MEDIA_TYPE, digest, size))
    }

    /// Decrypts a blob of the local store.
    fn open_blob(
        &self,
        store: &ContentStore,
        sealed: &Descriptor,
        blob: &Descriptor,
    ) -> Result<(), StoreError> {
        let mut reader = store.open_blob(sealed)?;
        let mut ingest = store.ingest_as(blob.digest.algorithm())?;
        let digest = blob.digest.to_string();
        let cipher = self.cipher().map_err(io::Error::from);
        cipher
            .and_then(|cipher| cipher.open(Purpose::Blob(&digest), &mut reader, &mut ingest))
            .map_err(|error| unusable(blob, error))?;
        ingest.commit(Some(blob))?;
        Ok(())
    }
}

/// An encrypted copy in the local store, which goes when nobody needs it any more.
struct Copy {
    store: ContentStore,
    digest: Digest,
}

impl Copy {
    fn new(store: &ContentStore, sealed: &Descriptor) -> Self {
        Self {
            store: store.clone(),
            digest: sealed.digest.clone(),
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is unreferenced, and collected with everything that is.
        let _ = self.store.delete(&self.digest);
    }
}

/// Seals an object.
fn close(
    keys: &Keys,
    name: &ObjectName,
    object: Object,
    sealed: Vec<Descriptor>,
) -> Result<Object, StoreError> {
    let plain = envelope::encode(&object).map_err(permanent)?;
    let (body, blobs) = match &keys.encrypt {
        None => (plain.to_vec(), object.blobs),
        Some(cipher) => {
            let mut table = u32::try_from(sealed.len())
                .map_err(permanent)?
                .to_le_bytes()
                .to_vec();
            for blob in &sealed {
                table.extend(hash_of(&blob.digest).ok_or_else(|| permanent("not sha256"))?);
            }
            let mut body = vec![0; RANDOM_BYTES];
            let random = ring::rand::SystemRandom::new().fill(&mut body);
            random.map_err(|_| permanent("no random bytes"))?;
            let random = body.clone();
            let purpose = Purpose::Object(name.as_str(), &random);
            let mut plain = io::Read::chain(table.as_slice(), plain.as_ref());
            cipher
                .seal(purpose, &mut plain, &mut body)
                .map_err(permanent)?;
            (body, sealed)
        }
    };
    let mut flags = 0;
    if keys.encrypt.is_some() {
        flags |= ENCRYPTED;
    }
    if keys.sign.is_some() {
        flags |= SIGNED;
    }
    let mut content = MAGIC.to_vec();
    content.push(flags);
    if let Some(pair) = &keys.sign {
        content.extend_from_slice(pair.public_key().as_ref());
        content.extend_from_slice(pair.sign(&message(name, flags, &body)).as_ref());
    }
    content.extend_from_slice(&body);
    if content.len() > OBJECT_BYTES_MAX {
        let text = format!(
            "{name} takes {} bytes, the limit is {OBJECT_BYTES_MAX}",
            content.len()
        );
        return Err(permanent(text));
    }
    Ok(Object {
        content: content.into(),
        blobs,
    })
}

/// Opens what [`close`] made; with the encrypted blobs, in the order of the object's.
fn open(
    keys: &Keys,
    name: &ObjectName,
    object: &Object,
) -> Result<(Object, Vec<Descriptor>), Unopened> {
    let rest = object.content.strip_prefix(MAGIC).ok_or(Unopened::Plain)?;
    let (&flags, mut rest) = rest.split_first().ok_or(Unopened::Plain)?;
    let mut signed = false;
    if flags & SIGNED != 0 {
        let (public, after) = rest.split_first_chunk::<32>().ok_or(Unopened::Untrusted)?;
        let (signature, body) = after
            .split_at_checked(SIGNATURE_BYTES)
            .ok_or(Unopened::Untrusted)?;
        signed = keys.is_signed(public, signature, &message(name, flags, body));
        rest = body;
    }
    if !keys.trusted.is_empty() && !signed {
        let missing = flags & SIGNED == 0;
        return Err(if missing {
            Unopened::Plain
        } else {
            Unopened::Untrusted
        });
    }
    let body = object.content.slice_ref(rest);
    match (&keys.encrypt, flags & ENCRYPTED != 0) {
        (None, false) => {
            let opened = envelope::decode(&body).ok_or(Unopened::Untrusted)?;
            Ok((opened, Vec::new()))
        }
        (Some(_), false) => Err(Unopened::Plain),
        (None, true) => Err(Unopened::Encrypted),
        (Some(cipher), true) => decrypt(cipher, name, &body).ok_or(Unopened::Encrypted),
    }
}

/// Says whether an object bears a signature, a good one or not.
fn is_signed(object: &Object) -> bool {
    let flags = object.content.strip_prefix(MAGIC);
    flags.is_some_and(|rest| rest.first().is_some_and(|flags| flags & SIGNED != 0))
}

fn decrypt(cipher: &Cipher, name: &ObjectName, body: &Bytes) -> Option<(Object, Vec<Descriptor>)> {
    let (random, mut stream) = body.split_at_checked(RANDOM_BYTES)?;
    let mut plain = Vec::new();
    let purpose = Purpose::Object(name.as_str(), random);
    cipher.open(purpose, &mut stream, &mut plain).ok()?;
    let plain = Bytes::from(plain);
    let (count, rest) = plain.split_first_chunk::<4>()?;
    let length = (u32::from_le_bytes(*count) as usize).checked_mul(32)?;
    let (table, rest) = rest.split_at_checked(length)?;
    let object = envelope::decode(&plain.slice_ref(rest))?;
    let (hashes, _) = table.as_chunks::<32>();
    if hashes.len() != object.blobs.len() {
        return None;
    }
    let sealed = object.blobs.iter().zip(hashes).map(|(blob, hash)| {
        let digest = Digest::from_sha256(*hash);
        Descriptor::new(SEALED_MEDIA_TYPE, digest, cipher::sealed_bytes(blob.size))
    });
    let sealed = sealed.collect();
    Some((object, sealed))
}

fn message(name: &ObjectName, flags: u8, body: &[u8]) -> Vec<u8> {
    [CONTEXT, name.as_str().as_bytes(), b"\0", &[flags], body].concat()
}

fn hash_of(digest: &Digest) -> Option<[u8; 32]> {
    let byte = |index: usize| u8::from_str_radix(digest.hex().get(index..index + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digest.hex().len()).step_by(2).map(byte).collect();
    bytes?.try_into().ok()
}

fn permanent(problem: impl ToString) -> StoreError {
    StoreError::new(FaultKind::Permanent, problem.to_string())
}

/// Says why a blob could not be encrypted or decrypted.
fn unusable(blob: &Descriptor, error: io::Error) -> StoreError {
    permanent(format!("{}: {error}", blob.digest))
}

#[cfg(test)]
mod tests;
