//! Tar streams: reading hostile ones, writing reproducible ones, compressing on all cores.
//!
//! Reading order: [`entry`] (an entry as values, acceptable paths), [`pax`], [`reader`] and
//! [`writer`] (bytes to entries and back), [`compression`], [`gzip`], [`pool`],
//! [`layer_writer`], [`toc`] with [`estargz`], [`zstd_chunked`], [`toc_reader`] and [`chunked_reader`] (single files), and [`layer_reader`] (whole blobs in one pass over all cores), [`extract`]
//! with [`attributes`], [`jobs`], [`parents`] and [`whiteout`] (entries to a tree), [`pack`] with [`load`]
//! (a tree to entries).
//!
//! Invariants: nothing is written outside the root that was given, whatever the archive says;
//! every size from outside has a limit; written bytes depend on the input alone. Deliberately
//! absent: digests of images, stores, snapshots.

mod attributes;
mod chunked_reader;
mod compression;
mod entry;
mod error;
mod estargz;
mod extract;
mod gzip;
#[cfg(test)]
mod hostile_tests;
mod jobs;
mod layer_reader;
mod layer_writer;
mod load;
mod pack;
mod parents;
mod pax;
mod pool;
mod reader;
mod sparse;
mod toc;
mod toc_reader;
mod whiteout;
mod writer;
mod zstd_chunked;

pub use chunked_reader::{ChunkedPlace, read_chunked_toc};
pub use compression::{Compression, CompressionKind, Format, is_tar_header};
pub use entry::{
    Entry, EntryKind, MAX_COMPONENT, MAX_PATH, MAX_PAX, MAX_XATTR, clean_path, is_host_xattr,
    is_overlay_xattr,
};
pub use error::{ArchiveError, Refusal};
pub use estargz::Stargz;
pub use extract::{ExtractOptions, Extracted, Observer, Unobserved, Whiteouts, extract};
pub use layer_reader::{LayerReader, decoder};
pub use layer_writer::{LayerWriter, WrittenLayer};
pub use pack::{EntryTimes, PackOptions, Packed, pack};
pub use reader::TarReader;
pub use toc::Table;
pub use toc_reader::{
    CHUNK_BYTES_MAX, ChunkPlace, FOOTER_BYTES, Member, TOC_BYTES_MAX, TocError, TocFile, landmark,
    read_toc, sha256_of, toc_offset, unpack_toc,
};
pub use whiteout::{OPAQUE, PREFIX};
pub use writer::TarWriter;
pub use zstd_chunked::ZstdChunked;
