//! `sagwan bench suite`: the loads that Sagwan is held to, each beside what limits it, with its target.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::args::BenchArgs;
use super::ceiling::{BY_CALL_AND_WRITE, BY_WARM_ALONE, Ceiling, LatencyRatios, Share};
use super::idle::{self, IdleArgs};
use super::interrupt::Interrupt;
use super::loads::{LOADS, Load, Part, Target};
use super::machine::Machine;
use super::plan::Plan;
use super::session::{self, now};
use super::table;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};

/// The loads that Sagwan is held to, with their targets
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteArgs {
    /// Only the loads with these numbers
    #[arg(long, value_name = "N,M", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=12))]
    pub(super) only: Vec<u32>,
    /// Three short rounds and small backlogs: to see that it runs, and about where things stand
    #[arg(long)]
    pub(super) quick: bool,
    /// Rounds of each load [default: 5; 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: Option<u32>,
    /// Where brokers keep their data: new directories are made there, and removed [default: as of sagwan bench]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Their configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
struct Suite {
    version: &'static str,
    started_at: String,
    machine: Machine,
    quick: bool,
    seconds: f64,
    rows: Vec<Row>,
}

/// One target of one load.
#[derive(Debug, Clone, Serialize)]
struct Row {
    number: u32,
    load: String,
    /// Of the part that was measured for it.
    command: String,
    /// What is held against what.
    measure: &'static str,
    target: Target,
    /// Absent where too little was measured to tell.
    measured: Option<Share>,
    reached: bool,
}

/// Measures, and prints what came of it; each load also when it is done, unless that is for a program.
pub(super) async fn print(args: SuiteArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let began = Instant::now();
    let started_at = now();
    let mut rows: Vec<Row> = Vec::new();
    for load in LOADS.iter().filter(|load| args.only.is_empty() || args.only.contains(&load.number)) {
        for part in load.parts {
            let measured = measure(load, part, &args, &interrupt).await?;
            if args.output.output == Output::Table {
                for row in &measured {
                    eprintln!("{}", brief(row));
                }
            }
            rows.extend(measured);
        }
    }
    let suite = Suite {
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        machine: Machine::own(),
        quick: args.quick,
        seconds: began.elapsed().as_secs_f64(),
        rows,
    };
    output::print(args.output.output, &suite, render)
}

async fn measure(
    load: &Load,
    part: &Part,
    args: &SuiteArgs,
    interrupt: &Interrupt,
) -> Result<Vec<Row>, Failure> {
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
    let row = |measure, target: Target, measured: Option<Share>, command: &str| Row {
        number: load.number,
        load: part.name.to_owned(),
        command: format!("sagwan bench {command}"),
        measure,
        reached: measured.is_some_and(|measured| target.is_reached_by(measured.median)),
        target,
        measured,
    };
    if let Some(partitions) = part.idle_partitions {
        let idle = IdleArgs {
            partitions,
            rounds,
            dir: args.dir.clone(),
            config: args.config.clone(),
            output: args.output.clone(),
        };
        let idle = idle::run(&idle, interrupt).await?;
        let command = format!("idle --partitions {partitions}");
        let mib = idle.resident_bytes.map(|bytes| bytes.times(1.0 / f64::from(1 << 20)));
        return Ok(part
            .targets
            .iter()
            .map(|(measure, target)| {
                let measured = if *measure == RESIDENT { mib } else { idle.start_ratio };
                row(measure, *target, measured, &command)
            })
            .collect());
    }
    let mut line = part.line.to_owned();
    if part.at_half_the_greatest_rate {
        let length = if args.quick { "--duration 1s --warm-up 300ms" } else { "--duration 5s --warm-up 1s" };
        let flat_out = plan(&format!("{line} {length}"), args)?;
        let greatest = session::run(flat_out, None, interrupt).await?.summary.produced;
        let greatest = greatest.map_or(1.0, |flow| flow.records_per_s);
        line = format!("{line} --rate {:.0}", (greatest / 2.0).max(1.0));
    }
    let length = match (part.is_cold(), args.quick) {
        (true, false) => "--backlog 8GiB",
        (true, true) => "--backlog 256MiB",
        (false, false) if part.at_half_the_greatest_rate => "--duration 10s",
        (false, false) => "",
        (false, true) => "--duration 1s --warm-up 300ms",
    };
    let line = format!("{line} {length} --rounds {rounds} --ceiling");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let outcome = session::run(plan(&line, args)?, None, interrupt).await?;
    for note in &outcome.notes {
        eprintln!("note: load {}: {note}", load.number);
    }
    let ceiling = outcome.ceiling.as_ref();
    let measured = |measure| ceiling.and_then(|ceiling| find(ceiling, measure));
    Ok(part.targets.iter().map(|(measure, target)| row(measure, *target, measured(measure), &line)).collect())
}

fn plan(line: &str, args: &SuiteArgs) -> Result<Plan, Failure> {
    let line = BenchArgs::of_line(line).map_err(Failure::Failed)?;
    Plan::check(&BenchArgs { dir: args.dir.clone(), config: args.config.clone(), ..line }, false)
}

/// What [`LOADS`] call the figures that are no shares of a limit.
pub(super) const RESIDENT: &str = "resident memory, MiB";
pub(super) const START: &str = "clean start, times a loop that opens the same files";
pub(super) const P50: &str = "p50, times a bare call and a synced write";
pub(super) const P99: &str = "p99, times a bare call and a synced write";
pub(super) const P99_9: &str = "p99.9, times a bare call and a synced write";
pub(super) const WARM_P99: &str = "p99 of a warm reader beside it, times alone";

/// The figure of that name: a latency's, or else the share of a limit.
fn find(ceiling: &Ceiling, measure: &str) -> Option<Share> {
    let ratios = |name: &str| -> Option<&LatencyRatios> {
        ceiling.latency_ratios.iter().find(|ratios| ratios.name == name)
    };
    match measure {
        P50 => ratios(BY_CALL_AND_WRITE)?.p50,
        P99 => ratios(BY_CALL_AND_WRITE)?.p99,
        P99_9 => ratios(BY_CALL_AND_WRITE)?.p99_9,
        WARM_P99 => ratios(BY_WARM_ALONE)?.p99,
        limit => ceiling.limits.iter().find(|found| limit.ends_with(&found.name))?.share,
    }
}

fn verdict(row: &Row) -> &'static str {
    match (row.reached, row.measured) {
        (true, _) => "reached",
        (false, Some(_)) => "missed",
        (false, None) => "too little to tell",
    }
}

