//! Records one by one from the Rust client.

use futures_util::FutureExt as _;

use super::{Pass, Task, outcome};
use crate::cli::failure::Failure;
use crate::client::{Client, ConsumedRecord, ConsumerConfig, Error, Offset, Position};

/// The clock is read once for so many records that came together, at most.
const RECORDS_PER_LOOK: usize = 256;

pub(super) async fn run(client: &Client, pass: &mut Pass<'_>, task: &mut Task) -> Result<(), Failure> {
    let mut config =
        ConsumerConfig { max_bytes: pass.plan.fetch_bytes as usize, ..ConsumerConfig::default() };
    for mark in pass.marks.iter().filter(|mark| !mark.is_done()) {
        if let Some(place) = pass.topics.place(mark.place) {
            let from = Position::Offset(Offset::clamped(mark.next));
            config = config.partition(place.topic.clone(), place.partition, from);
        }
    }
    let mut consumer = client.consumer(config).await?;
    let mut some = Vec::with_capacity(RECORDS_PER_LOOK);
    while !pass.is_done() {
        let known = pass.acknowledged.is_some();
        tokio::select! {
            first = consumer.next() => {
                some.extend(one(first)?);
                while some.len() < RECORDS_PER_LOOK
                    && let Some(next) = consumer.next().now_or_never()
                {
                    some.extend(one(next)?);
                }
                take(pass, &mut some)?;
            }
            Some(acknowledged) = outcome(task, known) => pass.learn(acknowledged),
        }
    }
    Ok(())
}

fn one(next: Option<Result<ConsumedRecord, Error>>) -> Result<Option<ConsumedRecord>, Failure> {
    match next {
        Some(record) => Ok(Some(record?)),
        None => Err(Failure::Failed("the consumer ended before its time".to_owned())),
    }
}

/// Records that came together, of one partition after the other.
fn take(pass: &mut Pass<'_>, some: &mut Vec<ConsumedRecord>) -> Result<(), Failure> {
    for same in some.chunk_by(|a, b| a.partition == b.partition && a.topic == b.topic) {
        let Some(last) = same.last() else { continue };
        let index = pass.index(last.topic.as_str(), last.partition.get())?;
        let mut bytes = 0;
        for record in same {
            let value = record.value.as_deref().unwrap_or_default();
            bytes += value.len() as u64;
            if pass.plan.verify {
                pass.check(index, record.offset.get(), value)?;
            }
        }
        pass.read(index, last.offset.plus(1).get(), same.len() as u64, bytes);
    }
    some.clear();
    Ok(())
}
