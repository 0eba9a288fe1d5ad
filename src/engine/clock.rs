//! The one place that asks what time it is; everybody else is told.

use std::time::{Duration, SystemTime};

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
    ns_of(now())
}

/// Returns the time that many nanoseconds after 1970.
pub fn time_of(ns: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

/// Returns the nanoseconds between 1970 and a time.
pub fn ns_of(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
