//! How a committed offset is spelt as a record of `__consumer_offsets`: Kafka's `OffsetCommitKey` and
//! `OffsetCommitValue`, so that Kafka's tools read ours and we read Kafka's.
//!
//! ```text
//! key    version i16 = 1 | group string | topic string | partition i32            (0 has the same layout)
//! value  version i16 = 3 | offset i64 | leader epoch i32 | metadata string | commit timestamp i64
//!        version i16 = 4 | offset i64 | leader epoch i32 | metadata compact string | commit timestamp i64
//!                        | tagged fields: 0 = topic id, 16 bytes
//!
//! string: length i16, UTF-8              compact string: length + 1 as an unsigned varint, UTF-8
//! tagged fields: their number, then of each the tag, the length and the bytes; numbers as unsigned varints
//! ```
//! Big-endian; leader epoch -1: unknown. No value: the offset is forgotten. We write value version 4 with the
//! topic's id, so that the offsets of a deleted topic never pass for those of a new one with its name. Keys
//! of other versions are other things that groups keep.

use bytes::{Buf, BufMut, TryGetError};

use crate::types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicId, TopicName};

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 4;
const LAST_INFLEXIBLE_VALUE_VERSION: i16 = 3;
const TOPIC_ID_TAG: u32 = 0;

/// Whose offset it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OffsetKey {
    pub(super) group: GroupName,
    pub(super) topic: TopicName,
    pub(super) partition: PartitionId,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OffsetValue {
    pub(super) offset: Offset,
    pub(super) leader_epoch: Option<LeaderEpoch>,
    pub(super) metadata: String,
    pub(super) commit_timestamp_ms: i64,
    /// Unknown in records of version 3.
    pub(super) topic_id: Option<TopicId>,
}

/// Why a record is not a committed offset that we can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("a key of version {0}")]
    KeyVersion(i16),
    #[error("an offset of version {0}")]
    ValueVersion(i16),
    #[error("it ends too early")]
    Truncated,
    #[error("{0}")]
    Invalid(String),
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// The key of the record. Names are far shorter than the 32,767 bytes that fit.
pub(super) fn encode_key(key: &OffsetKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + key.group.as_str().len() + key.topic.as_str().len());
    out.put_i16(KEY_VERSION);
    for string in [key.group.as_str(), key.topic.as_str()] {
        out.put_i16(string.len() as i16);
        out.put_slice(string.as_bytes());
    }
    out.put_i32(key.partition.get());
    out
}

/// The value of the record.
pub(super) fn encode_value(value: &OffsetValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + value.metadata.len());
    out.put_i16(VALUE_VERSION);
    out.put_i64(value.offset.get());
    out.put_i32(value.leader_epoch.map_or(-1, |epoch| epoch.0));
    put_uvarint(&mut out, value.metadata.len() as u32 + 1);
    out.put_slice(value.metadata.as_bytes());
    out.put_i64(value.commit_timestamp_ms);
    match value.topic_id {
        None => put_uvarint(&mut out, 0),
        Some(id) => {
            put_uvarint(&mut out, 1);
            put_uvarint(&mut out, TOPIC_ID_TAG);
            put_uvarint(&mut out, id.as_bytes().len() as u32);
            out.put_slice(id.as_bytes());
        }
    }
    out
}

/// Whose offset a record holds.
///
/// # Errors
/// [`DecodeError::KeyVersion`] if it holds something else; another [`DecodeError`] if it is malformed.
pub(super) fn decode_key(mut key: &[u8]) -> Result<OffsetKey, DecodeError> {
    let input = &mut key;
    let version = input.try_get_i16()?;
    if !(0..=KEY_VERSION).contains(&version) {
        return Err(DecodeError::KeyVersion(version));
    }
    let group = get_string(input)?;
    let topic = get_string(input)?;
    let partition = input.try_get_i32()?;
    Ok(OffsetKey {
        group: GroupName::parse(group).map_err(|error| DecodeError::Invalid(error.to_string()))?,
        topic: TopicName::parse(topic).map_err(|error| DecodeError::Invalid(error.to_string()))?,
        partition: PartitionId::new(partition)
            .ok_or_else(|| DecodeError::Invalid(format!("partition {partition}")))?,
    })
}

