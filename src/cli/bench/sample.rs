//! Looking at a round from outside, ten times a second: for the live line, the course of time, and what the processes
//! take.

use std::time::Duration;

use super::gauges::Gauges;
use super::meter::Count;
use super::outcome::{Cost, Point, Rates};
use super::process::{Process, Usage};

pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// Points of a chart: more would not be seen.
const MAX_POINTS: usize = 200;

/// One look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at_ns: u64,
    pub(super) produced: Count,
    pub(super) followed: Count,
    pub(super) caught_up: Count,
    server: Option<Usage>,
    client: Option<Usage>,
}

impl Sample {
    pub(super) fn take(gauges: &Gauges, server: Option<Process>) -> Self {
        Self {
            at_ns: gauges.course.now_ns(),
            produced: gauges.produced.all(),
            followed: gauges.followed.all(),
            caught_up: gauges.caught_up.all(),
            server: server.and_then(Process::usage),
            client: Process::Own.usage(),
        }
    }

    /// All that was done until then.
    pub(super) fn bytes(&self) -> u64 {
        self.produced.bytes + self.followed.bytes + self.caught_up.bytes
    }
}

/// The looks of one round.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub(super) fn last_two(&self) -> Option<(&Sample, &Sample)> {
        match self.0.as_slice() {
            [.., before, last] => Some((before, last)),
            _ => None,
        }
    }

    /// What the server's process took from `from_ns` to `to_ns`.
    pub(super) fn server_cost(&self, from_ns: u64, to_ns: u64) -> Option<Cost> {
        self.cost(from_ns, to_ns, |sample| sample.server)
    }

    /// What this process took.
    pub(super) fn client_cost(&self, from_ns: u64, to_ns: u64) -> Option<Cost> {
        self.cost(from_ns, to_ns, |sample| sample.client)
    }

    fn cost(&self, from_ns: u64, to_ns: u64, of: impl Fn(&Sample) -> Option<Usage>) -> Option<Cost> {
        let within = self.0.iter().filter(|sample| (from_ns..=to_ns).contains(&sample.at_ns));
        let (first, last) = (within.clone().next()?, within.clone().next_back()?);
        let (before, after) = (of(first)?, of(last)?);
        if last.at_ns <= first.at_ns {
            return None;
        }
        Some(Cost {
            seconds: (last.at_ns - first.at_ns) as f64 / 1e9,
            cpu_s: after.cpu_s - before.cpu_s,
            bytes: last.bytes() - first.bytes(),
            peak_resident_bytes: after.peak_resident_bytes,
            peak_anonymous_bytes: within.filter_map(|sample| Some(of(sample)?.anonymous_bytes)).max()?,
        })
    }

    /// The course of the round, warm-up and end included.
    pub(super) fn timeline(&self) -> Vec<Point> {
        let step = self.0.len().div_ceil(MAX_POINTS).max(1);
        let kept: Vec<_> = self.0.iter().step_by(step).collect();
        let point = |pair: &[&Sample]| {
            let [before, after] = pair else { return None };
            let seconds = (after.at_ns.checked_sub(before.at_ns).filter(|ns| *ns > 0)?) as f64 / 1e9;
            let rate = |before: Count, after: Count| (after.bytes - before.bytes) as f64 / seconds;
            Some(Point {
                at_s: after.at_ns as f64 / 1e9,
                bytes_per_s: Rates {
                    produced: rate(before.produced, after.produced),
                    followed: rate(before.followed, after.followed),
                    caught_up: rate(before.caught_up, after.caught_up),
                },
            })
        };
        kept.windows(2).filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: u64, bytes: u64, cpu_s: f64) -> Sample {
        let usage = Usage { cpu_s, anonymous_bytes: at_s, resident_bytes: at_s, peak_resident_bytes: at_s };
        Sample {
            at_ns: at_s * 1_000_000_000,
            produced: Count { records: bytes, bytes },
            followed: Count::default(),
            caught_up: Count::default(),
            server: Some(usage),
            client: None,
        }
    }

    #[test]
    fn a_cost_is_of_what_was_done_meanwhile() {
        let samples = Samples((0..=10).map(|s| sample(s, s * 100, s as f64 / 2.0)).collect());
        let cost = samples.server_cost(2_000_000_000, 8_500_000_000).expect("enough looks");
        assert_eq!((cost.bytes, cost.seconds, cost.cpu_s), (600, 6.0, 3.0));
        assert_eq!(samples.client_cost(0, u64::MAX), None);
        assert_eq!(samples.server_cost(2_100_000_000, 2_900_000_000), None);
    }

    #[test]
    fn a_timeline_has_rates_and_a_bounded_number_of_points() {
        let samples = Samples((0..=1_000).map(|s| sample(s, s * 100, 0.0)).collect());
        let timeline = samples.timeline();
        assert!(timeline.len() <= MAX_POINTS && timeline.len() > MAX_POINTS / 2, "{}", timeline.len());
        assert!(timeline.iter().all(|point| (point.bytes_per_s.produced - 100.0).abs() < 1e-9));
    }
}
