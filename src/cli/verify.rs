//! `sagwan verify`: checks a data directory on which no broker runs, and reports.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::failure::Failure;
use super::output::{self, OutputArgs, size, thousands};
use super::{connection, progress, serve};
use crate::broker::verify::{self as check, RepairError, Repaired};
use crate::config::Config;
use crate::storage::OpenError;
use crate::storage::verify::{Finding, Progress, Report, Severity};

/// What a repair logs to standard error: what the recovery has to say.
const REPAIR_LOG: &str = "info";

/// Which directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything is read: batches, records, indexes, checksums of sealed segments, checkpoints, the
catalogue. Without --repair nothing in the directory changes. What a crash leaves behind, and
the next start of a broker deals with, is a note; what is lost or will not open is an error.

--repair starts a broker's recovery on the directory, as `sagwan serve` would, without a
listener; what that cannot make good stays as it is. Then the directory is checked again.

Exit codes:
  0  nothing found, or only notes
  1  errors found, or the repair failed
  2  the command line is wrong, or there is no data directory to be had: a broker has it, say

Examples:
  sagwan verify /var/lib/sagwan
  sagwan verify /var/lib/sagwan --output json | jq '.findings[] | select(.severity == \"error\")'
  sagwan verify /var/lib/sagwan --repair --config /etc/sagwan/sagwan.toml")]
pub(super) struct VerifyArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Do what a start of a broker would do about what is found, and nothing else
    #[arg(long)]
    repair: bool,
    /// The broker's configuration file, for its limits
    #[arg(long, value_name = "FILE", env = "SAGWAN_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A verification with its time.
#[derive(Debug, Serialize)]
struct Checked {
    dir: String,
    seconds: f64,
    bytes_per_second: f64,
    errors: u64,
    notes: u64,
    #[serde(flatten)]
    report: Report,
}

/// What a repair did.
#[derive(Debug, Serialize)]
struct RepairRow {
    leader_epoch: i32,
    recovered_partitions: u32,
    recovered_bytes: u64,
    fenced: Vec<FencedRow>,
}

#[derive(Debug, Serialize)]
struct FencedRow {
    topic: String,
    partition: i32,
    reason: String,
}

/// All of a run with `--repair`.
#[derive(Debug, Serialize)]
struct RepairRun {
    before: Checked,
    repair: RepairRow,
    after: Checked,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let config = match &args.config {
        Some(path) => Config::load(path).map_err(|error| Failure::CannotRun(error.to_string()))?,
        None => Config::default(),
    };
    let checked = checked(&args.dir, &config)?;
    let last = if args.repair {
        serve::start_logging(REPAIR_LOG).map_err(|error| Failure::Failed(error.to_string()))?;
        let mut repair = None;
        connection::block_on(async {
            repair = Some(check::repair(&args.dir, config.clone()).await?);
            Ok(())
        })?;
        let Some(repair) = repair else { return Ok(()) };
        let run =
            RepairRun { before: checked, repair: repair.into(), after: self::checked(&args.dir, &config)? };
        output::print(args.output.output, &run, repair_text)?;
        run.after
    } else {
        output::print(args.output.output, &checked, text)?;
        checked
    };
    // The report has told.
    if last.errors > 0 { Err(Failure::Told) } else { Ok(()) }
}

fn checked(dir: &Path, config: &Config) -> Result<Checked, Failure> {
    let bar = Bar(progress::bytes(Some(0)));
    let begun = Instant::now();
    let report = check::verify(dir, config, &bar);
    bar.0.finish_and_clear();
    let report = report.map_err(|error| cannot_run(dir, &error))?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Checked {
        dir: dir.display().to_string(),
        seconds,
        bytes_per_second: report.totals.log_bytes as f64 / seconds.max(f64::EPSILON),
        errors: report.count(Severity::Error),
        notes: report.count(Severity::Note),
        report,
    })
}

