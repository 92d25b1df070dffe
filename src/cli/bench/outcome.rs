//! What a run comes to: the figures of its rounds, their medians, and all that is needed to judge them. The JSON of
//! `--output json` is this, field by field; rates are per second, bytes and seconds plain.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::ceiling::Ceiling;
use super::directory::FileSystem;
use super::latency::{self, Percentiles};
use super::machine::Machine;
use super::meter::Count;
use super::plan::Plan;

/// The whole of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    pub(super) version: &'static str,
    /// What was asked for, word by word.
    pub(super) command: String,
    /// RFC 3339.
    pub(super) started_at: String,
    pub(super) machine: Machine,
    pub(super) broker: Broker,
    pub(super) plan: Plan,
    /// Of all rounds: medians of rates, percentiles of all requests together.
    pub(super) summary: Figures,
    /// Each round by itself.
    pub(super) rounds: Vec<Figures>,
    pub(super) ceiling: Option<Ceiling>,
    /// How many reads of records were found to be as they were acknowledged.
    pub(super) verified_records: Option<u64>,
    /// Bytes of values to a byte that is sent, where batches are compressed here.
    pub(super) compression_ratio: Option<f64>,
    /// What has to be known to read the figures.
    pub(super) notes: Vec<String>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Broker {
    pub(super) url: String,
    pub(super) version: Option<String>,
    /// It was started for this run.
    pub(super) own: bool,
    pub(super) data_dir: Option<String>,
    pub(super) file_system: Option<FileSystem>,
}

/// So much work in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Flow {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) records_per_s: f64,
    pub(super) bytes_per_s: f64,
}

impl Flow {
    /// `None` where there was no time.
    pub(super) fn of((count, seconds): (Count, f64)) -> Option<Self> {
        (seconds > 0.0).then(|| Self {
            records: count.records,
            bytes: count.bytes,
            seconds,
            records_per_s: count.records as f64 / seconds,
            bytes_per_s: count.bytes as f64 / seconds,
        })
    }

    /// Work and time added up, and the medians of the rates.
    pub(super) fn summary(flows: &[Self]) -> Option<Self> {
        Some(Self {
            records: flows.iter().map(|flow| flow.records).sum(),
            bytes: flows.iter().map(|flow| flow.bytes).sum(),
            seconds: flows.iter().map(|flow| flow.seconds).sum(),
            records_per_s: median(flows.iter().map(|flow| flow.records_per_s))?,
            bytes_per_s: median(flows.iter().map(|flow| flow.bytes_per_s))?,
        })
    }
}

/// What a process took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    pub(super) cpu_s: f64,
    /// Produced and read meanwhile.
    pub(super) bytes: u64,
    /// Since the round began, mapped files included; of a broker that ran before, since it began.
    pub(super) peak_resident_bytes: u64,
    /// Of memory that is no file's, as far as was seen.
    pub(super) peak_anonymous_bytes: u64,
}

impl Cost {
    /// CPU seconds for a GB (10^9 bytes) produced or read.
    pub(super) fn cpu_s_per_gb(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.cpu_s / (self.bytes as f64 / 1e9))
    }

    /// How many cores were busy with it, on average.
    pub(super) fn cores(&self) -> f64 {
        self.cpu_s / self.seconds
    }

    fn summary(costs: &[Self]) -> Option<Self> {
        Some(Self {
            seconds: costs.iter().map(|cost| cost.seconds).sum(),
            cpu_s: costs.iter().map(|cost| cost.cpu_s).sum(),
            bytes: costs.iter().map(|cost| cost.bytes).sum(),
            peak_resident_bytes: costs.iter().map(|cost| cost.peak_resident_bytes).max()?,
            peak_anonymous_bytes: costs.iter().map(|cost| cost.peak_anonymous_bytes).max()?,
        })
    }
}

/// A moment of a round, since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) at_s: f64,
    pub(super) bytes_per_s: Rates,
}

/// Of what flows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) produced: f64,
    pub(super) followed: f64,
    pub(super) caught_up: f64,
}

