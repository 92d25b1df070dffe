//! Values of the command line: each checked once, here, with a message that says what is allowed.

use crate::client::{Offset, PartitionId, Position, TopicName};
use crate::types::{GroupName, InvalidGroupName, InvalidTopicName, MAX_PARTITIONS_PER_TOPIC};

pub(super) fn topic(text: &str) -> Result<TopicName, InvalidTopicName> {
    TopicName::parse(text)
}

pub(super) fn group(text: &str) -> Result<GroupName, InvalidGroupName> {
    GroupName::parse(text)
}

pub(super) fn partition(text: &str) -> Result<PartitionId, String> {
    let partition = text.parse().ok().and_then(PartitionId::new);
    partition.ok_or_else(|| format!("a partition is a number from 0 to {}", MAX_PARTITIONS_PER_TOPIC - 1))
}

pub(super) fn partition_count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_PARTITIONS_PER_TOPIC).contains(count));
    count.ok_or_else(|| format!("use a number from 1 to {MAX_PARTITIONS_PER_TOPIC}"))
}

pub(super) fn offset(text: &str) -> Result<Offset, String> {
    text.parse().ok().and_then(Offset::new).ok_or_else(|| "an offset is a number from 0 on".to_owned())
}

/// KEY=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE".to_owned()),
    }
}

/// `earliest`, `latest`, an offset, or `@` and a timestamp.
pub(super) fn position(text: &str) -> Result<Position, String> {
    match text {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        _ => match text.strip_prefix('@') {
            Some(timestamp) => timestamp_ms(timestamp).map(Position::TimestampMs),
            None => offset(text).map(Position::Offset).map_err(|_| {
                "use earliest, latest, an offset, or @ and a timestamp (@2026-01-31T12:00:00Z, @1769860800000)".to_owned()
            }),
        },
    }
}

/// Milliseconds since the Unix epoch, or a time as RFC 3339 writes it.
fn timestamp_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let timestamp = text.parse::<jiff::Timestamp>();
    timestamp.map(jiff::Timestamp::as_millisecond).map_err(|_| {
        "a timestamp is milliseconds since 1970, or like 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+02:00".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_words_offsets_or_timestamps() {
        assert_eq!(position("earliest"), Ok(Position::Earliest));
        assert_eq!(position("latest"), Ok(Position::Latest));
        assert_eq!(position("17"), Ok(Position::Offset(Offset::clamped(17))));
        assert_eq!(position("@1769860800000"), Ok(Position::TimestampMs(1_769_860_800_000)));
        assert_eq!(position("@2026-01-31T12:00:00Z"), Ok(Position::TimestampMs(1_769_860_800_000)));
        assert_eq!(position("@2026-01-31T14:00:00.5+02:00"), Ok(Position::TimestampMs(1_769_860_800_500)));
        for bad in ["", "-1", "first", "@", "@2026-01-31", "@yesterday", "1.5"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_is_split_at_its_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=b").is_err() && pair("ab").is_err());
    }

    #[test]
    fn partitions_are_within_their_range() {
        assert_eq!(partition("9999").map(PartitionId::get), Ok(9_999));
        assert!(partition("10000").is_err() && partition("-1").is_err());
        assert!(partition_count("0").is_err() && partition_count("10001").is_err());
    }
}
