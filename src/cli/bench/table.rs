//! The outcome for a terminal.

use std::fmt::Write as _;

use super::ceiling::{Ceiling, Share};
use super::latency::Percentiles;
use super::outcome::{Cost, Figures, Flow, Outcome};
use super::units::{figures, megabytes, time};
use crate::cli::output;

/// The outcome as text.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = head(outcome);
    for part in [flows(&outcome.summary), latencies(&outcome.summary), costs(&outcome.summary)] {
        let _ = write!(text, "\n\n{part}");
    }
    if let Some(ceiling) = &outcome.ceiling {
        let _ = write!(text, "\n\n{}", limits(outcome, ceiling));
    }
    text.push('\n');
    if let Some(records) = outcome.verified_records {
        let records = output::thousands(records);
        let _ = write!(text, "\nverified: {records} reads of records were as acknowledged, in order, once");
    }
    for note in &outcome.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    text.trim_end().to_owned()
}

/// What was done, with whom and where.
fn head(outcome: &Outcome) -> String {
    let plan = &outcome.plan;
    let load = if plan.workload.produces() || plan.workload.catches_up() {
        plan.describe_load()
    } else {
        String::new()
    };
    let length = match (plan.duration_s, plan.total_records) {
        (Some(seconds), _) => format!("{seconds} s"),
        (None, Some(records)) => format!("{} records", output::thousands(records)),
        (None, None) => String::new(),
    };
    let rounds = if plan.rounds == 1 { String::new() } else { format!(", {} rounds", plan.rounds) };
    format!(
        "{}: {}\n{load}\nmeasured {length} after {} s of warm-up{rounds}\n{}",
        plan.workload.name(),
        plan.describe_cast(),
        plan.warm_up_s,
        place(outcome)
    )
}

/// The broker, and where its data is.
pub(super) fn place(outcome: &Outcome) -> String {
    let broker = &outcome.broker;
    let version = broker.version.as_deref().unwrap_or("of an unknown version");
    if !broker.own {
        return format!("broker {version} at {}", broker.url);
    }
    let dir = broker.data_dir.as_deref().unwrap_or_default();
    match &broker.file_system {
        Some(file_system) => {
            format!(
                "broker {version} of its own, data in {dir}, which is {} on {}",
                file_system.kind, file_system.device
            )
        }
        None => format!("broker {version} of its own, data in {dir}, on a file system that cannot be told"),
    }
}

fn flows(summary: &Figures) -> String {
    let rows = named_flows(summary).into_iter().map(|(name, flow)| {
        [
            name.to_owned(),
            output::thousands(flow.records_per_s as u64),
            megabytes(flow.bytes_per_s),
            output::thousands(flow.records),
        ]
    });
    output::table(["", "RECORDS/S", "MB/S", "RECORDS"], rows)
}

/// The flows that there are.
pub(super) fn named_flows(figures: &Figures) -> Vec<(&'static str, Flow)> {
    let flows = [
        ("produced", figures.produced),
        ("followed", figures.followed),
        ("caught up", figures.caught_up),
        ("read warm", figures.warm),
    ];
    flows.into_iter().filter_map(|(name, flow)| Some((name, flow?))).collect()
}

/// The latencies that there are.
pub(super) fn named_latencies(figures: &Figures) -> Vec<(&'static str, &Percentiles)> {
    let latencies = [
        ("acknowledgement", &figures.acknowledgement),
        ("end to end", &figures.end_to_end),
        ("sent late by", &figures.lateness),
        ("warm read", &figures.warm_read),
    ];
    let shown = latencies.into_iter().filter_map(|(name, latency)| Some((name, latency.as_ref()?)));
    // Flat out, nothing is ever late.
    shown.filter(|(_, latency)| latency.max_ns > 0).collect()
}

fn latencies(summary: &Figures) -> String {
    let rows: Vec<_> =
        named_latencies(summary).into_iter().map(|(name, latency)| latency_row(name, latency)).collect();
    if rows.is_empty() {
        return "latency: none, as nothing was produced".to_owned();
    }
    output::table(["LATENCY", "P50", "P90", "P99", "P99.9", "P99.99", "MAX", "REQUESTS"], rows)
}

fn latency_row(name: &str, latency: &Percentiles) -> [String; 8] {
    let [p50, p90, p99, p99_9, p99_99, max, count] = latency_cells(latency);
    [name.to_owned(), p50, p90, p99, p99_9, p99_99, max, count]
}

