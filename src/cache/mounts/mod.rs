//! Cache mounts: the folders of `RUN --mount=type=cache`, and what is done with them.
//!
//! Read in order: [`folders`] (where they lie, who has them, listing and removing them), [`trim`] (a bound for
//! what they hold). The
//! folder is the user's: what steps leave in it is not looked into unless somebody asks.

pub mod folders;
pub mod trim;

pub use folders::MountFolder;
