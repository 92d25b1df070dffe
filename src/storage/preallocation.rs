//! How far ahead of its end a log's file has blocks set aside, so that the sync of a group need not find any: a step at a
//! time, and a step is about what the log writes in half a second. A log that writes little has none.
//!
//! What is set aside is given back when it is not used up, when the segment is rolled, when its file is closed, and by
//! recovery.

/// The first step, and what a log has to write at once to get one.
const FIRST_STEP_BYTES: u64 = 64 << 10;
/// Larger steps gain nothing, and are lost to others for as long as the log does not write.
const LAST_STEP_BYTES: u64 = 16 << 20;
/// A step that is used up faster than this is followed by one of twice its size.
const FAST_MS: i64 = 500;
/// One that is used up more slowly than this is followed by none, and what is left of it is given back.
const SLOW_MS: i64 = 2_000;

/// The steps of one log.
#[derive(Debug)]
pub(super) struct Preallocation {
    /// The present step; 0: nothing is set aside.
    step_bytes: u64,
    /// Where the next one begins.
    until: u64,
    /// When this one began, on the monotonic clock.
    since_ms: i64,
}

impl Preallocation {
    /// For a file that ends at `position`, with nothing beyond.
    pub(super) fn new(position: u64, now_ms: i64) -> Self {
        Self { step_bytes: 0, until: position + FIRST_STEP_BYTES, since_ms: now_ms }
    }

    /// Whether anything is set aside, as far as is known here.
    pub(super) fn is_any(&self) -> bool {
        self.step_bytes > 0
    }

    /// Whether what is set aside is not being used up.
    pub(super) fn is_slow(&self, now_ms: i64) -> bool {
        self.is_any() && now_ms - self.since_ms > SLOW_MS
    }

    /// The file is about to be written up to `end`: up to where blocks are to be set aside before, if anywhere.
    pub(super) fn step(&mut self, end: u64, now_ms: i64) -> Option<u64> {
        if end <= self.until {
            return None;
        }
        let took_ms = now_ms - self.since_ms;
        if took_ms < FAST_MS {
            self.step_bytes = (self.step_bytes * 2).clamp(FIRST_STEP_BYTES, LAST_STEP_BYTES);
        } else if took_ms > SLOW_MS {
            self.step_bytes = 0;
        }
        self.until = end + self.step_bytes.max(FIRST_STEP_BYTES);
        self.since_ms = now_ms;
        (self.step_bytes > 0).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_from_64_kib_while_they_are_used_up_fast() {
        let mut ahead = Preallocation::new(1000, 0);
        assert_eq!(ahead.step(1000 + FIRST_STEP_BYTES, 1), None, "none before the first step is written");
        let mut end = 1001 + FIRST_STEP_BYTES;
        for (now_ms, step_bytes) in [(2, 64 << 10), (501, 128 << 10), (1000, 256 << 10)] {
            assert_eq!(ahead.step(end, now_ms), Some(end + step_bytes));
            assert_eq!(ahead.step(end + step_bytes, now_ms), None);
            end += step_bytes + 1;
        }
        assert_eq!(ahead.step(end, 1500), Some(end + (256 << 10)), "it has taken half a second");
        end += (256 << 10) + 1;
        assert_eq!(ahead.step(end, 3501), None, "it has taken more than two");
        end += FIRST_STEP_BYTES + 1;
        assert_eq!(ahead.step(end, 3502), Some(end + FIRST_STEP_BYTES), "as at first");
        end += FIRST_STEP_BYTES + 1;
        for _ in 0..20 {
            end = ahead.step(end, 3502).unwrap_or(end) + 1;
        }
        assert_eq!(ahead.step_bytes, LAST_STEP_BYTES);
        assert!(!ahead.is_slow(3502 + SLOW_MS));
        assert!(ahead.is_slow(3503 + SLOW_MS));
    }

    #[test]
    fn a_log_that_writes_little_gets_none() {
        let mut ahead = Preallocation::new(0, 0);
        assert!((1..10_000).all(|i| ahead.step(i * 1024, i as i64 * 100).is_none()), "10 KiB a second");
        assert!(!ahead.is_slow(i64::MAX), "there is nothing to give back");
    }
}
