//! Room for walks that call themselves once for each level of a tree.
//!
//! A path of 4096 bytes, the most the kernel takes, has at most 2048 levels; what the walks
//! need for these is far below the stack reserved here, of which only the used part is real.

use std::io;
use std::path::Path;

use super::error::Error;

/// Stack of a walk: 32 KiB for each level.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs `walk`, which concerns `path`, with room for the deepest tree there is.
pub(super) fn walk<T: Send>(
    path: &Path,
    walk: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let died = || Error::io("walk", path)(io::Error::other("the walking thread died"));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("walk".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, walk)
            .map_err(Error::io("walk", path))?;
        thread.join().map_err(|_| died())?
    })
}