/// What was measured of one subject.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) produced: Option<Flow>,
    pub(super) followed: Option<Flow>,
    pub(super) caught_up: Option<Flow>,
    /// Of warm readers.
    pub(super) warm: Option<Flow>,
    pub(super) acknowledgement: Option<Percentiles>,
    pub(super) end_to_end: Option<Percentiles>,
    /// How late requests left this side.
    pub(super) lateness: Option<Percentiles>,
    pub(super) warm_read: Option<Percentiles>,
    pub(super) server: Option<Cost>,
    pub(super) client: Option<Cost>,
    /// The steady part, in seconds since the round began.
    pub(super) steady_s: (f64, f64),
    pub(super) timeline: Vec<Point>,
    #[serde(skip)]
    pub(super) latencies: Histograms,
}

/// What percentiles are made of, for those of several rounds.
#[derive(Debug, Clone)]
pub(super) struct Histograms {
    pub(super) acknowledgement: Histogram<u64>,
    pub(super) end_to_end: Histogram<u64>,
    pub(super) lateness: Histogram<u64>,
    pub(super) warm_read: Histogram<u64>,
}

impl Histograms {
    /// Without anything in them.
    pub(super) fn empty() -> Self {
        Self {
            acknowledgement: latency::empty(),
            end_to_end: latency::empty(),
            lateness: latency::empty(),
            warm_read: latency::empty(),
        }
    }
}

impl Figures {
    /// Of a loop that has no broker, and has read or written so much.
    pub(super) fn of_loop(
        (produced, caught_up): (Option<Flow>, Option<Flow>),
        acknowledgement: Histogram<u64>,
    ) -> Self {
        let latencies = Histograms { acknowledgement, ..Histograms::empty() };
        Self {
            produced,
            followed: None,
            caught_up,
            warm: None,
            acknowledgement: Percentiles::of(&latencies.acknowledgement),
            end_to_end: None,
            lateness: None,
            warm_read: None,
            server: None,
            client: None,
            steady_s: (0.0, 0.0),
            timeline: Vec::new(),
            latencies,
        }
    }

    /// Of the rounds of one subject; the course of time is the last one's.
    pub(super) fn summary(rounds: &[Self]) -> Option<Self> {
        let flow =
            |of: fn(&Self) -> Option<Flow>| Flow::summary(&rounds.iter().filter_map(of).collect::<Vec<_>>());
        let cost =
            |of: fn(&Self) -> Option<Cost>| Cost::summary(&rounds.iter().filter_map(of).collect::<Vec<_>>());
        let merged = |of: fn(&Histograms) -> &Histogram<u64>| {
            let mut all = latency::empty();
            for round in rounds {
                latency::merge(&mut all, of(&round.latencies));
            }
            all
        };
        let latencies = Histograms {
            acknowledgement: merged(|latencies| &latencies.acknowledgement),
            end_to_end: merged(|latencies| &latencies.end_to_end),
            lateness: merged(|latencies| &latencies.lateness),
            warm_read: merged(|latencies| &latencies.warm_read),
        };
        let last = rounds.last()?;
        Some(Self {
            produced: flow(|round| round.produced),
            followed: flow(|round| round.followed),
            caught_up: flow(|round| round.caught_up),
            warm: flow(|round| round.warm),
            acknowledgement: Percentiles::of(&latencies.acknowledgement),
            end_to_end: Percentiles::of(&latencies.end_to_end),
            lateness: Percentiles::of(&latencies.lateness),
            warm_read: Percentiles::of(&latencies.warm_read),
            server: cost(|round| round.server),
            client: cost(|round| round.client),
            steady_s: last.steady_s,
            timeline: last.timeline.clone(),
            latencies,
        })
    }

    /// The one flow that a ceiling is about.
    pub(super) fn main_flow(&self) -> Option<Flow> {
        self.produced.or(self.caught_up)
    }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(*values.get(low)?, *values.get(high)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn work_adds_up_and_rates_are_medians() {
        let flow =
            |records, seconds| Flow::of((Count { records, bytes: 10 * records }, seconds)).expect("time");
        let summary = Flow::summary(&[flow(10, 1.0), flow(20, 1.0), flow(90, 1.0)]).expect("some");
        assert_eq!((summary.records, summary.records_per_s, summary.bytes_per_s), (120, 20.0, 200.0));
    }
}
