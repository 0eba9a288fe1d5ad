//! The one place that asks what time it is; everybody else is told.

use std::time::SystemTime;

/// Returns the time now.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the place the ban points to"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
