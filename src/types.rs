//! The words every layer shares: offsets, names and ids, each checked once, where it enters.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// The longest topic name, in bytes, as in Kafka: a directory name `<topic>-<partition>` must fit in 255.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;
/// The longest group name, in bytes.
pub const MAX_GROUP_NAME_BYTES: usize = 255;
/// The most partitions one topic can have.
pub const MAX_PARTITIONS_PER_TOPIC: u32 = 10_000;
/// The topic that keeps the offsets of consumer groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

// `<topic>-<partition>` and the longest suffix of a directory set aside must fit in a file name.
const _: () = assert!(MAX_TOPIC_NAME_BYTES + "-9999".len() <= 255);

/// The place of a record in its partition: 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);

    /// `None` for a negative number.
    pub const fn new(value: i64) -> Option<Self> {
        if value >= 0 { Some(Self(value)) } else { None }
    }

    /// An offset from where only valid ones come from; a negative number becomes 0.
    pub const fn clamped(value: i64) -> Self {
        if value >= 0 { Self(value) } else { Self::ZERO }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `count` records further on, at most `i64::MAX`.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.saturating_add(count as i64))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An idempotent producer: 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerId(i64);

impl ProducerId {
    /// `None` for a negative number: -1 in a batch says that there is none.
    pub const fn new(value: i64) -> Option<Self> {
        if value >= 0 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of a partition in its topic, from 0 to [`MAX_PARTITIONS_PER_TOPIC`] less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(u32);

impl PartitionId {
    /// `None` when it is negative or too large for any topic.
    pub const fn new(value: i32) -> Option<Self> {
        if value >= 0 && (value as u32) < MAX_PARTITIONS_PER_TOPIC { Some(Self(value as u32)) } else { None }
    }

    /// Every partition of a topic that has `count` of them.
    pub fn all(count: u32) -> impl Iterator<Item = Self> + Clone {
        (0..count.min(MAX_PARTITIONS_PER_TOPIC)).map(Self)
    }

    /// As the protocols spell it.
    pub const fn get(self) -> i32 {
        self.0 as i32
    }

    /// As an index into a topic's list of partitions.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that cannot be a topic's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid topic name {name:?}: use 1 to {MAX_TOPIC_NAME_BYTES} of the characters a-z, A-Z, 0-9, '.', '_' and '-', \
     and neither \".\" nor \"..\""
)]
pub struct InvalidTopicName {
    /// What was given, cut after the longest length allowed.
    pub name: String,
}

/// A valid topic name; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks a name by Kafka's rules.
    ///
    /// # Errors
    /// [`InvalidTopicName`] if it is empty, too long, `.` or `..`, or has other characters.
    pub fn parse(name: &str) -> Result<Self, InvalidTopicName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = !name.is_empty()
            && name.len() <= MAX_TOPIC_NAME_BYTES
            && name != "."
            && name != ".."
            && name.bytes().all(legal);
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTopicName { name: name.chars().take(MAX_TOPIC_NAME_BYTES).collect() })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// [`OFFSETS_TOPIC`].
    pub fn offsets() -> Self {
        Self(OFFSETS_TOPIC.into())
    }

    /// Whether the broker keeps its own state there.
    pub fn is_internal(&self) -> bool {
        self.as_str() == OFFSETS_TOPIC
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A topic's identity: another one if it is deleted and created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// A new, random id; never the nil UUID.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts who was responsible for a partition: raised after an unclean start, stamped on every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub i32);

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that cannot be a group's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid group name of {bytes} bytes: use 1 to {MAX_GROUP_NAME_BYTES}, without control characters")]
pub struct InvalidGroupName {
    /// The length of what was given.
    pub bytes: usize,
}

/// A valid consumer group name; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidGroupName`] if it is empty, too long, or has control characters.
    pub fn parse(name: &str) -> Result<Self, InvalidGroupName> {
        let valid =
            !name.is_empty() && name.len() <= MAX_GROUP_NAME_BYTES && !name.chars().any(char::is_control);
        if valid { Ok(Self(name.into())) } else { Err(InvalidGroupName { bytes: name.len() }) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "orders.v1_x-Y9", &"x".repeat(249), "__consumer_offsets", "..."] {
            assert!(TopicName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "é", "a\0", &"x".repeat(250)] {
            assert!(TopicName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_partition_id_is_neither_negative_nor_beyond_the_limit() {
        assert_eq!(PartitionId::new(-1), None);
        assert_eq!(PartitionId::new(10_000), None);
        assert_eq!(PartitionId::new(9_999).map(PartitionId::get), Some(9_999));
    }

    #[test]
    fn group_names_are_bounded() {
        assert!(GroupName::parse("g 1/ü").is_ok());
        assert!(GroupName::parse("").is_err());
        assert!(GroupName::parse("a\nb").is_err());
        assert!(GroupName::parse(&"x".repeat(256)).is_err());
    }
}
