//! When a failed try is worth another one, and how long to wait before it.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::RetryPolicy;

/// Counts the tries of one request.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    policy: &'a RetryPolicy,
    begun: Instant,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Self {
        Self {
            policy,
            begun: Instant::now(),
            failed: 0,
        }
    }

    /// Forgets the failures so far, because there was progress since.
    pub(super) fn forgive(&mut self) {
        *self = Self::new(self.policy);
    }

    /// Waits for the next try; `false` when there is none. `asked` is what the server asked for.
    pub(super) async fn again(&mut self, asked: Option<Duration>) -> bool {
        let Some(pause) = self.next_pause(asked) else {
            return false;
        };
        tokio::time::sleep(pause).await;
        true
    }

    fn next_pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.policy.tries_max {
            return None;
        }
        let pause = match asked {
            Some(asked) if asked > self.policy.retry_after_max => return None,
            Some(asked) => asked.max(self.backoff()),
            None => self.backoff(),
        };
        let in_time = self.begun.elapsed() + pause <= self.policy.total_max;
        in_time.then_some(pause)
    }

    /// Chooses any pause up to a bound that doubles with every failure ("full jitter"), so that
    /// many clients that failed together do not come back together.
    fn backoff(&self) -> Duration {
        let doubled = self.policy.first_pause * 2_u32.pow((self.failed - 1).min(16));
        let bound = doubled.min(self.policy.pause_max);
        let mut bytes = [0xff, 0x7f];
        // Without randomness the pause is half of the bound.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
        bound * u32::from(u16::from_le_bytes(bytes)) / u32::from(u16::MAX)
    }
}

/// Says whether a status is worth another try.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Reads `Retry-After`: seconds, or a date, which is compared with the server's own clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    let now = http_date(headers.get(DATE)?.to_str().ok()?)?;
    u64::try_from(until - now).ok().map(Duration::from_secs)
}

/// Reads an HTTP date (RFC 9110 §5.6.7) as seconds since 1970.
pub fn http_date(text: &str) -> Option<i64> {
    let zoned = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(zoned.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (after, date, expected) in [
            ("3", "", Some(3)),
            (" 0 ", "", Some(0)),
            (
                "Sun, 06 Nov 1994 08:49:47 GMT",
                "Sun, 06 Nov 1994 08:49:37 GMT",
                Some(10),
            ),
            (
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:47 GMT",
                None,
            ),
            ("Sun, 06 Nov 1994 08:49:47 GMT", "", None),
            ("soon", "", None),
            ("-1", "", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            if !date.is_empty() {
                headers.insert(DATE, date.parse().unwrap());
            }
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers), expected, "{after} {date}");
        }
    }

    #[test]
    fn bounds_of_pauses_double_and_end() {
        let policy = RetryPolicy::default();
        let mut tries = Tries::new(&policy);
        for bound in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0] {
            let pause = tries.next_pause(None).unwrap().as_secs_f64();
            assert!((0.0..=bound).contains(&pause), "{pause} {bound}");
        }
        assert_eq!(tries.next_pause(None), None);
        let minute = Duration::from_secs(60);
        let mut patient = Tries::new(&policy);
        assert_eq!(patient.next_pause(Some(minute)), Some(minute));
        assert_eq!(patient.next_pause(Some(minute * 2)), None);
        let mut late = Tries::new(&policy);
        late.begun -= policy.total_max - minute / 2;
        assert_eq!(late.next_pause(Some(minute)), None);
    }

    #[test]
    fn pauses_are_spread_over_the_whole_bound() {
        let policy = RetryPolicy::default();
        let pauses = (0..200).map(|_| Tries::new(&policy).next_pause(None).unwrap());
        let low = pauses
            .clone()
            .filter(|p| *p < policy.first_pause / 4)
            .count();
        let high = pauses.filter(|p| *p > policy.first_pause / 4 * 3).count();
        // Either would be missed by fewer than one run in 10²⁰.
        assert!(low > 0 && high > 0, "{low} {high}");
    }
}
