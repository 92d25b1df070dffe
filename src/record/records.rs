//! Reading records one by one, with nothing allocated for any of them.

use std::iter::FusedIterator;

use super::error::{BatchError, CorruptBatch, RecordFault};
use super::plain::plain;
use super::varint::Cursor;
use crate::types::Offset;

/// What a batch's header says of its records.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordsHeader {
    pub(super) base_offset: i64,
    pub(super) last_offset_delta: i32,
    pub(super) base_timestamp: i64,
    /// The timestamp of them all, under log-append time.
    pub(super) log_append_time_ms: Option<i64>,
    pub(super) count: u32,
}

impl RecordsHeader {
    /// Of the record with this delta, if 64 bits hold it.
    #[inline]
    fn timestamp_ms(&self, delta: i64) -> Option<i64> {
        self.log_append_time_ms.or_else(|| self.base_timestamp.checked_add(delta))
    }
}

/// The records of a batch in their order; ends after the first error.
///
/// Offsets increase and stay within the batch, but need not be consecutive: those of a compacted batch are not.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: RecordsHeader,
    cursor: Cursor<'a>,
    index: u32,
    /// The least that the next record's offset delta can be.
    next_delta: i64,
    done: bool,
}

impl<'a> Records<'a> {
    pub(super) fn new(header: RecordsHeader, unpacked: &'a [u8]) -> Self {
        Self { header, cursor: Cursor::new(unpacked), index: 0, next_delta: 0, done: false }
    }

    /// The next record as [`Iterator::next`] checks it, of which nothing is wanted but its offset delta and its timestamp.
    #[inline]
    pub(super) fn next_place(&mut self) -> Option<Result<(i64, i64), BatchError>> {
        if let Some(place) = self.next_plain() {
            return Some(Ok(place));
        }
        let record = self.next()?;
        // The next one's least is one past the record's.
        Some(record.map(|record| (self.next_delta - 1, record.timestamp_ms)))
    }

    /// Passes over the next record, if it is one that [`plain`] tells, and in its place.
    #[inline]
    fn next_plain(&mut self) -> Option<(i64, i64)> {
        if self.done || self.index == self.header.count {
            return None;
        }
        let plain = plain(self.cursor.rest())?;
        if !(self.next_delta..=i64::from(self.header.last_offset_delta)).contains(&plain.offset_delta) {
            return None;
        }
        let timestamp_ms = self.header.timestamp_ms(plain.timestamp_delta)?;
        self.cursor.take(plain.size_bytes).ok()?;
        self.next_delta = plain.offset_delta + 1;
        self.index += 1;
        Some((plain.offset_delta, timestamp_ms))
    }

    /// Inlined where records are walked, so that what is not looked at costs nothing.
    #[inline]
    fn record(&mut self) -> Result<RecordView<'a>, RecordFault> {
        let length = self.cursor.length()?;
        let mut fields = Cursor::new(self.cursor.take(length)?);
        // The attributes of a record have no meaning yet: whoever gives them one will want to see them pass.
        fields.byte()?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = i64::from(fields.varint()?);
        let key = fields.nullable()?;
        let value = fields.nullable()?;
        let header_count = fields.length()?;
        let headers = fields;
        for _ in 0..header_count {
            read_header(&mut fields)?;
        }
        if !fields.rest().is_empty() {
            return Err(RecordFault::TrailingBytes { bytes: fields.rest().len() });
        }

        if offset_delta < self.next_delta || offset_delta > i64::from(self.header.last_offset_delta) {
            return Err(RecordFault::OffsetDelta { found: offset_delta, expected: self.next_delta });
        }
        self.next_delta = offset_delta + 1;
        let timestamp_ms = self.header.timestamp_ms(timestamp_delta).ok_or(RecordFault::TimestampRange)?;
        let offset = Offset::clamped(self.header.base_offset.saturating_add(offset_delta));
        Ok(RecordView { offset, timestamp_ms, key, value, headers, header_count })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.index == self.header.count {
            self.done = true;
            let bytes = self.cursor.rest().len();
            return (bytes > 0).then(|| Err(CorruptBatch::BytesAfterRecords { bytes }.into()));
        }
        let record = self.record();
        self.done = record.is_err();
        let index = self.index;
        self.index += 1;
        Some(record.map_err(|fault| CorruptBatch::Record { index, fault }.into()))
    }
}

impl FusedIterator for Records<'_> {}

/// A record, borrowed from its batch or from what that was unpacked into.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its place in the partition; counted from the batch's base offset, so from 0 before the broker set that.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch; -1 for none.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value, if it has one: without it, the record is a tombstone for its key.
    pub value: Option<&'a [u8]>,
    headers: Cursor<'a>,
    header_count: usize,
}

impl<'a> RecordView<'a> {
    /// The headers in their order; a key can come more than once.
    pub fn headers(&self) -> Headers<'a> {
        Headers { cursor: self.headers, remaining: self.header_count }
    }

    /// How many headers there are.
    pub fn header_count(&self) -> usize {
        self.header_count
    }
}

/// The headers of a record as (key, value). They were checked with their record, so none fails here.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    cursor: Cursor<'a>,
    remaining: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        read_header(&mut self.cursor).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

fn read_header<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, Option<&'a [u8]>), RecordFault> {
    let key_len = cursor.length()?;
    let key = std::str::from_utf8(cursor.take(key_len)?).map_err(|_| RecordFault::HeaderKey)?;
    Ok((key, cursor.nullable()?))
}
