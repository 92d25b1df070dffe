//! Tests of the layer as a whole; what concerns one file alone is tested there.

mod bombs;
mod damage;
mod golden;
mod roundtrip;
mod rules;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::header::{self, HEADER_BYTES, at};
use super::{BatchBuilder, BatchOptions, BatchView, Codec, RecordView, ValidationRules};

const MIB: u64 = 1 << 20;

/// A record that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    fn new(timestamp_ms: i64, key: Option<&str>, value: Option<&str>) -> Self {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Self { timestamp_ms, key: key.map(bytes), value: value.map(bytes), headers: Vec::new() }
    }

    fn header(mut self, key: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((key.to_owned(), value.map(<[u8]>::to_vec)));
        self
    }

    fn push_to(&self, builder: &mut BatchBuilder) {
        let headers = self.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
        builder.push(self.timestamp_ms, self.key.as_deref(), self.value.as_deref(), headers);
    }
}

impl From<RecordView<'_>> for Owned {
    fn from(record: RecordView<'_>) -> Self {
        let headers = record.headers().map(|(key, value)| (key.to_owned(), value.map(<[u8]>::to_vec)));
        Self {
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        }
    }
}

/// Rules that look at everything and mind no time or size.
fn lenient() -> ValidationRules {
    ValidationRules {
        max_message_bytes: u64::MAX,
        now_ms: 0,
        timestamp_after_max_ms: i64::MAX,
        strict: true,
        max_decompressed_bytes: 16 * MIB,
    }
}

fn build(codec: Codec, records: &[Owned]) -> BytesMut {
    let mut builder = BatchBuilder::new(BatchOptions { codec });
    for record in records {
        record.push_to(&mut builder);
    }
    builder.build().unwrap()
}

/// The records of a batch that has no fault.
fn read_all(batch: &[u8]) -> Vec<Owned> {
    let mut scratch = Vec::new();
    let records = BatchView::parse(batch).unwrap().records(&mut scratch, 16 * MIB).unwrap();
    records.map(|record| record.unwrap().into()).collect()
}

/// Overwrites a header field and makes the checksum right again.
fn forge<const AT: usize, const N: usize>(batch: &mut [u8], field: [u8; N]) {
    header::put::<AT, N>(batch.first_chunk_mut().unwrap(), field);
    header::seal(batch);
}

/// A batch that says of itself what the header of `like` says, with other bytes where the records were.
fn with_payload(like: &[u8], codec: Codec, payload: &[u8]) -> Bytes {
    let mut batch = BytesMut::from(&like[..HEADER_BYTES]);
    batch.extend_from_slice(payload);
    super::recompress::finish(batch, codec).unwrap().freeze()
}

/// One small record.
fn one_record() -> Vec<Owned> {
    vec![Owned::new(1_000, Some("key"), Some("value")).header("h", Some(b"x"))]
}

/// A failure's seed is kept beside the test that failed, not in the root of the repository.
fn beside_the_source() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&Codec::ALL[..])
}

fn any_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    // Runs compress, noise does not.
    prop_oneof![vec(any::<u8>(), 0..max), (any::<u8>(), 0..max).prop_map(|(byte, len)| vec![byte; len])]
}

prop_compose! {
    fn any_record()(
        timestamp_ms in prop_oneof![Just(-1), 0..=i64::MAX / 2, 1_700_000_000_000..1_700_000_000_300_i64],
        key in option::of(any_bytes(80)),
        value in option::of(any_bytes(400)),
        headers in vec((any::<String>(), option::of(any_bytes(80))), 0..4),
    ) -> Owned {
        Owned { timestamp_ms, key, value, headers }
    }
}

fn any_records() -> impl Strategy<Value = Vec<Owned>> {
    vec(any_record(), 1..20)
}

/// What the maximum timestamp of a batch of these is.
fn max_timestamp(records: &[Owned]) -> i64 {
    records.iter().map(|record| record.timestamp_ms).max().unwrap_or(-1)
}

#[test]
fn the_header_fields_fill_the_header() {
    let fields = [
        at::BASE_OFFSET,
        at::BATCH_LENGTH,
        at::LEADER_EPOCH,
        at::MAGIC,
        at::CRC,
        at::ATTRIBUTES,
        at::LAST_OFFSET_DELTA,
        at::BASE_TIMESTAMP,
        at::MAX_TIMESTAMP,
        at::PRODUCER_ID,
        at::PRODUCER_EPOCH,
        at::BASE_SEQUENCE,
        at::RECORD_COUNT,
        HEADER_BYTES,
    ];
    let widths: Vec<_> = fields.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(widths, [8, 4, 4, 1, 4, 2, 4, 8, 8, 8, 2, 4, 4]);
}
