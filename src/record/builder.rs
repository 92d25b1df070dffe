//! Building a batch, record by record, in one buffer that leaves room for the header in front.

use bytes::{BufMut, BytesMut};

use super::codec::Codec;
use super::error::{BatchError, InvalidBatch};
use super::header::{self, HEADER_BYTES, Header, MAGIC_V2, NO_PRODUCER_ID, NO_TIMESTAMP, at};
use super::recompress::{assemble, finish};
use super::varint::{MAX_VARINT_BYTES, MAX_VARLONG_BYTES, put_varint, put_varlong, varint_len, varlong_len};

/// What a builder starts with: enough for a small batch, such as an offset commit, without growing.
const INITIAL_CAPACITY_BYTES: usize = 512 - HEADER_BYTES;
const RECORD_ATTRIBUTES: u8 = 0;

/// How to build a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchOptions {
    /// How to pack the records.
    pub codec: Codec,
}

/// Who produced a batch: its idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The id the broker gave out.
    pub producer_id: i64,
    /// Which incarnation of the producer.
    pub producer_epoch: i16,
    /// The producer's number of the first record.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// Of a batch from nobody in particular.
    const NONE: Self = Self { producer_id: NO_PRODUCER_ID, producer_epoch: -1, base_sequence: -1 };

    /// Writes it to its place.
    pub(super) fn put(self, header: &mut Header) {
        header::put::<{ at::PRODUCER_ID }, _>(header, self.producer_id.to_be_bytes());
        header::put::<{ at::PRODUCER_EPOCH }, _>(header, self.producer_epoch.to_be_bytes());
        header::put::<{ at::BASE_SEQUENCE }, _>(header, self.base_sequence.to_be_bytes());
    }
}

/// Builds one batch. Its base offset is 0 until the broker sets it.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    producer: ProducerStamp,
    /// Header room, then the records, not packed.
    batch: BytesMut,
    record_count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// A record did not fit the format and was left out: there will be no batch.
    overflowed: bool,
}

