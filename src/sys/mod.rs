//! Linux as the rest of cooper sees it; the only module that may hold `unsafe`.
//!
//! File side, in reading order: [`metadata`] (what `statx` says), [`xattr`], [`handle`] (one
//! opened object, changed without resolving a name again), [`dir`] (listing and removing
//! trees by descriptor), [`root`] (paths that cannot leave a directory), [`copy`], [`atomic`],
//! [`lock`], [`mount`]. Deliberately absent: images and builds.

pub mod atomic;
pub mod copy;
pub mod dir;
pub mod disk;
pub mod handle;
pub mod lock;
pub mod metadata;
pub mod mount;
pub mod root;
pub mod xattr;
