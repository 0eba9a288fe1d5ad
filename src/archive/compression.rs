//! Which compression a layer gets, and which one some bytes have.

use serde::{Deserialize, Serialize};

/// Names a compression of layers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum CompressionKind {
    /// gzip, in members of 1 MiB of input each.
    #[default]
    Gzip,
    /// gzip whose files can be fetched one by one.
    Estargz,
    /// Zstandard, one frame.
    Zstd,
    /// Zstandard whose files can be fetched one by one.
    #[serde(rename = "zstd:chunked")]
    ZstdChunked,
    /// None.
    Uncompressed,
}

impl CompressionKind {
    /// Returns the level used when none is asked for.
    ///
    /// libdeflate's levels are not zlib's: measured on files of /usr, its 4 packs 2 % tighter
    /// than Go's default of 6, which everybody's layers have, at half as much again the speed
    /// of its own 6 (130 against 92 MB per CPU second), which would win 3 % more. zstd 3 is the
    /// library's own default.
    pub fn default_level(self) -> i32 {
        match self {
            Self::Gzip | Self::Estargz => 4,
            Self::Zstd | Self::ZstdChunked => 3,
            Self::Uncompressed => 0,
        }
    }

    /// Clamps a level to what the algorithm has.
    pub fn clamp_level(self, level: i32) -> i32 {
        match self {
            Self::Gzip | Self::Estargz => level.clamp(0, 12),
            Self::Zstd | Self::ZstdChunked => level.clamp(1, 22),
            Self::Uncompressed => 0,
        }
    }

    /// Returns the name used in options and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Estargz => "estargz",
            Self::Zstd => "zstd",
            Self::ZstdChunked => "zstd:chunked",
            Self::Uncompressed => "uncompressed",
        }
    }
}

/// How the layers of an image are to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Compression {
    /// The algorithm.
    pub kind: CompressionKind,
    /// The level; `None` takes the default of the algorithm.
    pub level: Option<i32>,
    /// Whether layers that came compressed in another way are compressed again.
    pub force: bool,
}

impl Compression {
    /// Returns the level that is meant, within what the algorithm has.
    pub fn effective_level(&self) -> i32 {
        let level = self.level.unwrap_or(self.kind.default_level());
        self.kind.clamp_level(level)
    }
}

/// Names a compression this module can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// None.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Format {
    /// Bytes [`Format::detect`] wants to see.
    pub const DETECT_BYTES: usize = 512;

    /// Tells the format by the first bytes.
    pub fn detect(head: &[u8]) -> Self {
        const MAGIC: [(&[u8], Format); 4] = [
            (&[0x1f, 0x8b], Format::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
            (b"BZh", Format::Bzip2),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
        ];
        MAGIC
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Self::Plain, |(_, format)| *format)
    }

    /// Tells the format of a layer by its media type; `None` for what is no layer.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        let (name, suffix) = media_type
            .rsplit_once(['+', '.'])
            .unwrap_or((media_type, ""));
        match suffix {
            "gzip" if is_tar(name) => Some(Self::Gzip),
            "zstd" if is_tar(name) => Some(Self::Zstd),
            "tar" => Some(Self::Plain),
            _ => None,
        }
    }

    /// Returns the name used in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

fn is_tar(name: &str) -> bool {
    name.ends_with(".tar")
}

/// Says whether bytes begin like a tar header: used to tell an archive from any other file.
pub fn is_tar_header(head: &[u8]) -> bool {
    let Some(block) = head.get(..512) else {
        return false;
    };
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    let field = String::from_utf8_lossy(&block[148..156]);
    let told = field.trim_matches(|c| c == ' ' || c == '\0');
    block[0] != 0 && u64::from_str_radix(told, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_media_type() {
        for (media_type, expected) in [
            (
                "application/vnd.oci.image.layer.v1.tar",
                Some(Format::Plain),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                Some(Format::Gzip),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                Some(Format::Zstd),
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                Some(Format::Gzip),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar",
                Some(Format::Plain),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Some(Format::Gzip),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                Some(Format::Zstd),
            ),
            ("application/json", None),
            ("application/gzip", None),
        ] {
            assert_eq!(Format::of_layer(media_type), expected, "{media_type}");
        }
    }
}
