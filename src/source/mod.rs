//! Where inputs come from: images, web servers, git. Pin first, fetch later.
//!
//! Read in order: [`image`] (with `attested`), [`http`] (with `http_request`, `http_signature`), [`git`] (with [`git_remote`], [`git_options`],
//! `git_mirror`, `git_bundle`, `git_checkout`, `git_command`, `git_signature` with `git_object`), [`local`] (Dockerfiles and contexts),
//! [`bundle`] (images in archives), [`layout`] (images in folders), `image_file` (which of the
//! two a file is), `blob` (single blobs), `ranges` (parts of layers). Pinning
//! turns a name that may move (a tag, a URL, a branch) into an identity that cannot (a digest, a
//! commit); fetching takes such an identity only. Invariants: credentials appear in no message
//! and on no command line; what a server says (file names, refs, digests) is checked before it
//! is used. Deliberately absent: Dockerfile words.

mod attested;
mod blob;
pub mod bundle;
mod error;
pub mod git;
mod git_bundle;
mod git_checkout;
mod git_command;
mod git_mirror;
mod git_object;
pub mod git_options;
pub mod git_remote;
mod git_signature;
mod git_status;
pub mod http;
mod http_request;
mod http_signature;
pub mod image;
mod image_file;
pub mod layout;
pub mod local;
mod ranges;
mod working_tree;

pub use attested::AttestationChain;
pub use blob::BlobPlace;
pub use error::Error;
pub use git::{GitObjects, PinnedGit, Repositories};
pub use git_bundle::BundleBlob;
pub use git_mirror::GitMirror;
pub use git_object::{ObjectKind, SignedObject};
pub use git_options::{GitAuthorization, GitOptions};
pub use git_status::is_dirty;
pub use http::{HttpFile, PinnedHttp, WebFiles};
pub use http_signature::verify_file;
pub use image::{Images, PinnedImage, ResolveMode};
pub use layout::BlobFolder;
pub use ranges::LayerRanges;
pub use working_tree::WorkingTree;