fn cannot_run(dir: &Path, error: &OpenError) -> Failure {
    Failure::CannotRun(match error {
        // The errors' own advice is for one who wants to run another broker.
        OpenError::InUse { holder, .. } => {
            let dir = dir.display();
            format!("the data directory {dir} is in use by process {holder}: stop it, or check a copy")
        }
        OpenError::Io { path, source, .. } => {
            format!("the data directory {} cannot be read: {}: {source}", dir.display(), path.display())
        }
        error => error.to_string(),
    })
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        Self::Failed(format!("cannot repair: {error}"))
    }
}

/// The progress, as a bar.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl From<Repaired> for RepairRow {
    fn from(repaired: Repaired) -> Self {
        let Repaired { leader_epoch, recovered_partitions, recovered_bytes, fenced } = repaired;
        let fenced = fenced.into_iter().map(|(topic, partition, reason)| FencedRow {
            topic: topic.as_str().to_owned(),
            partition: partition.get(),
            reason,
        });
        Self { leader_epoch, recovered_partitions, recovered_bytes, fenced: fenced.collect() }
    }
}

fn counted(count: u64, one: &str) -> String {
    let plural = match (count, one.strip_suffix("ch")) {
        (1, _) => one.to_owned(),
        (_, Some(_)) => format!("{one}es"),
        _ => format!("{one}s"),
    };
    format!("{} {plural}", thousands(count))
}

fn text(checked: &Checked) -> String {
    let totals = &checked.report.totals;
    let end = if checked.report.ended_cleanly {
        "the last run ended in an orderly way"
    } else {
        "the last run did not end in an orderly way: the next start recovers"
    };
    let mut text = format!(
        "{}: {}, {}, {}, {}, {}, {}\nchecked in {:.1} s, {}/s; {end}\n",
        checked.dir,
        counted(totals.topics, "topic"),
        counted(totals.partitions, "partition"),
        counted(totals.segments, "segment"),
        counted(totals.batches, "batch"),
        counted(totals.records, "record"),
        size(totals.log_bytes),
        checked.seconds,
        size(checked.bytes_per_second as u64),
    );
    for finding in &checked.report.findings {
        text.push('\n');
        text.push_str(&finding_text(finding));
    }
    let untold = checked.errors + checked.notes - checked.report.findings.len() as u64;
    if untold > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n... and {} more of the same kinds", thousands(untold));
    }
    let kinds: Vec<String> =
        checked.report.counts.iter().map(|(kind, count)| format!("{kind} {}", thousands(*count))).collect();
    let (errors, notes) = (counted(checked.errors, "error"), counted(checked.notes, "note"));
    text.push('\n');
    if kinds.is_empty() {
        return text + "nothing found";
    }
    text + &format!("{errors}, {notes}: {}", kinds.join(", "))
}

fn finding_text(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Note => "note",
    };
    let offsets = finding.offsets.map_or_else(String::new, |offsets| match offsets.last {
        Some(last) => format!(", offsets {} to {last}", offsets.first),
        None => format!(", offset {} on", offsets.first),
    });
    let bytes = finding.bytes.as_ref();
    let bytes = bytes.map_or_else(String::new, |bytes| format!(", bytes {} to {}", bytes.start, bytes.end));
    format!(
        "{severity}: {}: {}{offsets}{bytes}\n  expected: {}\n  found: {}\n  {}\n",
        finding.kind,
        finding.path,
        finding.expected,
        finding.found,
        finding.kind.meaning(),
    )
}

fn repair_text(run: &RepairRun) -> String {
    let repair = &run.repair;
    let mut done = format!(
        "recovered {}, reading {} of their logs; the leader epoch is {}",
        counted(u64::from(repair.recovered_partitions), "partition"),
        size(repair.recovered_bytes),
        repair.leader_epoch,
    );
    for fenced in &repair.fenced {
        // Writing to a string does not fail.
        let _ = write!(
            done,
            "\npartition {} of {} did not open: {}",
            fenced.partition, fenced.topic, fenced.reason
        );
    }
    format!("before:\n{}\n\nrepair:\n{done}\n\nafter:\n{}", text(&run.before), text(&run.after))
}
