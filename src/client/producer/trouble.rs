//! What a producer is trying again, for those who want to know before it gives up.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::error::Error;

/// Why nothing is acknowledged at present.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What the last attempt failed with.
    pub error: Error,
    /// For how long attempts have failed.
    pub lasting: Duration,
}

/// Since when attempts have failed, and the last failure. Cleared as soon as anything gets done or is given up.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Option<(Instant, Error)>>);

impl Troubles {
    /// An attempt failed and will be repeated.
    pub(super) fn failed(&self, error: &Error, now: Instant) {
        let mut trouble = self.0.lock();
        let since = trouble.as_ref().map_or(now, |(since, _)| *since);
        *trouble = Some((since, error.clone()));
    }

    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }

    /// What there is at `now`.
    pub(super) fn at(&self, now: Instant) -> Option<Trouble> {
        let trouble = self.0.lock();
        trouble.as_ref().map(|(since, error)| Trouble {
            error: error.clone(),
            lasting: now.saturating_duration_since(*since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_from_its_first_failure_and_tells_the_last() {
        let troubles = Troubles::default();
        let (start, later) = (Instant::now(), Instant::now() + Duration::from_secs(3));
        assert!(troubles.at(start).is_none());
        troubles.failed(&Error::invalid("first"), start);
        troubles.failed(&Error::invalid("second"), later);
        let trouble = troubles.at(later).expect("trouble");
        assert_eq!((trouble.error.message(), trouble.lasting), ("second", later - start));
        troubles.clear();
        assert!(troubles.at(later).is_none());
    }
}
