//! What is sent. Everything that can be is made before the round begins, so that sending costs this side as little as
//! possible: requests take turns from a set that fits no processor's cache. Under `--verify` each value is
//! stamped, so each request is made when it is sent.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::args::{Content, Mode};
use super::ledger::{Chain, Stamp};
use super::plan::Plan;
use crate::cli::failure::Failure;
use crate::proto;
use crate::record::{BatchBuilder, BatchOptions, Codec};

/// The set of prepared requests has about so many bytes ...
const SET_BYTES: u64 = 16 << 20;
/// ... and not more than so many requests.
const SET_REQUESTS: u64 = 512;
/// With the same seed, all rounds and both sides of a comparison send the same bytes.
const SEED: u64 = 0x5a67_0a11;
/// What text is made of.
const WORDS: [&str; 24] = [
    "the",
    "king",
    "fell",
    "from",
    "his",
    "horse",
    "and",
    "said",
    "do",
    "not",
    "let",
    "the",
    "historian",
    "know",
    "of",
    "it",
    "snow",
    "in",
    "palace",
    "court",
    "record",
    "year",
    "written",
    "down",
];

/// A request's records.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    /// One encoded batch.
    Batch(Bytes),
    /// Protobuf.
    Records(Vec<proto::Record>),
    /// Values, for the Rust client.
    Values(Vec<Bytes>),
}

/// A request's records, and what they count for.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) parcel: Parcel,
    pub(super) records: u32,
    /// Of the encoded batch, or of the values.
    pub(super) bytes: u64,
}

/// Where requests come from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    /// Taken in turns.
    set: Arc<[Prepared]>,
    /// For stamped requests: values as they are before that, for the same turns.
    values: Arc<[Vec<Bytes>]>,
    mode: Mode,
    codec: Codec,
}

impl Payload {
    /// Prepares the set.
    ///
    /// # Errors
    /// When a batch cannot be encoded.
    pub(super) fn prepare(plan: &Plan) -> Result<Self, Failure> {
        let requests = (SET_BYTES / plan.batch_bytes.max(1)).clamp(2, SET_REQUESTS);
        let mut random = fastrand::Rng::with_seed(SEED);
        let values: Vec<Vec<Bytes>> = (0..requests).map(|_| values(plan, &mut random)).collect();
        let codec = plan.compression.codec();
        let set: Vec<Prepared> =
            values.iter().map(|values| pack(plan.mode, codec, values)).collect::<Result<_, _>>()?;
        let values = if plan.verify { values } else { Vec::new() };
        Ok(Self { set: set.into(), values: values.into(), mode: plan.mode, codec })
    }

    /// How many requests are prepared.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// The request of a turn, as it was prepared.
    pub(super) fn request(&self, turn: usize) -> Option<Prepared> {
        self.set.get(turn % self.set.len().max(1)).cloned()
    }

    /// The request of a turn with every value stamped as the next of `chain`, which goes on over them.
    ///
    /// # Errors
    /// When a batch cannot be encoded.
    pub(super) fn stamped(
        &self,
        turn: usize,
        producer: u32,
        chain: &mut Chain,
    ) -> Result<Option<Prepared>, Failure> {
        let Some(values) = self.values.get(turn % self.values.len().max(1)) else { return Ok(None) };
        let mut arena = BytesMut::with_capacity(values.iter().map(Bytes::len).sum());
        let stamped: Vec<Bytes> = values
            .iter()
            .map(|value| {
                arena.put_slice(value);
                let mut own = arena.split();
                Stamp { producer, sequence: chain.next() }.put(&mut own);
                chain.push(&own);
                own.freeze()
            })
            .collect();
        pack(self.mode, self.codec, &stamped).map(Some)
    }

    /// How many bytes of values there are to one of what is sent; more than 1 where they compress.
    pub(super) fn compression_ratio(&self, plan: &Plan) -> f64 {
        let values: f64 =
            f64::from(plan.record_bytes()) * f64::from(plan.batch_records) * self.set.len() as f64;
        values / self.set.iter().map(|prepared| prepared.bytes as f64).sum::<f64>().max(1.0)
    }
}

/// The values of one request.
fn values(plan: &Plan, random: &mut fastrand::Rng) -> Vec<Bytes> {
    let sizes = plan.record_bytes_min as usize..=plan.record_bytes_max as usize;
    let mut all = Vec::new();
    let ends: Vec<usize> = (0..plan.batch_records)
        .map(|_| {
            let end = all.len() + random.usize(sizes.clone());
            fill(&mut all, end, plan.content, random);
            end
        })
        .collect();
    // As long as the process: so a clone, of which a request in records mode has hundreds, counts nothing.
    let all: &'static [u8] = all.leak();
    let all = Bytes::from_static(all);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(begin, &end)| all.slice(begin..end)).collect()
}

