//! Cache mounts: the folders of `RUN --mount=type=cache`, and what is done with them.
//!
//! Read in order: [`folders`] (where they lie, who has them, listing and removing them), [`trim`]
//! (a bound for what they hold); then how they travel: `chunks` (cutting files), [`listing`] (the
//! format), [`mod@save`] and [`mod@restore`] (a folder to an object and back), [`travel`] (which objects a
//! remote cache has). A folder is the user's: what steps leave in it is not looked into unless
//! somebody asks.

mod chunks;
pub mod folders;
pub mod listing;
pub mod restore;
pub mod save;
pub mod travel;
pub mod trim;

pub use folders::MountFolder;