/// From p50 to p99.99, the largest, and of how many.
pub(super) fn latency_cells(latency: &Percentiles) -> [String; 7] {
    // Of too few, a percentile is only another name for the largest.
    let known = |ns: u64, least: u64| if latency.count >= least { time(ns) } else { "-".to_owned() };
    [
        time(latency.p50_ns),
        time(latency.p90_ns),
        known(latency.p99_ns, 100),
        known(latency.p99_9_ns, 1_000),
        known(latency.p99_99_ns, 10_000),
        time(latency.max_ns),
        output::thousands(latency.count),
    ]
}

fn costs(summary: &Figures) -> String {
    let row = |name: &str, cost: &Cost| {
        [
            name.to_owned(),
            figures(cost.cores()),
            cost.cpu_s_per_gb().map_or_else(|| "-".to_owned(), figures),
            output::size(cost.peak_resident_bytes),
            output::size(cost.peak_anonymous_bytes),
        ]
    };
    let costs = [("broker", &summary.server), ("bench", &summary.client)];
    let rows: Vec<_> = costs.into_iter().filter_map(|(name, cost)| Some(row(name, cost.as_ref()?))).collect();
    if rows.is_empty() {
        return "processes: not measured".to_owned();
    }
    output::table(["PROCESS", "CORES", "CPU S/GB", "PEAK MEMORY", "OF IT NOT FILES"], rows)
}

fn limits(outcome: &Outcome, ceiling: &Ceiling) -> String {
    let dash = || "-".to_owned();
    let cells = |flow: Option<Flow>, latency: Option<&Percentiles>, cost: Option<Cost>| {
        let [p50, _, p99, p99_9, ..] = latency.map_or_else(|| std::array::from_fn(|_| dash()), latency_cells);
        [
            flow.map_or_else(dash, |flow| output::thousands(flow.records_per_s as u64)),
            flow.map_or_else(dash, |flow| megabytes(flow.bytes_per_s)),
            p50,
            p99,
            p99_9,
            cost.and_then(|cost| cost.cpu_s_per_gb()).map_or_else(dash, figures),
            cost.map_or_else(dash, |cost| output::size(cost.peak_resident_bytes)),
        ]
    };
    let row = |name: &str, cells: [String; 7], share: String| {
        let [records, bytes, p50, p99, p99_9, cpu, memory] = cells;
        [name.to_owned(), share, records, bytes, p50, p99, p99_9, cpu, memory]
    };
    let summary = &outcome.summary;
    let own = cells(summary.main_flow(), summary.acknowledgement.as_ref(), summary.server);
    let rows = ceiling.limits.iter().map(|limit| {
        let cells = cells(limit.flow, limit.latency.as_ref(), limit.server);
        row(&limit.contender.name(), cells, limit.share.map_or_else(dash, share))
    });
    let header =
        ["CEILING", "SAGWAN REACHES", "RECORDS/S", "MB/S", "P50", "P99", "P99.9", "CPU S/GB", "PEAK MEMORY"];
    let mut text = output::table(header, std::iter::once(row("sagwan", own, String::new())).chain(rows));
    let ratios = ceiling.latency_ratios.iter().map(|ratios| {
        let cell = |ratio: Option<Share>| ratio.map_or_else(dash, share);
        [ratios.name.to_owned(), cell(ratios.p50), cell(ratios.p99), cell(ratios.p99_9)]
    });
    if ratios.len() > 0 {
        let _ = write!(text, "\n\n{}", output::table(["TIMES AS LONG", "P50", "P99", "P99.9"], ratios));
    }
    text
}

