//! How the catalogue is spelt on the disk: the body of the file `catalogue`, which the store frames,
//! checksums and replaces atomically.
//!
//! ```text
//! version u8 = 2
//! next producer id i64                                        not in version 1: there it is 0
//! number of topics u32
//!     name string | id 16 bytes | partitions u32 | number of settings u16
//!         name string | value string                          settings by name
//!                                                             topics by name
//! number of deletions u32
//!     name string | id 16 bytes | partitions u32              in the order they began
//!
//! string: length u16, UTF-8
//! ```
//! Big-endian. A body with anything behind it, names out of order or numbers out of range is not a catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, TryGetError};

use super::catalogue::{Catalogue, Deletion, TopicEntry};
use crate::types::{MAX_PARTITIONS_PER_TOPIC, TopicId, TopicName};

/// The name of the file in the data directory.
pub const CATALOGUE_FILE: &str = "catalogue";
/// The one before it, which the store keeps.
pub(super) const OLD_CATALOGUE_FILE: &str = "catalogue.old";

const VERSION: u8 = 2;
/// Before there were producer ids.
const VERSION_WITHOUT_PRODUCERS: u8 = 1;

/// Why bytes are not a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it has version {0}, this program knows up to {VERSION}")]
    Version(u8),
    #[error("it ends too early")]
    Truncated,
    #[error("it goes on after its end")]
    Trailing,
    #[error("{0}")]
    Invalid(String),
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// The body of the file.
pub(super) fn encode(catalogue: &Catalogue) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * (1 + catalogue.topics.len()));
    out.put_u8(VERSION);
    out.put_i64(catalogue.next_producer_id);
    out.put_u32(catalogue.topics.len() as u32);
    for (name, topic) in &catalogue.topics {
        put_topic(&mut out, name, topic.id, topic.partitions);
        out.put_u16(topic.config.len() as u16);
        for (name, value) in &topic.config {
            put_string(&mut out, name);
            put_string(&mut out, value);
        }
    }
    out.put_u32(catalogue.deletions.len() as u32);
    for deletion in &catalogue.deletions {
        put_topic(&mut out, &deletion.name, deletion.id, deletion.partitions);
    }
    out
}

/// The catalogue that [`encode`] made this body of.
///
/// # Errors
/// [`DecodeError`] says what is wrong with it.
pub(super) fn decode(mut body: &[u8]) -> Result<Catalogue, DecodeError> {
    let input = &mut body;
    let version = input.try_get_u8()?;
    let mut catalogue = Catalogue::default();
    match version {
        VERSION_WITHOUT_PRODUCERS => {}
        VERSION => catalogue.next_producer_id = input.try_get_i64()?,
        version => return Err(DecodeError::Version(version)),
    }
    if catalogue.next_producer_id < 0 {
        return Err(DecodeError::Invalid(format!("its next producer id is {}", catalogue.next_producer_id)));
    }
    for _ in 0..input.try_get_u32()? {
        let (name, id, partitions) = get_topic(input)?;
        let mut config = BTreeMap::new();
        for _ in 0..input.try_get_u16()? {
            let (name, value) = (get_string(input)?, get_string(input)?);
            insert_last(&mut config, name, value)?;
        }
        let entry = Arc::new(TopicEntry { id, partitions, config });
        insert_last(&mut catalogue.topics, name, entry)?;
    }
    for _ in 0..input.try_get_u32()? {
        let (name, id, partitions) = get_topic(input)?;
        catalogue.deletions.push(Deletion { name, id, partitions });
    }
    if input.has_remaining() { Err(DecodeError::Trailing) } else { Ok(catalogue) }
}

fn insert_last<K: Ord + ToString, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), DecodeError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(DecodeError::Invalid(format!("{:?} is out of order", key.to_string())));
    }
    map.insert(key, value);
    Ok(())
}

fn put_topic(out: &mut Vec<u8>, name: &TopicName, id: TopicId, partitions: u32) {
    put_string(out, name.as_str());
    out.put_slice(id.as_bytes());
    out.put_u32(partitions);
}

fn get_topic(input: &mut &[u8]) -> Result<(TopicName, TopicId, u32), DecodeError> {
    let name = get_string(input)?;
    let name = TopicName::parse(&name).map_err(|error| DecodeError::Invalid(error.to_string()))?;
    let mut id = [0; 16];
    input.try_copy_to_slice(&mut id)?;
    let partitions = input.try_get_u32()?;
    if !(1..=MAX_PARTITIONS_PER_TOPIC).contains(&partitions) {
        return Err(DecodeError::Invalid(format!("topic {name} has {partitions} partitions")));
    }
    Ok((name, TopicId::from_bytes(id), partitions))
}

