//! An object as bytes, for stores that keep nothing but bytes.
//!
//! ```text
//! "cooper-object-1\n"
//! u32, little-endian     length of the list
//! list                   JSON array of descriptors: the blobs that the object keeps alive; zstd
//! content                to the end
//! ```

use bytes::Bytes;

use crate::cache::remote::store::{OBJECT_BYTES_MAX, Object};
use crate::oci::Descriptor;

/// Begins an envelope.
const MAGIC: &[u8] = b"cooper-object-1\n";
/// Most bytes of the list, unpacked.
const LIST_BYTES_MAX: usize = 8 << 20;
/// Most bytes of an envelope.
pub(super) const ENVELOPE_BYTES_MAX: usize = OBJECT_BYTES_MAX + (3 << 20);
/// Level of compression: lists are small.
const LEVEL: i32 = 3;

/// Writes an object.
pub(super) fn encode(object: &Object) -> Result<Bytes, String> {
    let list = serde_json::to_vec(&object.blobs).map_err(|error| error.to_string())?;
    let list = zstd::bulk::compress(&list, LEVEL).map_err(|error| error.to_string())?;
    let length = u32::try_from(list.len()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + list.len() + object.content.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&list);
    bytes.extend_from_slice(&object.content);
    Ok(bytes.into())
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub(super) fn decode(bytes: &Bytes) -> Option<Object> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (list, content) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let list = zstd::bulk::decompress(list, LIST_BYTES_MAX).ok()?;
    let blobs: Vec<Descriptor> = serde_json::from_slice(&list).ok()?;
    Some(Object {
        content: bytes.slice_ref(content),
        blobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_back_and_anything_else_is_refused() {
        let blob = Descriptor::of("application/x", b"blob");
        let object = Object {
            content: Bytes::from_static(b"content"),
            blobs: vec![blob; 3],
        };
        let bytes = encode(&object).unwrap();
        assert_eq!(decode(&bytes), Some(object));
        for length in 0..MAGIC.len() + 8 {
            assert_eq!(decode(&bytes.slice(..length)), None, "{length}");
        }
        let mut wild = bytes.to_vec();
        wild[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&wild.into()), None);
    }
}
