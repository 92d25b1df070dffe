//! What share of its limits a broker reaches: taken round by round, as both sides of a share had the same minute.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::contender::{Contender, SYNC_EACH};
use super::latency::Percentiles;
use super::outcome::{Cost, Figures, Flow, median};
use super::plan::Plan;

/// The limits beside the broker, measured in turns with it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ceiling {
    pub(super) limits: Vec<Limit>,
    pub(super) latency_ratios: Vec<LatencyRatios>,
}

/// One limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Limit {
    #[serde(rename = "name")]
    pub(super) contender: Contender,
    pub(super) flow: Option<Flow>,
    pub(super) latency: Option<Percentiles>,
    pub(super) server: Option<Cost>,
    /// The broker's share of it; none at a rate, which all keep alike.
    pub(super) share: Option<Share>,
}

/// The middle of what the rounds have, and the extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Share {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Share {
    /// Of all rounds; `None` if there are none.
    pub(super) fn of(shares: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(shares.iter().copied())?,
            least: shares.iter().copied().min_by(f64::total_cmp)?,
            most: shares.iter().copied().max_by(f64::total_cmp)?,
        })
    }

    /// In another unit.
    pub(super) fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, least: self.least * factor, most: self.most * factor }
    }
}

/// A latency by another one; a percentile is absent where a round has too few samples to tell it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LatencyRatios {
    /// What is divided by what.
    pub(super) name: &'static str,
    pub(super) p50: Option<Share>,
    pub(super) p99: Option<Share>,
    pub(super) p99_9: Option<Share>,
}

/// A percentile is told where so many samples lie beyond it: 10,000 tell p99.9.
const BEYOND: f64 = 10.0;

/// An acknowledgement by the least that it can cost here.
pub(super) const BY_CALL_AND_WRITE: &str = "acknowledgement, by a bare call and a synced write together";
/// A warm read beside the cold one, by one that is alone.
pub(super) const BY_WARM_ALONE: &str = "warm read, by the same without the cold reader";

impl Ceiling {
    /// Of the rounds of all contenders, each in the order they were played.
    pub(super) fn of(plan: &Plan, rounds: &[(Contender, Vec<Figures>)]) -> Self {
        let of = |wanted: Contender| {
            let found = rounds.iter().find(|(contender, _)| *contender == wanted);
            found.map_or(&[][..], |(_, figures)| figures.as_slice())
        };
        let broker = of(Contender::Broker);
        let limits = rounds
            .iter()
            .filter(|(contender, _)| !matches!(contender, Contender::Broker | Contender::WarmAlone));
        let limits = limits.filter_map(|(contender, figures)| {
            let summary = Figures::summary(figures)?;
            let share = share(broker, figures).filter(|_| plan.rate_records_per_s.is_none());
            Some(Limit {
                contender: *contender,
                flow: summary.main_flow(),
                latency: summary.acknowledgement,
                server: summary.server,
                share,
            })
        });
        let mut latency_ratios = Vec::new();
        // Where requests queue behind each other, a latency says how many there are.
        let alone = plan.unary && plan.producers * plan.in_flight == 1 || plan.rate_records_per_s.is_some();
        let (service, writes) = (of(Contender::Service), of(Contender::Writes(SYNC_EACH)));
        if alone && !writes.is_empty() {
            let least: Vec<_> = service
                .iter()
                .zip(writes)
                .map(|(call, write)| [&call.latencies.acknowledgement, &write.latencies.acknowledgement])
                .collect();
            let own: Vec<_> = broker.iter().map(|figures| &figures.latencies.acknowledgement).collect();
            latency_ratios.push(ratios(BY_CALL_AND_WRITE, &own, &least));
        }
        if plan.warm_readers > 0 {
            let beside: Vec<_> = broker.iter().map(|figures| &figures.latencies.warm_read).collect();
            let alone = of(Contender::WarmAlone).iter().map(|figures| [&figures.latencies.warm_read]);
            latency_ratios.push(ratios(BY_WARM_ALONE, &beside, &alone.collect::<Vec<_>>()));
        }
        Self { limits: limits.collect(), latency_ratios }
    }
}

fn share(broker: &[Figures], limit: &[Figures]) -> Option<Share> {
    let rate = |figures: &Figures| figures.main_flow().map(|flow| flow.records_per_s);
    let shares = broker.iter().zip(limit).filter_map(|(broker, limit)| Some(rate(broker)? / rate(limit)?));
    Share::of(&shares.collect::<Vec<_>>())
}

/// Percentiles of `own` by the sums of the same percentiles of `least`, round by round. A sum of percentiles is not the
/// percentile of a sum: rare delays of the two seldom meet, so the sum is a little more than what a call that does both
/// would have.
fn ratios<const N: usize>(
    name: &'static str,
    own: &[&Histogram<u64>],
    least: &[[&Histogram<u64>; N]],
) -> LatencyRatios {
    let at = |quantile: f64| {
        let needed = (BEYOND / (1.0 - quantile)).round() as u64;
        let tells = |latencies: &Histogram<u64>| {
            (latencies.len() >= needed).then(|| latencies.value_at_quantile(quantile) as f64)
        };
        let ratio = |(own, least): (&&Histogram<u64>, &[&Histogram<u64>; N])| {
            let sum = least.iter().map(|latencies| tells(latencies)).sum::<Option<f64>>()?;
            Some(tells(own)? / sum)
        };
        Share::of(&own.iter().zip(least).map(ratio).collect::<Option<Vec<_>>>()?)
    };
    LatencyRatios { name, p50: at(0.5), p99: at(0.99), p99_9: at(0.999) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::latency;

    fn latencies(ms: u64, count: u64) -> Histogram<u64> {
        let mut latencies = latency::empty();
        latencies.record_n(ms * 1_000_000, count).expect("within the bounds");
        latencies
    }

    #[test]
    fn a_share_has_its_extremes() {
        let share = Share::of(&[0.5, 0.9, 0.7]).expect("some");
        assert_eq!((share.least, share.median, share.most), (0.5, 0.7, 0.9));
        assert_eq!(Share::of(&[]), None);
    }

    #[test]
    fn a_latency_is_held_against_the_sum_of_the_others_round_by_round() {
        let (three, five) = (latencies(3, 9_999), latencies(5, 9_999));
        let (one, two) = (latencies(1, 9_999), latencies(2, 9_999));
        let ratios = ratios(
            BY_CALL_AND_WRITE,
            &[&three, &five, &three],
            &[[&one, &two], [&two, &three], [&one, &one]],
        );
        let p50 = ratios.p50.expect("enough");
        for (ratio, expected) in [(p50.least, 1.0), (p50.median, 1.0), (p50.most, 1.5)] {
            assert!((ratio - expected).abs() < 0.01, "{p50:?}");
        }
        assert!(ratios.p99.is_some() && ratios.p99_9.is_none(), "9,999 tell no p99.9");
    }

    #[test]
    fn a_percentile_needs_ten_samples_beyond_it() {
        let told = |count| {
            let own = latencies(1, count);
            let ratios = ratios(BY_WARM_ALONE, &[&own], &[[&own]]);
            [ratios.p50, ratios.p99, ratios.p99_9].map(|share| share.is_some())
        };
        assert_eq!(told(19), [false; 3]);
        assert_eq!(told(999), [true, false, false]);
        assert_eq!(told(9_999), [true, true, false]);
        assert_eq!(told(10_000), [true; 3]);
    }
}