/// The median, and within which bounds all rounds are.
pub(super) fn share(share: Share) -> String {
    format!("{:.2} ({:.2} to {:.2})", share.median, share.least, share.most)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::bench::ceiling::{BY_CALL_AND_WRITE, LatencyRatios, Limit};
    use crate::cli::bench::contender::Contender;
    use crate::cli::bench::directory::FileSystem;
    use crate::cli::bench::latency;
    use crate::cli::bench::machine::Machine;
    use crate::cli::bench::meter::Count;
    use crate::cli::bench::outcome::{Broker, Histograms, Point, Rates};
    use crate::cli::bench::plan::tests::plan;

    /// Of a run that never was, with round figures.
    pub(in crate::cli::bench) fn outcome(line: &str) -> Outcome {
        let plan = plan(line, false).expect(line);
        let flow = Flow::of((Count { records: 3_000_000, bytes: 300_000_000 }, 3.0));
        let mut latencies = latency::empty();
        (1..=10_000).for_each(|us| latencies.saturating_record(us * 1_000));
        let percentiles = Percentiles::of(&latencies);
        let cost = Cost {
            seconds: 3.0,
            cpu_s: 1.5,
            bytes: 300_000_000,
            peak_resident_bytes: 64 << 20,
            peak_anonymous_bytes: 32 << 20,
        };
        let point = |at: u32| Point {
            at_s: f64::from(at) / 10.0,
            bytes_per_s: Rates {
                produced: 1e8,
                followed: if plan.workload.follows() { 9e7 } else { 0.0 },
                caught_up: 0.0,
            },
        };
        let figures = Figures {
            produced: flow,
            followed: flow.filter(|_| plan.workload.follows()),
            caught_up: None,
            warm: None,
            warm_read: None,
            acknowledgement: percentiles.clone(),
            end_to_end: percentiles.clone().filter(|_| plan.workload.follows()),
            lateness: percentiles.clone().filter(|_| plan.rate_records_per_s.is_some()),
            server: Some(cost),
            client: Some(cost),
            steady_s: (1.0, 4.0),
            timeline: (0..50).map(point).collect(),
            latencies: Histograms {
                acknowledgement: latencies.clone(),
                end_to_end: latencies.clone(),
                lateness: latencies.clone(),
                warm_read: latencies,
            },
        };
        let ratio = Share::of(&[1.5, 2.0, 2.5]);
        let ratios = LatencyRatios { name: BY_CALL_AND_WRITE, p50: ratio, p99: ratio, p99_9: None };
        let limit = Limit {
            contender: Contender::Service,
            flow: Flow::of((Count { records: 6_000_000, bytes: 600_000_000 }, 3.0)),
            latency: percentiles,
            server: Some(cost),
            share: Share::of(&[0.4, 0.5, 0.6]),
        };
        Outcome {
            version: "1.2.3",
            command: format!("sagwan bench {line}"),
            started_at: "2026-01-31T12:00:00Z".to_owned(),
            machine: Machine { cores: 2, cpu: None, memory_bytes: Some(8 << 30), kernel: None },
            broker: Broker {
                url: "http://127.0.0.1:1".to_owned(),
                version: Some("1.2.3".to_owned()),
                own: true,
                data_dir: Some("/var/tmp/x".to_owned()),
                file_system: Some(FileSystem { kind: "ext4".to_owned(), device: "/dev/vda".to_owned() }),
            },
            summary: figures.clone(),
            rounds: vec![figures],
            ceiling: plan.ceiling.then(|| Ceiling { limits: vec![limit], latency_ratios: vec![ratios] }),
            verified_records: plan.verify.then_some(6_000_000),
            compression_ratio: None,
            notes: vec!["something to know".to_owned()],
            plan,
        }
    }

    #[test]
    fn rates_latencies_and_costs_are_in_the_table() {
        let text = render(&outcome("follow --verify"));
        for line in [
            "follow: 1 producer, 1 consumer, 1 topic with 1 partition, durability fsync",
            "data in /var/tmp/x, which is ext4 on /dev/vda",
            "produced  1,000,000  100.0  3,000,000",
            "end to end       5.00 ms  9.00 ms  9.90 ms",
            "broker   0.50   5.00      64.0 MiB     32.0 MiB",
            "verified: 6,000,000 reads of records were as acknowledged, in order, once",
            "note: something to know",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(!text.contains("CEILING"), "{text}");
    }

    #[test]
    fn a_ceiling_is_told_with_the_share_that_is_reached() {
        let text = render(&outcome("produce --ceiling"));
        assert!(text.contains("bare gRPC service  0.50 (0.40 to 0.60)  2,000,000  200.0"), "{text}");
        assert!(text.contains("together  2.00 (1.50 to 2.50)  2.00 (1.50 to 2.50)  -"), "{text}");
    }

    #[test]
    fn a_percentile_of_too_few_is_not_told() {
        let mut few = latency::empty();
        (0..500).for_each(|_| few.saturating_record(1_000));
        let cells = latency_cells(&Percentiles::of(&few).expect("some"));
        assert_eq!(cells.map(|cell| cell == "-"), [false, false, false, true, true, false, false]);
    }

    #[test]
    fn json_has_every_figure_plain() {
        let json = serde_json::to_value(outcome("produce --ceiling --rate 1MB/s")).expect("JSON");
        assert_eq!(json["summary"]["produced"]["records_per_s"], 1_000_000.0);
        assert_eq!(json["summary"]["followed"], serde_json::Value::Null);
        assert_eq!(json["summary"]["acknowledgement"]["count"], 10_000);
        assert_eq!(json["ceiling"]["limits"][0]["share"]["median"], 0.5);
        assert_eq!(json["plan"]["rate_records_per_s"], 10_000.0);
        assert_eq!(json["plan"]["durability"], "fsync");
        assert_eq!(json["broker"]["file_system"]["kind"], "ext4");
        assert_eq!(json["rounds"].as_array().map(Vec::len), Some(1));
    }
}