impl BatchBuilder {
    /// A builder without records.
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, INITIAL_CAPACITY_BYTES)
    }

    /// A builder without records, and with room for `capacity_bytes` of them, not packed, and the header.
    pub fn with_capacity(options: BatchOptions, capacity_bytes: usize) -> Self {
        let mut batch = BytesMut::with_capacity(HEADER_BYTES.saturating_add(capacity_bytes));
        batch.put_bytes(0, HEADER_BYTES);
        Self {
            options,
            producer: ProducerStamp::NONE,
            batch,
            record_count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            overflowed: false,
        }
    }

    /// Appends a record.
    ///
    /// `timestamp_ms` counts from the Unix epoch; -1 for none. No value makes it a tombstone. The headers are
    /// walked twice: for their size, then for their contents. A record beyond the format's integers makes
    /// [`Self::build`] fail.
    pub fn push<'h, H>(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: H)
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        H::IntoIter: ExactSizeIterator + Clone,
    {
        let headers = headers.into_iter();
        let base_timestamp = if self.is_empty() { timestamp_ms } else { self.base_timestamp };
        let Some(layout) = self.layout(timestamp_ms, base_timestamp, key, value, headers.clone()) else {
            self.overflowed = true;
            return;
        };

        let out = &mut self.batch;
        out.reserve(MAX_VARINT_BYTES + layout.length as usize);
        put_varint(out, layout.length);
        out.put_u8(RECORD_ATTRIBUTES);
        put_varlong(out, layout.timestamp_delta);
        put_varint(out, layout.offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, layout.header_count);
        for (key, value) in headers {
            put_nullable(out, Some(key.as_bytes()));
            put_nullable(out, value);
        }

        self.max_timestamp =
            if self.is_empty() { timestamp_ms } else { self.max_timestamp.max(timestamp_ms) };
        self.base_timestamp = base_timestamp;
        self.record_count += 1;
    }

    /// How many records there are.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The size so far, not packed, header included.
    pub fn size_bytes(&self) -> usize {
        self.batch.len()
    }

    /// What a record adds to [`Self::size_bytes`] at most; `header_bytes` are those of all its headers' keys and
    /// values together.
    pub fn record_size_upper_bound(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header_bytes: usize,
        headers: usize,
    ) -> usize {
        // The length, the offset delta, the lengths of key and value, and the header count; two per header.
        let varints = headers.saturating_mul(2).saturating_add(5);
        let lengths = varints.saturating_mul(MAX_VARINT_BYTES);
        let contents = key.map_or(0, <[u8]>::len).saturating_add(value.map_or(0, <[u8]>::len));
        let fixed = size_of_val(&RECORD_ATTRIBUTES) + MAX_VARLONG_BYTES;
        contents.saturating_add(header_bytes).saturating_add(lengths).saturating_add(fixed)
    }

    /// Says who produced the batch.
    pub fn set_producer(&mut self, stamp: ProducerStamp) {
        self.producer = stamp;
    }

    /// The encoded batch; the caller owns it alone.
    ///
    /// # Errors
    /// [`BatchError::Invalid`] if it is empty or its records do not fit the format's integers.
    pub fn build(mut self) -> Result<BytesMut, BatchError> {
        if self.overflowed {
            return Err(InvalidBatch::TooLargeForFormat.into());
        }
        if self.is_empty() {
            return Err(InvalidBatch::Empty.into());
        }
        let header = self.header();
        match self.options.codec {
            Codec::None => {
                if let Some(room) = self.batch.first_chunk_mut() {
                    *room = header;
                }
                finish(self.batch, Codec::None)
            }
            codec => assemble(&header, codec, self.batch.get(HEADER_BYTES..).unwrap_or_default()),
        }
    }

    /// The header but for codec, length and checksum.
    fn header(&self) -> Header {
        let count = self.record_count;
        let mut header = [0; HEADER_BYTES];
        header::put::<{ at::MAGIC }, _>(&mut header, MAGIC_V2.to_be_bytes());
        header::put::<{ at::LAST_OFFSET_DELTA }, _>(&mut header, count.saturating_sub(1).to_be_bytes());
        header::put::<{ at::BASE_TIMESTAMP }, _>(&mut header, self.base_timestamp.to_be_bytes());
        header::put::<{ at::MAX_TIMESTAMP }, _>(&mut header, self.max_timestamp.to_be_bytes());
        self.producer.put(&mut header);
        header::put::<{ at::RECORD_COUNT }, _>(&mut header, count.to_be_bytes());
        header
    }

    /// The integers of a record; `None` if one does not fit.
    fn layout<'h>(
        &self,
        timestamp_ms: i64,
        base_timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Option<RecordLayout> {
        // The count must fit as well as the delta, which is one less.
        let offset_delta = i32::try_from(self.record_count).ok().filter(|&delta| delta < i32::MAX)?;
        let timestamp_delta = timestamp_ms.checked_sub(base_timestamp)?;
        let header_count = i32::try_from(headers.len()).ok()?;
        let mut length = size_of_val(&RECORD_ATTRIBUTES)
            + varlong_len(timestamp_delta)
            + varint_len(offset_delta)
            + varint_len(header_count);
        for part in [key, value] {
            length = length.checked_add(nullable_len(part)?)?;
        }
        for (key, value) in headers {
            length =
                length.checked_add(nullable_len(Some(key.as_bytes()))?)?.checked_add(nullable_len(value)?)?;
        }
        let length = i32::try_from(length).ok()?;
        Some(RecordLayout { length, timestamp_delta, offset_delta, header_count })
    }
}

/// The integers of a record, but for those of its key, value and headers.
struct RecordLayout {
    length: i32,
    timestamp_delta: i64,
    offset_delta: i32,
    header_count: i32,
}

/// What [`put_nullable`] writes; `None` if the length does not fit.
fn nullable_len(bytes: Option<&[u8]>) -> Option<usize> {
    match bytes {
        None => Some(varint_len(-1)),
        Some(bytes) => varint_len(i32::try_from(bytes.len()).ok()?).checked_add(bytes.len()),
    }
}

/// Bytes behind their length, which has been checked to fit; -1 for none.
fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}
