//! Signing images in their registries, and verifying them there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::error::{EngineError, ErrorKind};
use super::images::parse;
use super::request::{SignRequest, Signed, Verified, VerifyRequest};
use crate::attestation::IN_TOTO;
use crate::oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use crate::progress::{Progress, VertexProgress};
use crate::registry;
use crate::session::Session;
use crate::signing::cosign::{self, Beside, Payload};
use crate::signing::envelope::{ENVELOPE, Envelope};
use crate::signing::{InvalidKey, PublicKey};

/// Largest payload or signed statement that is read.
const SIGNED_BYTES_MAX: u64 = 64 << 20;
/// Annotation of a layer that names its predicate.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

impl Engine {
    /// Signs an image in its registry, and what is said about it.
    pub async fn sign(
        &self,
        request: &SignRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Signed, EngineError> {
        let image = &request.image;
        let step = progress.of_vertex(Digest::of(format!("sign {image}").as_bytes()));
        step.start(&format!("signing {image}"));
        let shelf = Shelf {
            engine: self,
            client: self.registry(session, request.insecure.clone()),
            step: &step,
        };
        let signed = tokio::select! {
            signed = shelf.sign(request) => signed,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(signed.as_ref().err().map(ToString::to_string));
        signed
    }

    /// Verifies the signatures of an image, or of what is said about it, in its registry.
    pub async fn verify_signatures(
        &self,
        request: &VerifyRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Verified, EngineError> {
        let image = &request.image;
        let step = progress.of_vertex(Digest::of(format!("verify {image}").as_bytes()));
        step.start(&format!("verifying {image}"));
        let shelf = Shelf {
            engine: self,
            client: self.registry(session, Vec::new()),
            step: &step,
        };
        let verified = tokio::select! {
            verified = shelf.verify(request) => verified,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(verified.as_ref().err().map(ToString::to_string));
        verified
    }
}

/// A registry in which signatures stand beside images.
struct Shelf<'a> {
    engine: &'a Engine,
    client: registry::Client,
    step: &'a VertexProgress,
}

/// A layer with its bytes.
type Layer = (Descriptor, Vec<u8>);

impl Shelf<'_> {
    async fn sign(&self, request: &SignRequest) -> Result<Signed, EngineError> {
        let (root, bytes) = self.client.resolve(&request.image).await.map_err(failed)?;
        let image = request.image.clone().with_digest(root.digest.clone());
        let public = request.key.public();
        let there = self
            .verified_payloads(&image, &root.digest, &public)
            .await?;
        if there.is_none_or(|payloads| payloads.is_empty()) {
            let payload = Payload::of(&image, &root.digest);
            let payload = serde_json::to_vec(&payload).map_err(encoded)?;
            let signature = request.key.sign(&payload).map_err(unsigned)?;
            let layer = cosign::payload_layer(&payload, STANDARD.encode(signature));
            let layers = [(layer, payload)];
            self.put(&image, &root.digest, Beside::Signatures, &layers)
                .await?;
        }
        let mut signed = Signed {
            digest: root.digest.clone(),
            signatures: place(&image, &root.digest, Beside::Signatures)?,
            statements: Vec::new(),
        };
        for (about, statements) in self.statements(&image, &root, &bytes).await? {
            let there = self.signed_bodies(&image, &about, &public).await?;
            let mut layers = Vec::new();
            for (predicate_type, statement) in statements {
                if there.contains(&statement) {
                    continue;
                }
                let envelope = Envelope::sign(IN_TOTO, &statement, &request.key);
                let envelope = serde_json::to_vec(&envelope.map_err(unsigned)?);
                let envelope = envelope.map_err(encoded)?;
                let layer = cosign::statement_layer(&envelope, &predicate_type);
                layers.push((layer, envelope));
            }
            if !layers.is_empty() {
                self.put(&image, &about, Beside::Statements, &layers)
                    .await?;
            }
            let place = place(&image, &about, Beside::Statements)?;
            signed.statements.push(place);
        }
        Ok(signed)
    }

    /// Reads what is said about the images of an index: for each of them, kinds and statements.
    async fn statements(
        &self,
        image: &Reference,
        root: &Descriptor,
        bytes: &[u8],
    ) -> Result<Vec<(Digest, Vec<(String, Vec<u8>)>)>, EngineError> {
        let mut found = Vec::new();
        if !media_type::is_index(&root.media_type) {
            return Ok(found);
        }
        let index: Index = parse("index", root, bytes)?;
        for child in index.manifests {
            let Some(about) = child.attested() else {
                continue;
            };
            let bytes = self.client.manifest(image, &child).await.map_err(failed)?;
            let manifest: Manifest = parse("manifest", &child, &bytes)?;
            let mut statements = Vec::new();
            for layer in manifest.layers.iter().filter(|l| l.media_type == IN_TOTO) {
                let kind = layer.annotations.get(PREDICATE_TYPE).cloned();
                let statement = self.blob(image, layer).await?;
                statements.push((kind.unwrap_or_default(), statement));
            }
            found.push((about, statements));
        }
        Ok(found)
    }

    /// Puts layers beside an image; those that are there stay.
    async fn put(
        &self,
        image: &Reference,
        about: &Digest,
        beside: Beside,
        layers: &[Layer],
    ) -> Result<(), EngineError> {
        let place = place(image, about, beside)?;
        let there = match self.manifest_at(&place).await? {
            Some(manifest) => manifest.layers,
            None => Vec::new(),
        };
        let new: Vec<Descriptor> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let (config, manifest) = cosign::manifest(there, &new).map_err(encoded)?;
        let config_layer = Descriptor::of(media_type::OCI_CONFIG, &config);
        let blobs = layers.iter().map(|(layer, bytes)| (layer, bytes));
        for (descriptor, bytes) in blobs.chain([(&config_layer, &config)]) {
            self.engine.content.put(bytes)?;
            let content = &self.engine.content;
            let pushing = self
                .client
                .push_blob(&place, descriptor, content, None, self.step);
            pushing.await.map_err(failed)?;
        }
        let pushing = self
            .client
            .push_manifest(&place, media_type::OCI_MANIFEST, &manifest);
        pushing.await.map_err(failed)?;
        Ok(())
    }

    async fn manifest_at(&self, place: &Reference) -> Result<Option<Manifest>, EngineError> {
        match self.client.resolve(place).await {
            Ok((descriptor, bytes)) => parse("manifest", &descriptor, &bytes).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn blob(&self, image: &Reference, blob: &Descriptor) -> Result<Vec<u8>, EngineError> {
        let content = &self.engine.content;
        let fetching = self.client.fetch_blob(image, blob, content, self.step);
        fetching.await.map_err(failed)?;
        Ok(content.read(blob, SIGNED_BYTES_MAX)?)
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<Verified, EngineError> {
        let (root, bytes) = self.client.resolve(&request.image).await.map_err(failed)?;
        let image = request.image.clone().with_digest(root.digest.clone());
        let mut verified = Verified {
            digest: root.digest.clone(),
            spoken: Vec::new(),
        };
        if !request.statements {
            let payloads = self
                .verified_payloads(&image, &root.digest, &request.key)
                .await?;
            let payloads = payloads.ok_or_else(|| unverified(&image, "it has no signatures"))?;
            if payloads.is_empty() {
                return Err(unverified(&image, "no signature of it is of this key"));
            }
            verified.spoken = payloads;
            return Ok(verified);
        }
        let mut about = vec![root.digest.clone()];
        if media_type::is_index(&root.media_type) {
            let index: Index = parse("index", &root, &bytes)?;
            let images = index.manifests.into_iter().filter(|m| !m.is_attestation());
            about.extend(images.map(|image| image.digest));
        }
        for digest in &about {
            let spoken = self
                .verified_statements(&image, digest, &request.key)
                .await?;
            verified.spoken.extend(spoken);
        }
        match verified.spoken.is_empty() {
            false => Ok(verified),
            true => Err(unverified(
                &image,
                "no statement about it is signed with this key",
            )),
        }
    }

    /// Reads the payloads that name the image and are signed with the key; `None` where there are
    /// no signatures at all.
    async fn verified_payloads(
        &self,
        image: &Reference,
        digest: &Digest,
        key: &PublicKey,
    ) -> Result<Option<Vec<serde_json::Value>>, EngineError> {
        let place = place(image, digest, Beside::Signatures)?;
        let Some(manifest) = self.manifest_at(&place).await? else {
            return Ok(None);
        };
        let mut found = Vec::new();
        for layer in manifest
            .layers
            .iter()
            .filter(|l| l.media_type == cosign::PAYLOAD)
        {
            let signature = layer.annotations.get(cosign::SIGNATURE);
            let signature = signature.and_then(|text| STANDARD.decode(text).ok());
            let bytes = self.blob(image, layer).await?;
            if !signature.is_some_and(|signature| key.verifies(&bytes, &signature)) {
                continue;
            }
            let payload: Payload = parse("signed payload", layer, &bytes)?;
            if payload.is_of(digest) {
                found.push(parse("signed payload", layer, &bytes)?);
            }
        }
        Ok(Some(found))
    }

    /// Reads the statements that are about the image and signed with the key.
    async fn verified_statements(
        &self,
        image: &Reference,
        digest: &Digest,
        key: &PublicKey,
    ) -> Result<Vec<serde_json::Value>, EngineError> {
        let mut found = Vec::new();
        for body in self.signed_bodies(image, digest, key).await? {
            let layer = Descriptor::of(IN_TOTO, &body);
            let statement: serde_json::Value = parse("statement", &layer, &body)?;
            let mut subjects = statement["subject"].as_array().into_iter().flatten();
            if subjects.any(|subject| subject["digest"]["sha256"] == digest.hex()) {
                found.push(statement);
            }
        }
        Ok(found)
    }

    /// Reads the statements beside an image that are signed with the key.
    async fn signed_bodies(
        &self,
        image: &Reference,
        digest: &Digest,
        key: &PublicKey,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let place = place(image, digest, Beside::Statements)?;
        let layers = self
            .manifest_at(&place)
            .await?
            .map(|manifest| manifest.layers);
        let mut found = Vec::new();
        for layer in layers.unwrap_or_default() {
            if layer.media_type != ENVELOPE {
                continue;
            }
            let envelope: Envelope = parse("envelope", &layer, &self.blob(image, &layer).await?)?;
            if envelope.payload_type == IN_TOTO {
                found.extend(envelope.verified(key));
            }
        }
        Ok(found)
    }
}

/// Names the place beside an image.
fn place(image: &Reference, about: &Digest, beside: Beside) -> Result<Reference, EngineError> {
    let text = format!("{}:{}", image.name(), beside.tag(about));
    text.parse().map_err(|error: crate::oci::InvalidReference| {
        EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
    })
}

fn failed(error: registry::Error) -> EngineError {
    EngineError::new(ErrorKind::Registry, crate::solver::error::chain(&error)).with_source(error)
}

fn encoded(error: serde_json::Error) -> EngineError {
    EngineError::new(ErrorKind::Internal, "cannot encode what is signed").with_source(error)
}

fn unsigned(error: InvalidKey) -> EngineError {
    EngineError::new(ErrorKind::Config, format!("cannot sign: {error}")).with_source(error)
}

fn unverified(image: &Reference, reason: &str) -> EngineError {
    EngineError::new(ErrorKind::User, format!("cannot verify {image}: {reason}"))
        .with_hint("is it the right key, and was the image signed after its last push?")
}