/// Names and settings are far shorter than the 65,535 bytes that fit.
fn put_string(out: &mut Vec<u8>, string: &str) {
    out.put_u16(string.len() as u16);
    out.put_slice(string.as_bytes());
}

fn get_string(input: &mut &[u8]) -> Result<String, DecodeError> {
    let length = usize::from(input.try_get_u16()?);
    let (string, rest) = input.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *input = rest;
    let string = std::str::from_utf8(string).map_err(|error| DecodeError::Invalid(error.to_string()))?;
    Ok(string.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = b"\x02\
        \0\0\0\0\0\0\x03\xe8\
        \0\0\0\x01\
        \0\x02ab\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\0\0\0\x03\
        \0\x01\0\x0adurability\0\x02os\
        \0\0\0\x01\
        \0\x03old\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\x27\x10";

    fn name(name: &str) -> TopicName {
        TopicName::parse(name).expect("a valid name")
    }

    fn golden() -> Catalogue {
        let entry = TopicEntry {
            id: TopicId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
            partitions: 3,
            config: BTreeMap::from([("durability".to_owned(), "os".to_owned())]),
        };
        Catalogue {
            topics: BTreeMap::from([(name("ab"), Arc::new(entry))]),
            deletions: vec![Deletion {
                name: name("old"),
                id: TopicId::from_bytes([0xff; 16]),
                partitions: 10_000,
            }],
            next_producer_id: 1_000,
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(encode(&golden()), GOLDEN);
        assert_eq!(decode(GOLDEN), Ok(golden()));
    }

    #[test]
    fn a_catalogue_from_before_producer_ids_is_read() {
        let before = [b"\x01", &GOLDEN[9..]].concat();
        assert_eq!(decode(&before), Ok(Catalogue { next_producer_id: 0, ..golden() }));
    }

    #[test]
    fn what_is_not_a_catalogue_is_refused() {
        for length in 0..GOLDEN.len() {
            assert_eq!(decode(&GOLDEN[..length]), Err(DecodeError::Truncated), "cut to {length}");
        }
        let negative = [b"\x02\xff", &GOLDEN[2..]].concat();
        assert!(matches!(decode(&negative), Err(DecodeError::Invalid(_))));
        assert_eq!(decode(&[GOLDEN, b"\0"].concat()), Err(DecodeError::Trailing));
        assert_eq!(decode(b"\x03"), Err(DecodeError::Version(3)));
        let mut too_many = GOLDEN.to_vec();
        *too_many.last_mut().expect("not empty") += 1;
        let error = decode(&too_many).expect_err("10,001 partitions");
        assert!(matches!(&error, DecodeError::Invalid(detail) if detail.contains("old")), "{error:?}");
    }

    #[test]
    fn topics_out_of_order_are_refused() {
        let topic = &GOLDEN[13..GOLDEN.len() - 29];
        let twice = [b"\x01\0\0\0\x02", topic, topic, b"\0\0\0\0"].concat();
        assert_eq!(decode(&twice), Err(DecodeError::Invalid("\"ab\" is out of order".to_owned())));
    }

    prop_compose! {
        fn entries()(
            id in any::<[u8; 16]>(),
            partitions in 1..=MAX_PARTITIONS_PER_TOPIC,
            config in prop::collection::btree_map("[a-z_]{1,20}", "\\PC{0,20}", 0..5),
        ) -> TopicEntry {
            TopicEntry { id: TopicId::from_bytes(id), partitions, config }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            topics in prop::collection::btree_map("[a-zA-Z0-9_-]{1,249}", entries(), 0..8),
            deletions in prop::collection::vec(("[a-z]{1,9}", entries()), 0..4),
            next_producer_id in 0..i64::MAX,
        ) {
            let catalogue = Catalogue {
                topics: topics.iter().map(|(n, topic)| (name(n), Arc::new(topic.clone()))).collect(),
                deletions: deletions
                    .iter()
                    .map(|(n, topic)| Deletion { name: name(n), id: topic.id, partitions: topic.partitions })
                    .collect(),
                next_producer_id,
            };
            prop_assert_eq!(decode(&encode(&catalogue)), Ok(catalogue));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = vec![VERSION];
            body.extend(bytes);
            if let Ok(catalogue) = decode(&body) {
                prop_assert_eq!(encode(&catalogue), body);
            }
        }
    }
}
