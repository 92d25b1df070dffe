//! What the broker changes in a batch it accepted, in place.

use super::attributes::Attributes;
use super::builder::ProducerStamp;
use super::header::{self, Header, at};
use crate::types::{LeaderEpoch, Offset};

/// Gives a batch its place in the log. The checksum does not cover these fields and stays valid.
///
/// `batch` is a whole batch; bytes too few for a header are left alone.
pub fn set_position(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    let Some(header) = header_of(batch) else { return };
    header::put::<{ at::BASE_OFFSET }, _>(header, base_offset.get().to_be_bytes());
    header::put::<{ at::LEADER_EPOCH }, _>(header, epoch.0.to_be_bytes());
}

/// Turns a valid batch into one with log-append time: `now_ms` becomes the timestamp of all its records.
///
/// Costs a pass over the batch, for its checksum. Bytes too few for a header are left alone.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    let Some(header) = header_of(batch) else { return };
    let attributes = Attributes(i16::from_be_bytes(header::get::<{ at::ATTRIBUTES }, _>(header)));
    header::put::<{ at::ATTRIBUTES }, _>(header, attributes.with_log_append_time().0.to_be_bytes());
    header::put::<{ at::MAX_TIMESTAMP }, _>(header, now_ms.to_be_bytes());
    header::seal(batch);
}

/// Says anew who produced a whole batch and how it is numbered.
///
/// Costs a pass over the batch, for its checksum. Bytes too few for a header are left alone.
pub fn set_producer(batch: &mut [u8], stamp: ProducerStamp) {
    let Some(header) = header_of(batch) else { return };
    stamp.put(header);
    header::seal(batch);
}

fn header_of(batch: &mut [u8]) -> Option<&mut Header> {
    let header = batch.first_chunk_mut();
    debug_assert!(header.is_some(), "only whole batches are patched");
    header
}
