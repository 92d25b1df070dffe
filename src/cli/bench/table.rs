//! The outcome for a terminal.

use std::fmt::Write as _;

use super::latency::Percentiles;
use super::outcome::{Ceiling, Cost, Figures, Flow, Outcome};
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
    let _ = write!(text, "\n");
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
    let flows =
        [("produced", figures.produced), ("followed", figures.followed), ("caught up", figures.caught_up)];
    flows.into_iter().filter_map(|(name, flow)| Some((name, flow?))).collect()
}

/// The latencies that there are.
pub(super) fn named_latencies(figures: &Figures) -> Vec<(&'static str, &Percentiles)> {
    let latencies = [
        ("acknowledgement", &figures.acknowledgement),
        ("end to end", &figures.end_to_end),
        ("sent late by", &figures.lateness),
    ];
    latencies.into_iter().filter_map(|(name, latency)| Some((name, latency.as_ref()?))).collect()
}

fn latencies(summary: &Figures) -> String {
    let rows: Vec<_> =
        named_latencies(summary).into_iter().map(|(name, latency)| latency_row(name, latency)).collect();
    if rows.is_empty() {
        return "latency: nothing to measure, as nothing was produced".to_owned();
    }
    output::table(["LATENCY", "P50", "P90", "P99", "P99.9", "P99.99", "MAX", "REQUESTS"], rows)
}

fn latency_row(name: &str, latency: &Percentiles) -> [String; 8] {
    let [p50, p90, p99, p99_9, p99_99, max] =
        [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p99_9_ns, latency.p99_99_ns, latency.max_ns]
            .map(time);
    // Of too few, a percentile is only another name for the largest.
    let known = |least: u64, value: String| if latency.count >= least { value } else { "-".to_owned() };
    [
        name.to_owned(),
        p50,
        p90,
        known(100, p99),
        known(1_000, p99_9),
        known(10_000, p99_99),
        max,
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
    let rate = |flow: Option<Flow>| match flow {
        Some(flow) => [output::thousands(flow.records_per_s as u64), megabytes(flow.bytes_per_s)],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let latency = |latency: &Option<Percentiles>| match latency {
        Some(latency) => [time(latency.p50_ns), time(latency.p99_ns)],
        None => ["-".to_owned(), "-".to_owned()],
    };
    let [records, bytes] = rate(outcome.summary.main_flow());
    let [p50, p99] = latency(&outcome.summary.acknowledgement);
    let own = ["sagwan".to_owned(), records, bytes, p50, p99, String::new()];
    let rows = ceiling.limits.iter().map(|limit| {
        let share = limit.share.map_or_else(
            || "-".to_owned(),
            |share| format!("{:.2} of it ({:.2} to {:.2})", share.median, share.least, share.most),
        );
        let ([records, bytes], [p50, p99]) = (rate(limit.flow), latency(&limit.latency));
        [limit.name.clone(), records, bytes, p50, p99, share]
    });
    let header = ["CEILING", "RECORDS/S", "MB/S", "P50", "P99", "SAGWAN REACHES"];
    let mut text = output::table(header, std::iter::once(own).chain(rows));
    if let Some(ratios) = ceiling.latency_ratios {
        let _ = write!(
            text,
            "\nlatency by that of a bare call and a synced write together: p50 {:.2}, p99 {:.2}, p99.9 {:.2}",
            ratios.p50, ratios.p99, ratios.p99_9
        );
    }
    text
}
