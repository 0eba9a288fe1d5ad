//! File systems served by this process (FUSE), read-only: the mount, and the kernel's messages.
//!
//! Read in order: [`wire`] (messages as values), [`device`] (the mount, and who reads and writes
//! the kernel's device). What the files are is somebody else's business.
//!
//! ```text
//! kernel ── /dev/fuse ── two threads with descriptors of their own ── socket ── Connection
//! ```
//!
//! The threads in between exist for the end: a process whose thread waits for a file of its own
//! file system can only die when the device is closed, and the device is closed only when no
//! thread has it open, the waiting one included. So nobody but those two threads has it, and they
//! never wait for a file. Deliberately absent: trees, layers, where data comes from.

mod device;
mod wire;

pub use device::{Connection, Replies, is_killed};
pub use wire::{Answer, Attr, DirEntry, Operation, Request, list};
