//! `sagwan bench`: how fast a broker is, and how near to what this machine can do.
//!
//! # The way of a run
//! 1. [`args`] are checked against each other and become a [`plan`]. Without a server to measure, one of its [`own`] is
//!    [`hosted`] as a child process, in a [`directory`] made for it. An [`interrupt`] leaves nothing of that behind.
//! 2. A [`session`] plays [`round`]s. In each, [`producer`]s send a prepared [`payload`] to [`topics`] by a
//!    [`schedule`], which a [`pacer`] keeps, and [`consumer`]s read. All of them follow the same [`course`]: a
//!    warm-up, the steady part that is measured, its end.
//! 3. They report to [`gauges`]: what is done to [`meter`]s, how long it took to [`latency`] histograms. Producers and
//!    consumers find each other's times in a [`meeting`], and under `--verify` each other's records in a [`ledger`]. From
//!    outside, [`sample`]s are taken: rates for the [`live`] line, and what each [`process`] takes.
//! 4. With `--ceiling` each [`contender`] has its turn in each round: a [`bare`] service; a loop that writes the same bytes
//!    to plain files on the same [`disk`], or reads files that are [`cold`]; [`warm`] readers alone. What share of them
//!    the broker reaches is the [`ceiling`]'s.
//! 5. What comes of it is an [`outcome`]: a [`table`], JSON, or a page of [`html`].
//!
//! [`idle`] partitions are measured apart. The [`suite`] runs all [`loads`] that have a target.

mod args;
mod bare;
mod ceiling;
mod cold;
mod consumer;
mod contender;
mod course;
mod directory;
mod disk;
mod gauges;
mod hosted;
mod html;
mod idle;
mod interrupt;
mod latency;
mod ledger;
mod live;
mod loads;
mod machine;
mod meeting;
mod meter;
mod outcome;
mod own;
mod pacer;
mod payload;
mod plan;
mod process;
mod producer;
mod round;
mod sample;
mod schedule;
mod session;
mod suite;
mod table;
mod topics;
mod units;
mod warm;

use std::fs::OpenOptions;
use std::path::Path;

pub(super) use args::{BenchArgs, server_arg};
pub(super) use hosted::{HostedCommand, run as run_hosted};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use args::Special;
use interrupt::Interrupt;
use plan::Plan;

/// Measures, and prints what came of it.
pub(super) async fn run(mut args: BenchArgs, server: &ServerArgs) -> Result<(), Failure> {
    let special = args.special.take();
    if special.is_some() && server.server.is_some() {
        let message =
            "--server: idle and suite measure brokers that they start; leave it and SAGWAN_SERVER out";
        return Err(Failure::CannotRun(message.to_owned()));
    }
    match special {
        Some(Special::Idle(args)) => return idle::print(args).await,
        Some(Special::Suite(args)) => return suite::print(args).await,
        None => {}
    }
    let plan = Plan::check(&args, server.server.is_some())?;
    let cannot_write = |path: &Path, error| Failure::io(format!("cannot write {}", path.display()), error);
    if let Some(path) = &args.report {
        // Before all the work, not after it.
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|error| cannot_write(path, error))?;
    }
    let outcome = session::run(plan, server.server.as_deref(), &Interrupt::listen()?).await?;
    if let Some(path) = &args.report {
        std::fs::write(path, html::render(&outcome)).map_err(|error| cannot_write(path, error))?;
    }
    output::print(args.output.output, &outcome, table::render)
}
