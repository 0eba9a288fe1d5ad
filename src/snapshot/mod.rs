//! Layers on disk and the file systems they add up to.
//!
//! A **layer** is a directory in the format of an overlayfs upper directory: a deleted name
//! is a character device 0:0, a directory that hides everything below it carries the opaque
//! attribute. A layer knows nothing of its parents; a **stack** is a list of layers, lowest
//! first, and the empty stack is an empty file system.
//!
//! Reading order: [`id`], [`meta`], [`store`] (which layers there are), [`removal`], [`verify`], [`temp`] (work in
//! progress), [`probe`]; [`merged`] and [`stack`] (layers to a tree), [`view`] and [`active`]
//! (using a tree), [`normalize`], [`native`], [`compare`] and [`deep`] (a tree to a
//! layer), `same` (a layer to that of another run); [`apply`]
//! and [`repair`] (a blob to a layer), [`blob`] (a layer to a blob), [`squash`] (layers to one),
//! [`elsewhere`] (layers that can be brought), [`lazy`] (layers that are shown before they are), [`encrypted`] (layers that need a key).
//!
//! On disk, below the root of the store:
//!
//! ```text
//! layers/<id>/fs/              the upper directory
//! layers/<id>/meta.json        LayerMeta; a layer without a readable one does not exist
//! layers/<id>/blobs/*.json     LayerBlob: compressed forms that are known, and the decrypted one
//! layers/<id>/variants/<h>/fs  the layer as it is on the stack with hash h, see repair
//! layers/.empty/               an empty layer
//! layers/.overlay              where and under what circumstances overlayfs was seen to work
//! tmp/snap-*/                  work in progress, flock'ed by its process
//! locks/layers                 flock'ed, shared by users of layers, alone by who removes some
//! locks/snap-*                 flock'ed while a layer, a blob or a variant is being made
//! ```
//!
//! Invariants: a layer appears under its name complete (one rename) and never changes; layers
//! are not synced when they are made, so one of an earlier boot counts only when it was marked
//! durable ([`Snapshotter::settle`]). Deliberately absent: processes, and what a layer is for.

mod active;
mod apply;
mod blob;
mod compare;
mod deep;
mod elsewhere;
mod encrypted;
mod error;
mod id;
mod lazy;
mod merged;
mod meta;
mod native;
mod normalize;
mod probe;
mod removal;
mod repair;
mod same;
mod squash;
mod stack;
mod store;
mod temp;
mod verify;
mod view;

pub use active::{Active, RootMount};
pub use blob::{BLOB_ANNOTATIONS, LayerForm};
pub use error::Error;
pub use id::{InvalidLayerId, LayerId};
pub use lazy::{Failures, LazyLayer, RangeSource, has_table};
pub use meta::{
    LayerBlob, LayerInfo, LayerMeta, LayerRun, META_VERSION, Pending, RootEntry, RunTime,
};
pub use store::{Kind, LayerEntry, Snapshotter};
pub use verify::LayerState;
pub use view::{Owners, View};

pub use crate::archive::{Compression, CompressionKind, EntryTimes, Observer, Unobserved};
