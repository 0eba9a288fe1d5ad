//! Tables of layers: which layers have one, and reading it.

use super::RangeSource;
use super::chunks::Chunks;
use crate::archive::{self, ChunkedPlace, FOOTER_BYTES, Format, TOC_BYTES_MAX, TocError, TocFile};
use crate::oci::Descriptor;
use crate::snapshot::blob::{CHUNKED_POSITION, CHUNKED_TABLE, STARGZ_TOC};

/// The table of a layer, as the manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Of an eStargz layer: its footer tells where it is. SHA-256 of the JSON.
    Stargz([u8; 32]),
    /// Of a zstd:chunked layer. SHA-256 of the compressed table.
    ZstdChunked([u8; 32], ChunkedPlace),
}

/// What a table says.
#[derive(Debug)]
pub(super) struct Contents {
    /// What is in the layer.
    pub(super) files: Vec<TocFile>,
    /// Where in the blob ends what is wanted right away.
    pub(super) landmark: Option<u64>,
}

/// Says whether a layer has a table, so that it can be shown without being fetched.
pub fn has_table(blob: &Descriptor) -> bool {
    Table::of(blob).is_some()
}

impl Table {
    /// Finds the table that belongs to a layer; `None` for a layer in another form.
    pub(super) fn of(blob: &Descriptor) -> Option<Self> {
        let told = |name: &str| blob.annotations.get(name).map(String::as_str);
        match Format::of_layer(&blob.media_type)? {
            Format::Gzip if blob.size > FOOTER_BYTES => {
                Some(Self::Stargz(archive::sha256_of(told(STARGZ_TOC)?)?))
            }
            Format::Zstd => {
                let place = ChunkedPlace::parse(told(CHUNKED_POSITION)?)?;
                let is_inside = place.end().is_some_and(|end| end <= blob.size);
                let sha256 = archive::sha256_of(told(CHUNKED_TABLE)?)?;
                is_inside.then_some(Self::ZstdChunked(sha256, place))
            }
            _ => None,
        }
    }

    /// Reads the table of a blob: from disk where it was read before.
    pub(super) fn read(
        &self,
        chunks: &Chunks,
        source: &dyn RangeSource,
        blob: &Descriptor,
    ) -> Result<Contents, String> {
        let (Self::Stargz(sha256) | Self::ZstdChunked(sha256, _)) = self;
        if let Some((bytes, offset)) = chunks.kept_table(sha256)
            && let Ok(files) = self.parse(&bytes, offset)
        {
            return Ok(files);
        }
        let (bytes, offset) = match self {
            Self::Stargz(_) => stargz(source, blob)?,
            Self::ZstdChunked(_, place) => (source.read(place.offset, place.size)?, place.offset),
        };
        let files = self.parse(&bytes, offset);
        let files = files.map_err(|error| error.to_string())?;
        // Without it the table is fetched again.
        let _ = chunks.keep_table(sha256, &bytes, offset);
        Ok(files)
    }

    fn parse(&self, bytes: &[u8], offset: u64) -> Result<Contents, TocError> {
        Ok(match self {
            Self::Stargz(sha256) => Contents {
                files: archive::read_toc(bytes, sha256, offset)?,
                landmark: archive::landmark(bytes),
            },
            Self::ZstdChunked(sha256, place) => Contents {
                files: archive::read_chunked_toc(bytes, sha256, place)?,
                landmark: None,
            },
        })
    }
}

/// Fetches the table of an eStargz layer, as JSON; also returns where its member begins.
fn stargz(source: &dyn RangeSource, blob: &Descriptor) -> Result<(Vec<u8>, u64), String> {
    let said = |error: TocError| error.to_string();
    // Larger than the footer, as descriptors of layers with tables are.
    let end = blob.size - FOOTER_BYTES;
    let footer = source.read(end, FOOTER_BYTES)?;
    let offset = archive::toc_offset(&footer).map_err(said)?;
    let length = end.checked_sub(offset);
    let length = length.filter(|length| *length <= TOC_BYTES_MAX);
    let length = length.ok_or("its table of contents cannot be where its footer says")?;
    let json = archive::unpack_toc(&source.read(offset, length)?).map_err(said)?;
    Ok((json, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, media_type};

    #[test]
    fn only_layers_that_name_a_table_have_one() {
        let sha256 = format!("sha256:{}", "ab".repeat(32));
        let position = "100:50:200:1";
        let (gzip, zstd) = (media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD);
        let stargz = [(STARGZ_TOC, sha256.as_str())];
        let chunked = [
            (CHUNKED_TABLE, sha256.as_str()),
            (CHUNKED_POSITION, position),
        ];
        let behind = [
            (CHUNKED_TABLE, sha256.as_str()),
            (CHUNKED_POSITION, "990:50:200:1"),
        ];
        for (kind, size, annotations, expected) in [
            (gzip, 1000, &stargz[..], true),
            (gzip, 51, &stargz, false),
            (gzip, 1000, &[], false),
            (gzip, 1000, &[(STARGZ_TOC, "sha256:ab")], false),
            (zstd, 1000, &stargz, false),
            (zstd, 1000, &chunked, true),
            (zstd, 1000, &chunked[..1], false),
            (zstd, 1000, &behind, false),
            (gzip, 1000, &chunked, false),
            (media_type::OCI_LAYER, 1000, &stargz, false),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                1000,
                &stargz,
                false,
            ),
        ] {
            let annotations = annotations.iter();
            let annotations =
                annotations.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let blob = Descriptor {
                annotations: annotations.collect(),
                ..Descriptor::new(kind, Digest::of(b""), size)
            };
            assert_eq!(has_table(&blob), expected, "{blob:?}");
        }
    }
}
