//! When requests are to be sent. Open loop: the times stand from the start, whatever becomes of the requests, so that a
//! pause of the broker counts in every request it delayed (no coordinated omission). Pure.

/// One producer's times.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Between requests; `None`: as fast as they are taken.
    interval_ns: Option<f64>,
    /// Of the first request.
    first_ns: f64,
    /// How many have been taken.
    taken: u64,
}

impl Schedule {
    /// As fast as requests are taken: each is to be sent when it is.
    pub(super) const fn flat_out() -> Self {
        Self { interval_ns: None, first_ns: 0.0, taken: 0 }
    }

    /// So many requests a second, of all producers; this is number `index` of `producers`, and they take turns.
    pub(super) fn at_rate(requests_per_s: f64, index: usize, producers: usize) -> Self {
        let interval_ns = 1e9 * producers as f64 / requests_per_s;
        let first_ns = interval_ns * index as f64 / producers as f64;
        Self { interval_ns: Some(interval_ns), first_ns, taken: 0 }
    }

    /// When the next request is to be sent; `now_ns` if there is no rate.
    pub(super) fn due_ns(&self, now_ns: u64) -> u64 {
        match self.interval_ns {
            // Not by adding up: the error would grow.
            Some(interval_ns) => (self.first_ns + interval_ns * self.taken as f64) as u64,
            None => now_ns,
        }
    }

    /// The next request is being sent.
    pub(super) fn take(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times taken by a producer that looks at these moments, and sends all that is due.
    fn taken(schedule: &mut Schedule, looks: &[u64]) -> Vec<u64> {
        let mut times = Vec::new();
        for &now in looks {
            while schedule.due_ns(now) <= now && times.len() < 100 {
                times.push(schedule.due_ns(now));
                schedule.take();
            }
        }
        times
    }

    #[test]
    fn a_pause_moves_no_intended_time() {
        let mut steady = Schedule::at_rate(1_000.0, 0, 1);
        let mut paused = steady.clone();
        let every_ms: Vec<u64> = (0..=9).map(|ms| ms * 1_000_000).collect();
        let on_time = taken(&mut steady, &every_ms);
        assert_eq!(on_time, every_ms);
        assert_eq!(
            taken(&mut paused, &[0, 9_000_000]),
            on_time,
            "all that came due in the pause is sent late"
        );
    }

    #[test]
    fn producers_take_turns_and_do_not_drift() {
        let rate = 3_000.0;
        let mut all: Vec<u64> = (0..3)
            .flat_map(|index| {
                let mut schedule = Schedule::at_rate(rate, index, 3);
                (0..4).for_each(|_| schedule.take());
                [schedule.due_ns(0)]
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, [4_000_000, 4_333_333, 4_666_666]);
        let mut schedule = Schedule::at_rate(rate, 0, 1);
        (0..3_000_000).for_each(|_| schedule.take());
        assert_eq!(schedule.due_ns(0), 1_000_000_000_000);
    }

    #[test]
    fn flat_out_is_due_now() {
        assert_eq!(Schedule::flat_out().due_ns(17), 17);
    }
}