/// Extends `all` to `end` bytes.
fn fill(all: &mut Vec<u8>, end: usize, content: Content, random: &mut fastrand::Rng) {
    let begin = all.len();
    match content {
        Content::Random => {
            all.resize(end, 0);
            random.fill(all.get_mut(begin..).unwrap_or_default());
        }
        Content::Text => {
            while all.len() < end {
                all.extend_from_slice(WORDS[random.usize(..WORDS.len())].as_bytes());
                all.push(b' ');
            }
            all.truncate(end);
        }
    }
}

fn pack(mode: Mode, codec: Codec, values: &[Bytes]) -> Result<Prepared, Failure> {
    let value_bytes = values.iter().map(|value| value.len() as u64).sum();
    let (parcel, bytes) = match mode {
        Mode::Batches => {
            let mut builder = BatchBuilder::new(BatchOptions { codec });
            for value in values {
                builder.push(now_ms(), None, Some(value), []);
            }
            let batch =
                builder.build().map_err(|error| Failure::Failed(format!("cannot encode: {error}")))?;
            let bytes = batch.len() as u64;
            (Parcel::Batch(batch.freeze()), bytes)
        }
        Mode::Records => {
            let record =
                |value: &Bytes| proto::Record { value: Some(value.clone()), ..proto::Record::default() };
            (Parcel::Records(values.iter().map(record).collect()), value_bytes)
        }
        Mode::Client => (Parcel::Values(values.to_vec()), value_bytes),
    };
    Ok(Prepared { parcel, records: values.len() as u32, bytes })
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::ledger::Reader;
    use crate::cli::bench::plan::tests::plan;
    use crate::record::{BatchView, ValidationRules, validate};

    #[test]
    fn a_prepared_batch_is_one_that_a_broker_takes() {
        for line in ["", "--record-size 1-500 --content text --compression zstd"] {
            let plan = plan(line, false).expect(line);
            let payload = Payload::prepare(&plan).expect("prepared");
            let prepared = payload.request(3).expect("a request");
            let Parcel::Batch(batch) = &prepared.parcel else { panic!("{prepared:?}") };
            let rules = ValidationRules {
                max_message_bytes: 1 << 20,
                now_ms: now_ms(),
                timestamp_after_max_ms: 0,
                strict: true,
                max_decompressed_bytes: 1 << 20,
            };
            let view = validate(batch, &rules).expect("valid");
            assert_eq!(view.record_count() as u32, plan.batch_records);
            assert_eq!(prepared.bytes, batch.len() as u64);
            assert!(batch.len() as u64 <= plan.batch_bytes);
        }
    }

    #[test]
    fn a_default_batch_is_as_near_to_its_size_as_whole_records_come() {
        let plan = plan("", false).expect("the defaults");
        let prepared = Payload::prepare(&plan).expect("prepared").request(0).expect("a request");
        assert!((65_536 - 110..=65_536).contains(&prepared.bytes), "{}", prepared.bytes);
    }

    #[test]
    fn stamped_requests_read_back_as_they_were_sent() {
        let plan = plan("--verify --batch-records 3 --record-size 12-40", false).expect("valid");
        let payload = Payload::prepare(&plan).expect("prepared");
        let (mut chain, mut reader, mut offset) = (Chain::default(), Reader::default(), 0);
        for turn in 0..4 {
            let prepared = payload.stamped(turn, 5, &mut chain).expect("encoded").expect("a request");
            chain.acknowledged(offset, prepared.records);
            let Parcel::Batch(batch) = prepared.parcel else { panic!("a batch") };
            for record in
                BatchView::parse(&batch).expect("a batch").records(&mut Vec::new(), 0).expect("records")
            {
                reader.read(offset, record.expect("a record").value.unwrap_or_default()).expect("as sent");
                offset += 1;
            }
        }
        assert_eq!(reader.settle([(5, chain)].into_iter()), Ok(12));
    }

    #[test]
    fn text_compresses_and_random_bytes_do_not() {
        let ratio = |line: &str| {
            let plan = plan(line, false).expect(line);
            Payload::prepare(&plan).expect("prepared").compression_ratio(&plan)
        };
        assert!(ratio("--compression zstd --content text") > 2.0);
        assert!(ratio("--compression zstd --content random") < 1.1);
    }
}
