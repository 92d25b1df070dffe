//! How long to wait between attempts: exponential, with jitter, bounded.

use std::time::Duration;

/// The delays of one row of attempts.
///
/// The n-th lies between half of `initial * 2^n` and the whole of it, and never above `max`: apart enough that
/// clients which failed together do not come back together, and never so short that they hammer the broker.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    initial: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, attempts: 0 }
    }

    /// The delay before the next attempt, at least `floor`.
    pub(super) fn next_delay(&mut self, floor: Option<Duration>) -> Duration {
        let delay = self.delay_after(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        delay.max(floor.unwrap_or_default())
    }

    /// A jittered delay after so many failed attempts.
    pub(super) fn delay_after(&self, attempts: u32) -> Duration {
        let ceiling = 2_u32
            .checked_pow(attempts)
            .and_then(|factor| self.initial.checked_mul(factor))
            .map_or(self.max, |delay| delay.min(self.max));
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Whether an attempt has failed since the last success.
    pub(super) fn has_failed(&self) -> bool {
        self.attempts > 0
    }

    /// An attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn delays_double_within_their_bounds() {
        let backoff = Backoff::new(INITIAL, MAX);
        for attempts in [0, 1, 3, 5, 6, 31, 32, u32::MAX] {
            let ceiling = INITIAL.saturating_mul(2_u32.saturating_pow(attempts)).min(MAX);
            for _ in 0..100 {
                let delay = backoff.delay_after(attempts);
                assert!(delay >= ceiling / 2 && delay <= ceiling, "{attempts}: {delay:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn the_brokers_wish_is_a_floor_and_success_starts_over() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(9))), Duration::from_secs(9));
        backoff.next_delay(None);
        assert!(backoff.next_delay(None) >= INITIAL * 2);
        backoff.reset();
        assert!(backoff.next_delay(None) <= INITIAL);
    }
}
