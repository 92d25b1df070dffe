//! `sagwan bench suite`: the loads that Sagwan is held to, each beside what limits it, with its target.

use std::time::Instant;

use serde::Serialize;

use super::args::{BenchArgs, IdleArgs, SuiteArgs};
use super::ceiling::{BY_CALL_AND_WRITE, BY_WARM_ALONE, Ceiling, LatencyRatios, Share};
use super::idle;
use super::interrupt::Interrupt;
use super::loads::{LOADS, Load, P50, P99, P99_9, Part, RESIDENT, Target, WARM_P99};
use super::machine::Machine;
use super::plan::Plan;
use super::session::{self, now};
use super::table;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};

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
    /// Why there is nothing.
    failure: Option<String>,
}

impl Row {
    fn failed(
        load: &Load,
        part: &Part,
        (measure, target): (&'static str, Target),
        failure: &Failure,
    ) -> Self {
        Self {
            number: load.number,
            load: part.name.to_owned(),
            command: format!("sagwan bench {}", part.line),
            measure,
            target,
            measured: None,
            reached: false,
            failure: Some(failure.to_string()),
        }
    }
}

/// Measures, and prints what came of it; each load also when it is done, unless that is for a program.
pub(super) async fn print(args: SuiteArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let began = Instant::now();
    let started_at = now();
    let mut rows: Vec<Row> = Vec::new();
    for load in LOADS.iter().filter(|load| args.only.is_empty() || args.only.contains(&load.number)) {
        for part in load.parts {
            let measured = match measure(load, part, &args, &interrupt).await {
                Ok(rows) => rows,
                Err(failure) if interrupt.is_wanted() => return Err(failure),
                Err(failure) => {
                    failure.tell();
                    part.targets.iter().map(|target| Row::failed(load, part, *target, &failure)).collect()
                }
            };
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
    output::print(args.output.output, &suite, render)?;
    match suite.rows.iter().find_map(|row| row.failure.as_ref()) {
        Some(failure) => Err(Failure::Failed(format!("not all could be measured: {failure}"))),
        None => Ok(()),
    }
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
        failure: None,
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
        (true, true) => "--backlog 2GiB",
        (false, false) if part.at_half_the_greatest_rate => "--duration 10s",
        (false, false) => "",
        (false, true) if part.at_half_the_greatest_rate => "--duration 3s --warm-up 300ms",
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
    match (row.reached, row.measured, &row.failure) {
        (true, ..) => "reached",
        (false, Some(_), _) => "missed",
        (false, None, Some(_)) => "failed",
        (false, None, None) => "too little to tell",
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
            failure: None,
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