/// The offset a record holds.
///
/// # Errors
/// [`DecodeError::ValueVersion`] if it is of a version we do not know; another [`DecodeError`] if it is
/// malformed.
pub(super) fn decode_value(mut value: &[u8]) -> Result<OffsetValue, DecodeError> {
    let input = &mut value;
    let version = input.try_get_i16()?;
    if !(LAST_INFLEXIBLE_VALUE_VERSION..=VALUE_VERSION).contains(&version) {
        return Err(DecodeError::ValueVersion(version));
    }
    let flexible = version > LAST_INFLEXIBLE_VALUE_VERSION;
    let offset = input.try_get_i64()?;
    let leader_epoch = input.try_get_i32()?;
    let metadata = if flexible { get_compact_string(input)? } else { get_string(input)? };
    let commit_timestamp_ms = input.try_get_i64()?;
    let topic_id = if flexible { get_topic_id(input)? } else { None };
    Ok(OffsetValue {
        offset: Offset::new(offset).ok_or_else(|| DecodeError::Invalid(format!("offset {offset}")))?,
        leader_epoch: Some(LeaderEpoch(leader_epoch)).filter(|epoch| epoch.0 >= 0),
        metadata: metadata.to_owned(),
        commit_timestamp_ms,
        topic_id,
    })
}

/// Tags we do not know are those of a later Kafka, and passed over.
fn get_topic_id(input: &mut &[u8]) -> Result<Option<TopicId>, DecodeError> {
    let mut topic_id = None;
    for _ in 0..get_uvarint(input)? {
        let tag = get_uvarint(input)?;
        let length = get_uvarint(input)?;
        let field = take(input, length as usize)?;
        if tag == TOPIC_ID_TAG {
            let id = field
                .try_into()
                .map_err(|_| DecodeError::Invalid(format!("a topic id of {length} bytes")))?;
            topic_id = Some(TopicId::from_bytes(id));
        }
    }
    Ok(topic_id)
}

fn get_string<'a>(input: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let length = input.try_get_i16()?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Invalid("a null string".to_owned()))?;
    as_str(take(input, length)?)
}

fn get_compact_string<'a>(input: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let length =
        get_uvarint(input)?.checked_sub(1).ok_or_else(|| DecodeError::Invalid("a null string".to_owned()))?;
    as_str(take(input, length as usize)?)
}

fn as_str(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| DecodeError::Invalid(error.to_string()))
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(taken)
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn get_uvarint(input: &mut &[u8]) -> Result<u32, DecodeError> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let byte = input.try_get_u8()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Invalid("a number of more than 32 bits".to_owned()))
}

