//! Linux as the rest of cooper sees it; the only module that may hold `unsafe`.
//!
//! File side, in reading order: [`metadata`] (what `statx` says), [`xattr`], [`handle`] (one
//! opened object, changed without resolving a name again), [`dir`] (listing and removing
//! trees by descriptor), [`root`] (paths that cannot leave a directory), [`copy`], [`atomic`],
//! [`lock`], [`mount`], [`fuse`] (file systems that this process serves).
//!
//! Process side: [`ns`] (namespaces), [`process`] (starting, forking, waiting), [`caps`],
//! [`seccomp`] (the default filter), [`device_filter`], [`detached`] (mounts that hang nowhere
//! yet), [`netlink`] (network devices), [`binfmt`] (programs of other processors). Deliberately absent: images and builds.

pub mod atomic;
pub mod binfmt;
pub mod caps;
pub mod copy;
pub mod detached;
pub mod device_filter;
pub mod dir;
pub mod disk;
pub mod fuse;
pub mod handle;
pub mod lock;
pub mod metadata;
pub mod mount;
pub mod netlink;
pub mod ns;
pub mod process;
pub mod root;
pub mod seccomp;
pub mod xattr;

pub use ns::isolate_mounts;
