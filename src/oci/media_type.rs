//! Media types of the OCI image-spec and of Docker's schema 2.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that may not be distributed, uncompressed.
pub const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// OCI layer that may not be distributed, gzip.
pub const OCI_FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// Docker layer that may not be distributed, uncompressed.
pub const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// Docker layer that may not be distributed, gzip.
pub const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, uncompressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd (written by some tools).
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// Ends the media type of an encrypted layer, behind that of the plain one.
const ENCRYPTED: &str = "+encrypted";

/// Says whether a media type is that of an encrypted layer.
pub fn is_encrypted(media_type: &str) -> bool {
    media_type.ends_with(ENCRYPTED)
}

/// Returns the media type that an encrypted layer has once it is decrypted; others as they are.
pub fn decrypted(media_type: &str) -> &str {
    media_type.strip_suffix(ENCRYPTED).unwrap_or(media_type)
}

/// Returns the media type of a layer once it is encrypted.
pub fn encrypted(media_type: &str) -> String {
    format!("{media_type}{ENCRYPTED}")
}

/// Says whether a media type is that of a manifest list or index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Says whether a media type is that of an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Says whether a media type is that of a layer this builder can unpack.
pub fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_LAYER
            | OCI_LAYER_GZIP
            | OCI_LAYER_ZSTD
            | DOCKER_LAYER
            | DOCKER_LAYER_GZIP
            | DOCKER_LAYER_ZSTD
    ) || is_foreign(media_type)
}

/// Says whether a layer may not be distributed: it is fetched from its maker, never pushed.
pub fn is_foreign(media_type: &str) -> bool {
    let starts = [OCI_FOREIGN, DOCKER_FOREIGN];
    starts.iter().any(|start| media_type.starts_with(start))
}
