//! What software a tree consists of, read from its files alone: nothing of it is run.
//!
//! | file | what it reads |
//! |---|---|
//! | `dpkg`, `apk`, `rpm` | databases of the package managers of distributions |
//! | `python` | `METADATA` and `PKG-INFO` of installed packages |
//! | `node` | `package.json` of installed packages, lock files where none are installed |
//! | `rust` | `Cargo.lock`, and what `cargo auditable` leaves in a binary |
//! | `golang` | what the Go linker leaves in a binary |
//! | `elf` | the sections of a binary |
//!
//! Read in order: [`package`], `walk` (finds the files), the readers above, [`licence`], [`spdx`]
//! (the document). Readers are functions from bytes to packages; `walk` alone opens files, inside
//! the tree. The same tree gives the same inventory. What cannot be read is a note, not a failure:
//! an SBOM says what it does not know. Deliberately absent: vulnerabilities, networks, clocks.

mod apk;
mod dpkg;
mod elf;
mod golang;
pub mod licence;
mod node;
mod os_release;
pub mod package;
mod python;
mod rpm;
mod rust;
pub mod spdx;
mod walk;

pub use package::{FoundFile, Inventory, Package};
pub use spdx::SpdxDocument;
pub use walk::scan;

#[cfg(test)]
mod tests;
