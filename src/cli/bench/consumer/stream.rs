//! Records from one `FetchStream` on the bare stub, as encoded batches or in protobuf.

use super::{Pass, Task, outcome};
use crate::cli::bench::args::Mode;
use crate::cli::failure::Failure;
use crate::client::{Client, Error};
use crate::proto;
use crate::record;

/// The most that one batch of this program's own may unpack to.
const MAX_DECOMPRESSED_BYTES: u64 = 256 << 20;

pub(super) async fn run(client: &Client, pass: &mut Pass<'_>, task: &mut Task) -> Result<(), Failure> {
    let opened = client.log_service().fetch_stream(request(pass)).await;
    let mut responses = opened.map_err(|status| client.error_of(&status))?.into_inner();
    let mut scratch = Vec::new();
    while !pass.is_done() {
        let known = pass.acknowledged.is_some();
        tokio::select! {
            response = responses.message() => {
                let response = response.map_err(|status| client.error_of(&status))?;
                let response = response
                    .ok_or_else(|| Failure::Failed("the broker ended the stream before its time".to_owned()))?;
                take(pass, response.data.unwrap_or_default(), &mut scratch)?;
            }
            Some(acknowledged) = outcome(task, known) => pass.learn(acknowledged),
        }
    }
    Ok(())
}

/// Everything from where it has been read to.
fn request(pass: &Pass<'_>) -> proto::FetchStreamRequest {
    use proto::position::At;
    let partitions = pass.marks.iter().filter(|mark| !mark.is_done()).filter_map(|mark| {
        let place = pass.topics.place(mark.place)?;
        Some(proto::FetchPartition {
            topic: place.topic.as_str().to_owned(),
            partition: place.partition.get(),
            position: Some(proto::Position { at: Some(At::Offset(mark.next)) }),
        })
    });
    let format = match pass.plan.mode {
        Mode::Records => proto::FetchFormat::Records,
        Mode::Batches | Mode::Client => proto::FetchFormat::RecordBatches,
    };
    proto::FetchStreamRequest {
        partitions: partitions.collect(),
        format: format.into(),
        max_bytes: i32::try_from(pass.plan.fetch_bytes).unwrap_or(i32::MAX),
    }
}

/// What one message has of one partition.
fn take(pass: &mut Pass<'_>, data: proto::PartitionData, scratch: &mut Vec<u8>) -> Result<(), Failure> {
    let index = pass.index(&data.topic, data.partition)?;
    if let Some(error) = data.error {
        return Err(Error::from_proto(error).into());
    }
    let mut records = data.records.len() as u64;
    let mut bytes = 0;
    for record in &data.records {
        let value = record.value.as_deref().unwrap_or_default();
        bytes += value.len() as u64;
        if pass.plan.verify {
            pass.check(index, record.offset, value)?;
        }
    }
    for batches in &data.record_batches {
        bytes += batches.len() as u64;
        for batch in record::batches(batches) {
            let batch = batch.map_err(|error| undecodable(&error))?;
            records += u64::from(batch.record_count().unsigned_abs());
            if pass.plan.verify {
                batch.check_crc().map_err(|error| undecodable(&error))?;
                for record in
                    batch.records(scratch, MAX_DECOMPRESSED_BYTES).map_err(|error| undecodable(&error))?
                {
                    let record = record.map_err(|error| undecodable(&error))?;
                    pass.check(index, record.offset.get(), record.value.unwrap_or_default())?;
                }
            }
        }
    }
    pass.read(index, data.next_offset, records, bytes);
    Ok(())
}

fn undecodable(error: &record::BatchError) -> Failure {
    Failure::Failed(format!("VERIFICATION FAILED: the broker sent what is no batch: {error}"))
}
