//! `sagwan bench suite`: the loads that Sagwan is held to, each beside what limits it, with its target.

use std::time::Instant;

use serde::Serialize;

use super::args::{BenchArgs, IdleArgs, Special, SuiteArgs};
use super::ceiling::{BY_CALL_AND_WRITE, BY_WARM_ALONE, Ceiling, LatencyRatios, Share};
use super::idle;
use super::interrupt::Interrupt;
use super::loads::{LOADS, Load, Measure, Part, Target};
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
    /// That measures it again.
    command: String,
    measure: Measure,
    target: Target,
    /// Absent where too little was measured to tell.
    measured: Option<Share>,
    reached: bool,
    /// Why there is nothing.
    failure: Option<String>,
}

/// Measures, and prints what came of it; each load also when it is done, unless that is for a program.
pub(super) async fn print(args: SuiteArgs) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let began = Instant::now();
    let started_at = now();
    let mut rows: Vec<Row> = Vec::new();
    for load in LOADS.iter().filter(|load| args.only.is_empty() || args.only.contains(&load.number)) {
        for part in load.parts {
            let measured = measure(load, part, &args, &interrupt).await;
            if interrupt.is_wanted() {
                return Err(interrupt.wanted().await);
            }
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

/// A row for each target of a part.
async fn measure(load: &Load, part: &Part, args: &SuiteArgs, interrupt: &Interrupt) -> Vec<Row> {
    let mut line = line(part, args, None);
    let figures = async {
        if part.at_half_of_one_caller {
            let reached = session::run(plan(&line, args)?, None, interrupt).await?.summary.produced;
            let rate_per_s = reached.map_or(0.0, |flow| flow.records_per_s);
            line = self::line(part, args, Some(rate_per_s / 2.0));
        }
        figures(load, part, &line, args, interrupt).await
    };
    let figures = figures.await;
    if let Err(failure) = &figures
        && !interrupt.is_wanted()
    {
        failure.tell();
    }
    let command = command(&line, args);
    let row = |(number, (measure, target)): (usize, &(Measure, Target))| {
        let measured = figures.as_ref().ok().and_then(|figures| *figures.get(number)?);
        Row {
            number: load.number,
            load: part.name.to_owned(),
            command: command.clone(),
            measure: *measure,
            reached: measured.is_some_and(|measured| target.is_reached_by(measured.median)),
            target: *target,
            measured,
            failure: figures.as_ref().err().map(Failure::to_string),
        }
    };
    part.targets.iter().enumerate().map(row).collect()
}

/// What `sagwan bench` is told for a part; for one at half of a rate that is not known yet, to find out.
fn line(part: &Part, args: &SuiteArgs, rate_per_s: Option<f64>) -> String {
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
    let line = part.line;
    let short = " --duration 1s --warm-up 300ms";
    let length = match (part.is_cold(), args.quick) {
        (true, false) => " --backlog 8GiB",
        (true, true) => " --backlog 2GiB",
        (false, true) => short,
        (false, false) => "",
    };
    match rate_per_s {
        _ if part.is_idle() => format!("{line} --rounds {rounds}"),
        None if part.at_half_of_one_caller => {
            format!("{line}{}", if args.quick { short } else { " --duration 5s --warm-up 1s" })
        }
        None => format!("{line}{length} --rounds {rounds} --ceiling"),
        Some(rate) => {
            // As many as tell p99.9, however long they take.
            let length = if args.quick { short } else { " --total 10000" };
            format!("{line} --rate {:.0}{length} --rounds {rounds} --ceiling", rate.max(1.0))
        }
    }
}

/// With where the brokers are, and how they are set.
fn command(line: &str, args: &SuiteArgs) -> String {
    let mut command = format!("sagwan bench {line}");
    for (option, path) in [("--dir", &args.own.dir), ("--config", &args.own.config)] {
        if let Some(path) = path {
            command = format!("{command} {option} {}", path.display());
        }
    }
    command
}

/// What a line comes to, for each target of the part.
async fn figures(
    load: &Load,
    part: &Part,
    line: &str,
    args: &SuiteArgs,
    interrupt: &Interrupt,
) -> Result<Vec<Option<Share>>, Failure> {
    let of_targets = |of: &dyn Fn(Measure) -> Option<Share>| {
        part.targets.iter().map(|(measure, _)| of(*measure)).collect::<Vec<_>>()
    };
    if let Some(Special::Idle(idle)) = BenchArgs::of_line(line).map_err(Failure::Failed)?.special {
        let idle = idle::run(&IdleArgs { own: args.own.clone(), ..idle }, interrupt).await?;
        let mib = idle.resident_bytes.map(|bytes| bytes.times(1.0 / f64::from(1 << 20)));
        return Ok(of_targets(&|measure| if measure == Measure::Resident { mib } else { idle.start_ratio }));
    }
    let outcome = session::run(plan(line, args)?, None, interrupt).await?;
    for note in &outcome.notes {
        eprintln!("note: load {}: {note}", load.number);
    }
    Ok(of_targets(&|measure| find(outcome.ceiling.as_ref()?, measure)))
}

fn plan(line: &str, args: &SuiteArgs) -> Result<Plan, Failure> {
    let line = BenchArgs::of_line(line).map_err(Failure::Failed)?;
    Plan::check(&BenchArgs { own: args.own.clone(), ..line }, false)
}

fn find(ceiling: &Ceiling, measure: Measure) -> Option<Share> {
    let ratios = |name: &str| -> Option<&LatencyRatios> {
        ceiling.latency_ratios.iter().find(|ratios| ratios.name == name)
    };
    match measure {
        Measure::P50 => ratios(BY_CALL_AND_WRITE)?.p50,
        Measure::P99 => ratios(BY_CALL_AND_WRITE)?.p99,
        Measure::P99_9 => ratios(BY_CALL_AND_WRITE)?.p99_9,
        Measure::WarmP99 => ratios(BY_WARM_ALONE)?.p99,
        Measure::Throughput(limit) | Measure::Acks(limit) => {
            ceiling.limits.iter().find(|found| found.contender == limit)?.share
        }
        // Of idle partitions, which have no ceiling.
        Measure::Resident | Measure::Start => None,
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
            row.measure.to_string(),
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
    use crate::cli::bench::contender::{Contender, SYNC_EACH};

    fn args(line: &str) -> SuiteArgs {
        match BenchArgs::of_line(line).expect(line).special {
            Some(Special::Suite(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_load_is_a_line_that_bench_takes_and_has_its_limits() {
        let args = args("suite");
        for part in LOADS.iter().flat_map(|load| load.parts) {
            let line = line(part, &args, part.at_half_of_one_caller.then_some(5.0));
            let measures = part.targets.iter().map(|(measure, _)| *measure);
            let bench = BenchArgs::of_line(&line).expect(&line);
            if let Some(Special::Idle(idle)) = bench.special {
                assert_eq!(idle.rounds, 5);
                assert!(measures.eq([Measure::Resident, Measure::Start]), "{line}");
                continue;
            }
            let contenders = Contender::of(&Plan::of_line(&line).expect(&line));
            for measure in measures {
                let is_known = match measure {
                    Measure::Throughput(limit) | Measure::Acks(limit) => contenders.contains(&limit),
                    Measure::P50 | Measure::P99 | Measure::P99_9 => {
                        contenders.contains(&Contender::Writes(SYNC_EACH))
                    }
                    Measure::WarmP99 => contenders.contains(&Contender::WarmAlone),
                    Measure::Resident | Measure::Start => false,
                };
                assert!(is_known, "{measure} of {line}: {contenders:?}");
            }
        }
        let numbers: Vec<_> = LOADS.iter().map(|load| load.number).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn the_tail_at_half_the_rate_has_as_many_requests_as_tell_it() {
        let part = LOADS.iter().flat_map(|load| load.parts).find(|part| part.at_half_of_one_caller);
        let line = line(part.expect("load 12"), &args("suite"), Some(700.4));
        let plan = Plan::of_line(&line).expect(&line);
        assert_eq!((plan.rate_records_per_s, plan.total_records), (Some(700.0), Some(10_000)));
    }

    #[test]
    fn a_load_that_fails_has_its_whole_command_in_each_row() {
        let args = args("suite --dir /nowhere/at/all --rounds 2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let expected = [
            (11, "sagwan bench idle --partitions 1000 --rounds 2 --dir /nowhere/at/all"),
            (
                12,
                "sagwan bench produce --mode records --unary --batch-records 1 --record-size 1KiB --duration 5s \
                 --warm-up 1s --dir /nowhere/at/all",
            ),
        ];
        for (number, command) in expected {
            let load = LOADS.iter().find(|load| load.number == number).expect("a load");
            let part = load.parts.first().expect("a part");
            let rows = runtime.block_on(async {
                let interrupt = Interrupt::listen().expect("signals");
                measure(load, part, &args, &interrupt).await
            });
            assert_eq!(rows.len(), part.targets.len());
            for row in rows {
                assert_eq!(row.command, command);
                assert!(row.failure.is_some_and(|failure| failure.contains("/nowhere")), "{number}");
            }
        }
    }

    #[test]
    fn the_table_says_what_was_reached() {
        let row = |target: Target, measured: Option<f64>| Row {
            number: 1,
            load: "a load".to_owned(),
            command: String::new(),
            measure: Measure::Throughput(Contender::Service),
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
