//! What a batch must meet, and becomes, before it is appended. Pure functions over bytes; `produce` decides
//! which thread they run on.

use bytes::BytesMut;

use super::produce::ProduceRecord;
use super::topic_config::{Compression, TopicConfig};
use crate::config::{BatchValidation, BrokerConfig};
use crate::record::{
    self, BatchBuilder, BatchError, BatchOptions, BatchView, Codec, InvalidBatch, ProducerStamp,
    TimestampType, ValidationRules,
};

/// Beyond this, checking a batch takes long enough to be a burden on those who share the thread.
const COSTLY_SCAN_BYTES: usize = 1 << 20;
/// The same for compressing one. Decompressing has no such bound: a small batch can hold a large one.
const COSTLY_COMPRESSION_BYTES: usize = 64 << 10;
/// What a record takes besides its contents, as records mostly are: lengths, deltas, and the count of headers.
const RECORD_FRAME_BYTES: usize = 11;
/// The same of a header.
const HEADER_FRAME_BYTES: usize = 2;

/// The rules for one batch of one topic at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    validation: ValidationRules,
    compression: Compression,
    timestamp_type: TimestampType,
    now_ms: i64,
}

/// A batch that can be appended.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) bytes: BytesMut,
    pub(super) record_count: u32,
    /// Who sends it.
    pub(super) producer: Option<ProducerStamp>,
    pub(super) log_append_time_ms: Option<i64>,
}

impl Rules {
    pub(super) fn new(topic: &TopicConfig, broker: &BrokerConfig, now_ms: i64) -> Self {
        let timestamp_after_max_ms = match topic.timestamp_type {
            TimestampType::CreateTime => broker.timestamp_after_max_ms,
            // The producer's time is overwritten, so it can be anything.
            TimestampType::LogAppendTime => i64::MAX,
        };
        Self {
            validation: ValidationRules {
                max_message_bytes: u64::from(topic.max_message_bytes),
                now_ms,
                timestamp_after_max_ms,
                strict: broker.batch_validation == BatchValidation::Strict,
                max_decompressed_bytes: broker.max_decompressed_bytes,
            },
            compression: topic.compression,
            timestamp_type: topic.timestamp_type,
            now_ms,
        }
    }

    /// The codec of a batch that is to be built, where the producer asked for `codec`.
    pub(super) fn codec_for(&self, codec: Codec) -> Codec {
        match self.compression {
            Compression::Producer => codec,
            Compression::Always(codec) => codec,
        }
    }

    /// Whether [`prepare`] may take so long that it should not run on a thread that others share.
    pub(super) fn are_costly_for(&self, batch: &[u8]) -> bool {
        // What is no batch at all is refused before anything takes long.
        let Some(codec) = BatchView::parse(batch).ok().and_then(|view| view.attributes().codec()) else {
            return false;
        };
        let decompresses = codec != Codec::None && (self.validation.strict || self.codec_for(codec) != codec);
        let compresses = self.codec_for(codec) != codec && batch.len() > COSTLY_COMPRESSION_BYTES;
        decompresses || compresses || batch.len() > COSTLY_SCAN_BYTES
    }
}

/// Checks a batch against the rules, and gives it the codec and the timestamps of its topic.
///
/// # Errors
/// [`BatchError`] if it is not exactly one batch, or not one to accept.
pub(super) fn prepare(mut bytes: BytesMut, rules: &Rules) -> Result<Prepared, BatchError> {
    let view = record::validate(&bytes, &rules.validation)?;
    let (record_count, producer) = (view.record_count().unsigned_abs(), view.producer());
    let codec = view.attributes().codec().unwrap_or(Codec::None);
    if rules.codec_for(codec) != codec {
        bytes = record::recompress(&view, rules.codec_for(codec), rules.validation.max_decompressed_bytes)?;
        let (size_bytes, max_message_bytes) = (bytes.len() as u64, rules.validation.max_message_bytes);
        if size_bytes > max_message_bytes {
            return Err(BatchError::TooLarge { size_bytes, max_message_bytes });
        }
    }
    Ok(stamped(bytes, record_count, producer, rules))
}

/// Gives a valid batch the timestamps of its topic.
fn stamped(
    mut bytes: BytesMut,
    record_count: u32,
    producer: Option<ProducerStamp>,
    rules: &Rules,
) -> Prepared {
    let log_append_time_ms = match rules.timestamp_type {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => {
            record::set_log_append_time(&mut bytes, rules.now_ms);
            Some(rules.now_ms)
        }
    };
    Prepared { bytes, record_count, producer, log_append_time_ms }
}

/// About what the records take in a batch that is not compressed.
pub(super) fn encoded_bytes(records: &[ProduceRecord]) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let each = records.iter().map(|record| {
        let headers =
            record.headers.iter().map(|(name, value)| name.len() + length(value) + HEADER_FRAME_BYTES);
        length(&record.key) + length(&record.value) + headers.sum::<usize>() + RECORD_FRAME_BYTES
    });
    each.sum()
}

/// Whether [`build`] may take so long, for records of so many bytes, that it should not run on a thread that others
/// share.
pub(super) fn is_costly_to_build(encoded_bytes: usize, codec: Codec) -> bool {
    encoded_bytes > if codec == Codec::None { COSTLY_SCAN_BYTES } else { COSTLY_COMPRESSION_BYTES }
}

/// Makes one batch of these records, which take about `encoded_bytes`, in the name of `producer` if there is one, and
/// holds it to the same rules as one that came from outside.
///
/// # Errors
/// [`BatchError`] if there are none, or the batch of them is not one to accept.
pub(super) fn build(
    records: &[ProduceRecord],
    encoded_bytes: usize,
    codec: Codec,
    producer: Option<ProducerStamp>,
    rules: &Rules,
) -> Result<Prepared, BatchError> {
    let options = BatchOptions { codec: rules.codec_for(codec) };
    let mut builder = BatchBuilder::with_capacity(options, encoded_bytes);
    if let Some(stamp) = producer {
        builder.set_producer(stamp);
    }
    for record in records {
        let timestamp_ms = record.timestamp_ms.unwrap_or(rules.now_ms);
        if timestamp_ms < 0 {
            // The format's -1 says that there is none; here an absent one does.
            return Err(InvalidBatch::NegativeTimestamp { timestamp_ms }.into());
        }
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        builder.push(timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers);
    }
    let record_count = builder.record_count();
    let bytes = builder.build()?;
    record::validate_built(&bytes, &rules.validation)?;
    Ok(stamped(bytes, record_count, producer, rules))
}
