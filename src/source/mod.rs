//! Where inputs come from: images, web servers, git. Pin first, fetch later.
//!
//! Read in order: [`image`], [`http`] (with `http_request`), [`git`] (with [`git_remote`], [`git_options`],
//! `git_mirror`, `git_checkout`, `git_command`), [`local`] (Dockerfiles and contexts),
//! [`bundle`] (images in archives), [`layout`] (images in folders), `ranges` (parts of layers), `image_file` (which of the
//! two a file is). Pinning
//! turns a name that may move (a tag, a URL, a branch) into an identity that cannot (a digest, a
//! commit); fetching takes such an identity only. Invariants: credentials appear in no message
//! and on no command line; what a server says (file names, refs, digests) is checked before it
//! is used. Deliberately absent: Dockerfile words.

pub mod bundle;
mod error;
pub mod git;
mod git_checkout;
mod git_command;
mod git_mirror;
pub mod git_options;
pub mod git_remote;
mod git_status;
pub mod http;
mod http_request;
pub mod image;
mod image_file;
pub mod layout;
pub mod local;
mod ranges;
mod working_tree;

pub use error::Error;
pub use git::{PinnedGit, Repositories};
pub use git_mirror::GitMirror;
pub use git_options::{GitAuthorization, GitOptions};
pub use git_status::is_dirty;
pub use http::{HttpFile, PinnedHttp, WebFiles};
pub use image::{Images, PinnedImage, ResolveMode};
pub use layout::BlobFolder;
pub use ranges::LayerRanges;
pub use working_tree::WorkingTree;
