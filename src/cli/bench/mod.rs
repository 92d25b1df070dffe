//! `sagwan bench`: how fast a broker is, and how near to what this machine can do.
//!
//! # The way of a run
//! 1. [`args`] are checked against each other and become a [`plan`]. Without a server to measure, one is [`hosted`] as a
//!    child process, in a [`directory`] of its own.
//! 2. A [`session`] plays [`round`]s. In each, [`producer`]s send a prepared [`payload`] to [`topics`] by a
//!    [`schedule`], which a [`pacer`] keeps, and [`consumer`]s read. All of them follow the same [`course`]: a
//!    warm-up, the steady part that is measured, its end.
//! 3. They report to [`gauges`]: what is done to [`meter`]s, how long it took to [`latency`] histograms. Producers and
//!    consumers find each other's times in a [`meeting`], and under `--verify` each other's records in a [`ledger`]. From
//!    outside, [`sample`]s are taken: rates for the [`live`] line, and what each [`process`] takes.
//! 4. With `--ceiling` the same rounds are played in turns against a [`bare`] service, and the same bytes are
//!    written to a plain file on the same [`disk`].
//! 5. What comes of it is an [`outcome`]: a [`table`], JSON, or a page of [`html`].

mod args;
mod bare;
mod consumer;
mod course;
mod directory;
mod disk;
mod gauges;
mod hosted;
mod html;
mod latency;
mod ledger;
mod live;
mod meeting;
mod meter;
mod outcome;
mod pacer;
mod payload;
mod plan;
mod process;
mod producer;
mod round;
mod sample;
mod schedule;
mod session;
mod table;
mod topics;
mod units;

use std::fs::OpenOptions;
use std::path::Path;

pub(super) use args::{BenchArgs, server_arg};
pub(super) use hosted::{HostedCommand, run as run_hosted};

use super::connection::ServerArgs;
use super::failure::Failure;
use super::output;
use plan::Plan;

/// Measures, and prints what came of it.
pub(super) async fn run(args: BenchArgs, server: &ServerArgs) -> Result<(), Failure> {
    let plan = Plan::check(&args, server.server.is_some())?;
    let cannot_write = |path: &Path, error| Failure::io(format!("cannot write {}", path.display()), error);
    if let Some(path) = &args.report {
        // Before all the work, not after it.
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|error| cannot_write(path, error))?;
    }
    let outcome = session::run(plan, server.server.as_deref()).await?;
    if let Some(path) = &args.report {
        std::fs::write(path, html::render(&outcome)).map_err(|error| cannot_write(path, error))?;
    }
    output::print(args.output.output, &outcome, table::render)
}
