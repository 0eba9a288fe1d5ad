//! Options of `cooper build` about the image: where it is loaded, how many layers it has.

use clap::{ArgAction, Args};

use super::value;
use crate::cli::engines::EngineChoice;
use crate::engine::request::Squash;

/// `--load`, `--squash`, `--squash-all`, `--annotate-base`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Load the image into a container engine: docker, podman or containerd [default: the first of
    /// docker and podman that is there]
    ///
    /// Only the layers that it lacks travel. The local store keeps the image too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::load, action = ArgAction::Set, value_name = "ENGINE")]
    pub(crate) load: value::Load,
    /// Make one layer of all that lie on the base image
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) squash: bool,
    /// Make one layer of all, those of the base image too
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) squash_all: bool,
    /// Write down in the manifest what the image was built on, for `cooper rebase`
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) annotate_base: bool,
}

impl ImageArgs {
    /// Returns which layers become one.
    pub(crate) fn squash(&self) -> Squash {
        match (self.squash_all, self.squash) {
            (true, _) => Squash::All,
            (false, true) => Squash::New,
            (false, false) => Squash::Groups,
        }
    }

    /// Returns the engine that gets the image.
    pub(crate) fn load(&self) -> Option<EngineChoice> {
        self.load.0.clone()
    }
}