/// Which of the topic's partitions keeps the offsets of a group: Kafka's choice, by Java's hash of the name.
pub(super) fn partition_of(group: &GroupName, partitions: u32) -> u32 {
    let hash = group
        .as_str()
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs` makes 0 of the one number that has no opposite.
    let hash = if hash == i32::MIN { 0 } else { hash.unsigned_abs() };
    hash % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"\0\x01\0\x02g1\0\x06orders\0\0\0\x07";
    const VALUE_3: &[u8] = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x05\0\x04meta\0\0\x01\x8b\xcf\xe5\x68\0";
    const VALUE_4: &[u8] = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x05\x05meta\0\0\x01\x8b\xcf\xe5\x68\0\
        \x01\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10";

    fn key() -> OffsetKey {
        OffsetKey {
            group: GroupName::parse("g1").expect("valid"),
            topic: TopicName::parse("orders").expect("valid"),
            partition: PartitionId::new(7).expect("valid"),
        }
    }

    fn value(topic_id: Option<TopicId>) -> OffsetValue {
        OffsetValue {
            offset: Offset::clamped(258),
            leader_epoch: Some(LeaderEpoch(5)),
            metadata: "meta".to_owned(),
            commit_timestamp_ms: 1_700_000_000_000,
            topic_id,
        }
    }

    fn some_id() -> TopicId {
        TopicId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    }

    #[test]
    fn the_key_is_kafkas() {
        assert_eq!(encode_key(&key()), KEY);
        assert_eq!(decode_key(KEY), Ok(key()));
        let older = [b"\0\0", &KEY[2..]].concat();
        assert_eq!(decode_key(&older), Ok(key()));
    }

    #[test]
    fn the_value_is_kafkas() {
        assert_eq!(encode_value(&value(Some(some_id()))), VALUE_4);
        assert_eq!(decode_value(VALUE_4), Ok(value(Some(some_id()))));
        assert_eq!(decode_value(VALUE_3), Ok(value(None)));
    }

    #[test]
    fn without_a_topic_id_the_value_is_what_kafka_wrote_before_it_had_one() {
        let older = [&VALUE_4[..VALUE_4.len() - 19], b"\0"].concat();
        assert_eq!(encode_value(&value(None)), older);
        assert_eq!(decode_value(&older), Ok(value(None)));
    }

    #[test]
    fn a_tag_of_a_later_version_is_passed_over() {
        let mut later = VALUE_4[..VALUE_4.len() - 19].to_vec();
        later.extend(b"\x02\0\x10");
        later.extend(some_id().as_bytes());
        later.extend(b"\x05\x02hi");
        assert_eq!(decode_value(&later), Ok(value(Some(some_id()))));
    }

    #[test]
    fn a_leader_epoch_of_minus_one_is_none() {
        let unknown = OffsetValue { leader_epoch: None, ..value(None) };
        let bytes = encode_value(&unknown);
        assert_eq!(bytes[10..14], [0xff; 4]);
        assert_eq!(decode_value(&bytes), Ok(unknown));
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        assert_eq!(decode_key(b"\0\x02\0\x02g1"), Err(DecodeError::KeyVersion(2)));
        assert_eq!(decode_value(b"\0\x05"), Err(DecodeError::ValueVersion(5)));
        assert_eq!(decode_value(b"\0\x02"), Err(DecodeError::ValueVersion(2)));
        for length in 0..KEY.len() {
            assert_eq!(decode_key(&KEY[..length]), Err(DecodeError::Truncated), "cut to {length}");
        }
        for length in 0..VALUE_4.len() {
            assert_eq!(decode_value(&VALUE_4[..length]), Err(DecodeError::Truncated), "cut to {length}");
        }
        let negative = [&VALUE_3[..2], &[0xff; 8], &VALUE_3[10..]].concat();
        assert_eq!(decode_value(&negative), Err(DecodeError::Invalid("offset -1".to_owned())));
    }

    /// `"…".hashCode()` as Java computes it: "hello" is the example of its documentation's formula, the
    /// others are known for their results.
    #[test]
    fn a_group_has_kafkas_home() {
        let group = |name: &str| GroupName::parse(name).expect("valid");
        assert_eq!(partition_of(&group("hello"), 50), 99_162_322 % 50);
        assert_eq!(partition_of(&group("polygenelubricants"), 50), 0, "the hash is i32::MIN");
        assert_eq!(partition_of(&group("\u{1F600}"), u32::MAX), 0xd83d * 31 + 0xde00, "as UTF-16");
        assert_eq!(partition_of(&group("hello"), 1), 0);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            offset in 0..=i64::MAX,
            epoch in prop::option::of(0..=i32::MAX),
            metadata in "\\PC{0,300}",
            commit_timestamp_ms in any::<i64>(),
            topic_id in prop::option::of(any::<[u8; 16]>()),
        ) {
            let value = OffsetValue {
                offset: Offset::clamped(offset),
                leader_epoch: epoch.map(LeaderEpoch),
                metadata,
                commit_timestamp_ms,
                topic_id: topic_id.map(TopicId::from_bytes),
            };
            prop_assert_eq!(decode_value(&encode_value(&value)), Ok(value));
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), version in 0..5_u8) {
            let bytes = [&[0, version][..], &bytes].concat();
            let _ = decode_key(&bytes);
            let _ = decode_value(&bytes);
        }
    }
}
