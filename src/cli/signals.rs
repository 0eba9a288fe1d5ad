//! Ctrl-C and SIGTERM: the first one cancels and lets the work be put away, the second one ends.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::console::Console;
use super::exit_code;

/// How long a cancelled command may put its work away.
pub(crate) const GRACE: Duration = Duration::from_millis(2500);

/// Cancels `cancel` at the first signal and ends the process at the second. Never returns.
pub(crate) async fn watch(cancel: CancellationToken, console: Console) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Without a handler the signals end the process, which is right too.
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if cancel.is_cancelled() {
            #[allow(
                clippy::exit,
                clippy::disallowed_methods,
                reason = "the user does not want to wait for anything any more"
            )]
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
        console.note("cancelling; press Ctrl-C again to stop at once");
        cancel.cancel();
    }
}