fn brief(row: &Row) -> String {
    let measured = row.measured.map_or_else(|| "-".to_owned(), table::share);
    format!("{}: {}: {} {}: {measured}: {}", row.number, row.load, row.measure, row.target, verdict(row))
}

fn render(suite: &Suite) -> String {
    let rows = suite.rows.iter().map(|row| {
        [
            row.number.to_string(),
            row.load.clone(),
            row.measure.to_owned(),
            row.target.to_string(),
            row.measured.map_or_else(|| "-".to_owned(), table::share),
            verdict(row).to_owned(),
        ]
    });
    let quick = if suite.quick { "\nshort rounds (--quick): not to be quoted" } else { "" };
    format!(
        "sagwan {} on {}{quick}\n\n{}\n\n{:.0} s in all",
        suite.version,
        suite.machine.describe(),
        output::table(["", "LOAD", "MEASURE", "TARGET", "MEDIAN (LEAST TO MOST)", ""], rows),
        suite.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::contender::Contender;

    #[test]
    fn every_load_is_a_line_that_bench_takes_and_has_its_limits() {
        for part in LOADS.iter().flat_map(|load| load.parts).filter(|part| part.idle_partitions.is_none()) {
            let rate = if part.at_half_the_greatest_rate { "--rate 5" } else { "" };
            let plan = Plan::of_line(&format!("{} {rate} --ceiling", part.line)).expect(part.line);
            let names: Vec<_> = Contender::of(&plan).into_iter().map(Contender::name).collect();
            for (measure, _) in part.targets {
                let known = [P50, P99, P99_9, WARM_P99].contains(measure)
                    || names.iter().any(|name| measure.ends_with(name.as_str()));
                assert!(known, "{measure} of {}: {names:?}", part.line);
            }
        }
        let numbers: Vec<_> = LOADS.iter().map(|load| load.number).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn the_table_says_what_was_reached() {
        let row = |target: Target, measured: Option<f64>| Row {
            number: 1,
            load: "a load".to_owned(),
            command: String::new(),
            measure: "share of it",
            reached: measured.is_some_and(|measured| target.is_reached_by(measured)),
            target,
            measured: measured.and_then(|measured| Share::of(&[measured])),
        };
        let suite = Suite {
            version: "1.2.3",
            started_at: String::new(),
            machine: Machine::own(),
            quick: false,
            seconds: 12.0,
            rows: vec![
                row(Target::AtLeast(0.75), Some(0.8)),
                row(Target::AtMost(1.5), Some(1.6)),
                row(Target::AtMost(1.5), None),
            ],
        };
        let text = render(&suite);
        for line in [
            ">= 0.75  0.80 (0.80 to 0.80)     reached",
            "<= 1.5   1.60 (1.60 to 1.60)     missed",
            "-                       too little to tell",
            "12 s in all",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }
}
