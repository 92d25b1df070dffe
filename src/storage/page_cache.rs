//! Whether what a log appends is left in the page cache.
//!
//! Readers at the end of a log are served from the tail cache, and need none of it; filling memory with it costs more than
//! all else of a write. But small writes share their pages with the next, which would have to be read back first, and a
//! reader that lags beyond the tail cache will come to what is written now. `page_cache = auto` takes for one whoever has
//! read the log's newest segment from its file within the last 10 s. A reader of older segments does not count: by the time
//! that it is where the log ends now, what is in memory today is not there any more.

use crate::config::PageCache;

/// Smaller writes stay: dropping them measures dearer than keeping them.
const LEAST_BYTES: u64 = 32 << 10;
/// So long after the last read a reader is taken to be there.
const LAG_MS: i64 = 10_000;

/// What one log does.
#[derive(Debug)]
pub(super) struct CachePolicy {
    setting: PageCache,
    /// Until then somebody lags, on the monotonic clock.
    lags_until_ms: i64,
}

impl CachePolicy {
    pub(super) fn new(setting: PageCache) -> Self {
        Self { setting, lags_until_ms: i64::MIN }
    }

    /// Whether a write of `bytes` is to be dropped once it is written back. `lags`: the file of the newest segment has been
    /// read from since this was last asked.
    pub(super) fn drops(&mut self, bytes: u64, lags: bool, now_ms: i64) -> bool {
        if lags {
            self.lags_until_ms = now_ms.saturating_add(LAG_MS);
        }
        let drops = match self.setting {
            PageCache::Auto => now_ms >= self.lags_until_ms,
            PageCache::Keep => false,
            PageCache::Drop => true,
        };
        drops && bytes >= LEAST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_keeps_while_somebody_lags_and_small_writes_always() {
        let mut auto = CachePolicy::new(PageCache::Auto);
        assert!(auto.drops(LEAST_BYTES, false, 0));
        assert!(!auto.drops(LEAST_BYTES - 1, false, 0));
        assert!(!auto.drops(LEAST_BYTES, true, 100));
        assert!(!auto.drops(LEAST_BYTES, false, 100 + LAG_MS - 1));
        assert!(auto.drops(LEAST_BYTES, false, 100 + LAG_MS));
        assert!(CachePolicy::new(PageCache::Drop).drops(LEAST_BYTES, true, 0));
        assert!(!CachePolicy::new(PageCache::Keep).drops(LEAST_BYTES, false, 0));
    }
}
