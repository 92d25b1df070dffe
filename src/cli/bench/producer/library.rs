//! Records handed one by one to the Rust client, which gathers batches of its own.
//!
//! What counts as a request here is what is handed over together; it is acknowledged when the last of its records is.

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::stream::until;
use super::{Load, Next};
use crate::cli::bench::gauges::Run;
use crate::cli::bench::pacer::Pacer;
use crate::cli::bench::payload::Parcel;
use crate::cli::failure::Failure;
use crate::client::{Client, Delivery, Error, ProducerConfig, ProducerRecord};

/// An idempotent producer has no more of one partition under way.
const MAX_PER_PARTITION: usize = 5;
const MAX_BUFFER_BYTES: usize = 1 << 30;

pub(super) async fn run(client: &Client, load: &mut Load, pacer: &mut Pacer) -> Result<(), Failure> {
    let in_flight = load.plan.in_flight as usize;
    let batch_bytes = load.plan.batch_bytes as usize;
    let config = ProducerConfig::default();
    let producer = client.producer(ProducerConfig {
        compression: load.plan.compression.codec(),
        batch_bytes,
        linger: load.plan.linger,
        // Room for all that may be under way, so that handing over does not wait.
        buffer_bytes: config.buffer_bytes.max(2 * batch_bytes * in_flight).min(MAX_BUFFER_BYTES),
        max_in_flight: in_flight,
        max_in_flight_per_partition: in_flight.min(MAX_PER_PARTITION),
        ..config
    })?;
    let mut handed_over = FuturesOrdered::new();
    let mut over = false;
    loop {
        let mut wait = None;
        while !over && wait.is_none() && handed_over.len() < in_flight {
            match load.next()? {
                Next::Send(sent, Parcel::Values(values)) => {
                    let Some(place) = load.topics.place(sent.place) else { continue };
                    let mut deliveries = Vec::with_capacity(values.len());
                    for value in values {
                        let record = ProducerRecord::new(place.topic.clone()).partition(place.partition);
                        deliveries.push(producer.send(record.value(value)).await?);
                    }
                    handed_over.push_back(async move { (sent, delivered(deliveries).await) });
                }
                Next::Send(..) | Next::Over => over = true,
                Next::Wait { now_ns, due_ns } => wait = Some((now_ns, due_ns)),
            }
        }
        if over && handed_over.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some((sent, runs)) = handed_over.next() => load.acknowledged(&sent, &runs?),
            waited = until(pacer, wait), if wait.is_some() => waited?,
        }
        while let Some(Some((sent, runs))) = handed_over.next().now_or_never() {
            load.acknowledged(&sent, &runs?);
        }
    }
}

/// Waits for all; returns where they lie.
async fn delivered(deliveries: Vec<Delivery>) -> Result<Vec<Run>, Error> {
    let mut runs: Vec<Run> = Vec::with_capacity(1);
    for delivery in deliveries {
        let offset = delivery.await?.offset.get();
        match runs.last_mut() {
            Some(run) if run.base + i64::from(run.records) == offset => run.records += 1,
            _ => runs.push(Run { base: offset, records: 1 }),
        }
    }
    Ok(runs)
}
