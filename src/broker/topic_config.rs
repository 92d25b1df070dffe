//! The settings of a topic: one table with the name, the parser, the default and the meaning of each.
//!
//! Only what was given is kept, in its canonical spelling, so that a default can change without touching a
//! topic. The table also knows what is not to be had yet: such a value is refused by name, never accepted and
//! left without effect.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::error::BrokerError;
use crate::record::{Codec, TimestampType};
use crate::storage::{Durability, LogConfig};

/// Kafka's default: 1 MiB and the overhead of a batch.
const DEFAULT_MAX_MESSAGE_BYTES: u32 = 1_048_588;
/// The least that `max_message_bytes` can be, and that the broker's limit on it can.
const MIN_MAX_MESSAGE_BYTES: u32 = 1 << 10;
const MIN_SEGMENT_BYTES: u32 = 64 << 10;
const WEEK_MS: u64 = 7 * 24 * 3_600_000;
/// Segments of the offsets topic are small, as in Kafka, so that compaction gets at them soon.
const OFFSETS_SEGMENT_BYTES: u32 = 100 << 20;

const UNAVAILABLE: &str = "not available in this version";

/// A setting of a topic, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: &'static str,
    /// Its value in this topic.
    pub value: String,
    /// Whether it was not set for this topic.
    pub is_default: bool,
    /// What it does, and the values it can have.
    pub documentation: &'static str,
}

/// Which codec the batches of a topic have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// The one they came with.
    Producer,
    /// This one; others are compressed anew.
    Always(Codec),
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CleanupPolicy {
    /// They are deleted, as far as `retention_ms` and `retention_bytes` say.
    Delete,
    /// The latest record of each key is kept.
    Compact,
}

/// All settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicConfig {
    pub(super) cleanup_policy: CleanupPolicy,
    pub(super) compression: Compression,
    pub(super) durability: Durability,
    pub(super) max_message_bytes: u32,
    pub(super) retention_bytes: i64,
    pub(super) retention_ms: i64,
    pub(super) segment_bytes: u32,
    pub(super) segment_ms: u64,
    pub(super) timestamp_type: TimestampType,
}

/// One row of the table.
struct Setting {
    name: &'static str,
    documentation: &'static str,
    /// Parses a value; the error says what is required.
    set: fn(&mut TopicConfig, &str) -> Result<(), String>,
    /// The value in its canonical spelling.
    show: fn(&TopicConfig) -> String,
    /// Whether this version does what the value says.
    available: fn(&TopicConfig) -> bool,
}

/// Every setting there is, by name.
const SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup_policy",
        documentation: "What becomes of old records: delete (by retention_ms and retention_bytes) or compact (the \
                        latest record of each key is kept). Only delete is available in this version.",
        set: |config, value| one_of(CLEANUP_POLICIES, value).map(|policy| config.cleanup_policy = policy),
        show: |config| name_of(CLEANUP_POLICIES, config.cleanup_policy),
        available: |config| config.cleanup_policy == CleanupPolicy::Delete,
    },
    Setting {
        name: "compression",
        documentation: "The codec batches are kept in: producer (the one they came with), none, gzip, snappy, lz4 or \
                        zstd.",
        set: |config, value| one_of(COMPRESSIONS, value).map(|compression| config.compression = compression),
        show: |config| name_of(COMPRESSIONS, config.compression),
        available: |_| true,
    },
    Setting {
        name: "durability",
        documentation: "When an append is acknowledged and becomes readable: fsync (once it is on the disk: it \
                        survives a power cut) or os (once it is in the page cache: it survives a crash of the broker, \
                        but after a power cut the last offsets may be lost and used again).",
        set: |config, value| one_of(DURABILITIES, value).map(|durability| config.durability = durability),
        show: |config| name_of(DURABILITIES, config.durability),
        available: |_| true,
    },
    Setting {
        name: "max_message_bytes",
        documentation: "The largest batch that is taken, in bytes as it is kept: 1024 to the broker's \
                        max_message_bytes_limit, and at most segment_bytes.",
        set: |config, value| {
            let range = MIN_MAX_MESSAGE_BYTES..=i32::MAX as u32;
            in_range(&range, value).map(|bytes| config.max_message_bytes = bytes)
        },
        show: |config| config.max_message_bytes.to_string(),
        available: |_| true,
    },
    Setting {
        name: "retention_bytes",
        documentation: "How large a partition may grow before its oldest segments are deleted, in bytes; -1: without \
                        bound, which alone is available in this version.",
        set: |config, value| in_range(&(-1..=i64::MAX), value).map(|bytes| config.retention_bytes = bytes),
        show: |config| config.retention_bytes.to_string(),
        available: |config| config.retention_bytes == -1,
    },
    Setting {
        name: "retention_ms",
        documentation: "How long records are kept, in ms; -1: for ever, which alone is available in this version.",
        set: |config, value| in_range(&(-1..=i64::MAX), value).map(|ms| config.retention_ms = ms),
        show: |config| config.retention_ms.to_string(),
        available: |config| config.retention_ms == -1,
    },
    Setting {
        name: "segment_bytes",
        documentation: "A segment is rolled before it grows beyond this, in bytes: 65536 to 2147483647, and at least \
                        max_message_bytes.",
        set: |config, value| {
            let range = MIN_SEGMENT_BYTES..=i32::MAX as u32;
            in_range(&range, value).map(|bytes| config.segment_bytes = bytes)
        },
        show: |config| config.segment_bytes.to_string(),
        available: |_| true,
    },
    Setting {
        name: "segment_ms",
        documentation: "A segment is rolled by the first append this long after its first one, in ms: at least 1.",
        set: |config, value| in_range(&(1..=i64::MAX as u64), value).map(|ms| config.segment_ms = ms),
        show: |config| config.segment_ms.to_string(),
        available: |_| true,
    },
    Setting {
        name: "timestamp_type",
        documentation: "Whose time records bear: create_time (the producer's) or log_append_time (the broker's).",
        set: |config, value| one_of(TIMESTAMP_TYPES, value).map(|kind| config.timestamp_type = kind),
        show: |config| name_of(TIMESTAMP_TYPES, config.timestamp_type),
        available: |_| true,
    },
];

const CLEANUP_POLICIES: &[(&str, CleanupPolicy)] =
    &[("delete", CleanupPolicy::Delete), ("compact", CleanupPolicy::Compact)];
const COMPRESSIONS: &[(&str, Compression)] = &[
    ("producer", Compression::Producer),
    ("none", Compression::Always(Codec::None)),
    ("gzip", Compression::Always(Codec::Gzip)),
    ("snappy", Compression::Always(Codec::Snappy)),
    ("lz4", Compression::Always(Codec::Lz4)),
    ("zstd", Compression::Always(Codec::Zstd)),
];
const DURABILITIES: &[(&str, Durability)] = &[("fsync", Durability::Fsync), ("os", Durability::Os)];
const TIMESTAMP_TYPES: &[(&str, TimestampType)] =
    &[("create_time", TimestampType::CreateTime), ("log_append_time", TimestampType::LogAppendTime)];

fn one_of<T: Copy>(values: &[(&str, T)], given: &str) -> Result<T, String> {
    values.iter().find(|(name, _)| *name == given).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// Every value of the type is in its table.
fn name_of<T: PartialEq + Copy>(values: &[(&str, T)], value: T) -> String {
    values.iter().find(|(_, known)| *known == value).map_or_else(String::new, |(name, _)| (*name).to_owned())
}

fn in_range<T: FromStr + PartialOrd + Display>(range: &RangeInclusive<T>, given: &str) -> Result<T, String> {
    given
        .parse()
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
}

fn invalid(name: &str, value: &str, requirement: String) -> BrokerError {
    BrokerError::InvalidConfig { name: name.to_owned(), value: value.to_owned(), requirement }
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn unknown(name: &str, value: &str) -> BrokerError {
    let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    invalid(name, value, format!("there is no such setting; there are {}", names.join(", ")))
}

impl TopicConfig {
    /// The settings of a topic for which nothing was given. `max_message_bytes_limit` is the broker's.
    pub(super) fn defaults(max_message_bytes_limit: u64) -> Self {
        let limit = u32::try_from(max_message_bytes_limit).unwrap_or(u32::MAX);
        Self {
            cleanup_policy: CleanupPolicy::Delete,
            compression: Compression::Producer,
            durability: Durability::Fsync,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES.min(limit),
            retention_bytes: -1,
            retention_ms: -1,
            segment_bytes: 1 << 30,
            segment_ms: WEEK_MS,
            timestamp_type: TimestampType::CreateTime,
        }
    }

    /// The settings that somebody wants a topic to have.
    ///
    /// # Errors
    /// [`BrokerError::InvalidConfig`] for an unknown name, a value out of range or one that does not go with
    /// another; [`BrokerError::UnsupportedConfig`] for what this version does not do.
    pub(super) fn accept(
        given: &BTreeMap<String, String>,
        max_message_bytes_limit: u64,
    ) -> Result<Self, BrokerError> {
        let config = Self::recall(given, max_message_bytes_limit)?;
        if let Some(setting) = SETTINGS.iter().find(|setting| !(setting.available)(&config)) {
            return Err(BrokerError::UnsupportedConfig {
                name: setting.name.to_owned(),
                value: (setting.show)(&config),
                detail: UNAVAILABLE.to_owned(),
            });
        }
        if u64::from(config.max_message_bytes) > max_message_bytes_limit {
            return Err(invalid(
                "max_message_bytes",
                &config.max_message_bytes.to_string(),
                format!("must be at most broker.max_message_bytes_limit = {max_message_bytes_limit}"),
            ));
        }
        if config.segment_bytes < config.max_message_bytes {
            return Err(invalid(
                "segment_bytes",
                &config.segment_bytes.to_string(),
                format!("must be at least max_message_bytes = {}", config.max_message_bytes),
            ));
        }
        Ok(config)
    }

    /// The settings that a topic was given once. What the broker would refuse today it keeps all the same.
    ///
    /// # Errors
    /// [`BrokerError::InvalidConfig`] for names and values that no version of this program has given.
    pub(super) fn recall(
        given: &BTreeMap<String, String>,
        max_message_bytes_limit: u64,
    ) -> Result<Self, BrokerError> {
        let mut config = Self::defaults(max_message_bytes_limit);
        for (name, value) in given {
            let setting = find(name).ok_or_else(|| unknown(name, value))?;
            (setting.set)(&mut config, value).map_err(|requirement| invalid(name, value, requirement))?;
        }
        Ok(config)
    }

    /// `given`, each value in its canonical spelling.
    pub(super) fn canonical(&self, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        SETTINGS
            .iter()
            .filter(|setting| given.contains_key(setting.name))
            .map(|setting| (setting.name.to_owned(), (setting.show)(self)))
            .collect()
    }

    /// Every setting, by name; `given` tells which have not their default.
    pub(super) fn entries(&self, given: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
        SETTINGS
            .iter()
            .map(|setting| ConfigEntry {
                name: setting.name,
                value: (setting.show)(self),
                is_default: !given.contains_key(setting.name),
                documentation: setting.documentation,
            })
            .collect()
    }

    /// What the store has to know.
    pub(super) fn log_config(&self) -> LogConfig {
        LogConfig {
            durability: self.durability,
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
        }
    }
}

/// `given` with some settings changed and others put back to their defaults.
///
/// # Errors
/// [`BrokerError::InvalidConfig`] for a name to reset that is unknown or is to be set too.
pub(super) fn merged(
    given: &BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    reset: &[String],
) -> Result<BTreeMap<String, String>, BrokerError> {
    let mut merged = given.clone();
    for name in reset {
        if let Some(value) = set.get(name) {
            return Err(invalid(name, value, "cannot be set and reset at once".to_owned()));
        }
        if find(name).is_none() {
            return Err(unknown(name, ""));
        }
        merged.remove(name);
    }
    merged.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(merged)
}

/// What the offsets topic is given.
pub(super) fn offsets_topic_config() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cleanup_policy".to_owned(), name_of(CLEANUP_POLICIES, CleanupPolicy::Compact)),
        ("segment_bytes".to_owned(), OFFSETS_SEGMENT_BYTES.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 16 << 20;

    fn given(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn accept(settings: &[(&str, &str)]) -> Result<TopicConfig, BrokerError> {
        TopicConfig::accept(&given(settings), LIMIT)
    }

    fn refusal(settings: &[(&str, &str)]) -> String {
        match accept(settings) {
            Err(BrokerError::InvalidConfig { name, requirement, .. }) => format!("{name}: {requirement}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_acceptable_as_they_are_shown() {
        assert!(SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        let config = accept(&[]).expect("defaults");
        let shown = config.entries(&BTreeMap::new());
        let again = shown.iter().map(|entry| (entry.name.to_owned(), entry.value.clone())).collect();
        assert_eq!(TopicConfig::accept(&again, LIMIT).expect("as shown"), config);
        assert!(shown.iter().all(|entry| entry.is_default && !entry.documentation.is_empty()));
    }

    #[test]
    fn the_defaults_are_kafkas_where_kafka_has_them() {
        let shown: Vec<String> = accept(&[])
            .expect("defaults")
            .entries(&BTreeMap::new())
            .iter()
            .map(|entry| format!("{}={}", entry.name, entry.value))
            .collect();
        assert_eq!(
            shown,
            [
                "cleanup_policy=delete",
                "compression=producer",
                "durability=fsync",
                "max_message_bytes=1048588",
                "retention_bytes=-1",
                "retention_ms=-1",
                "segment_bytes=1073741824",
                "segment_ms=604800000",
                "timestamp_type=create_time",
            ]
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_range() {
        assert_eq!(
            refusal(&[("segment_bytes", "65535")]),
            "segment_bytes: must be a number from 65536 to 2147483647"
        );
        assert_eq!(
            refusal(&[("segment_bytes", "2147483648")]),
            "segment_bytes: must be a number from 65536 to 2147483647"
        );
        assert_eq!(refusal(&[("durability", "none")]), "durability: must be one of fsync, os");
        assert!(refusal(&[("segment_ms", "0")]).contains("from 1 to"));
        assert!(refusal(&[("retention_ms", "-2")]).contains("from -1 to"));
        assert!(refusal(&[("max_message_bytes", "1023")]).contains("from 1024 to"));
        assert!(refusal(&[("max_message_bytes", "lots")]).contains("must be a number"));
    }

    #[test]
    fn related_settings_are_checked_against_each_other_and_the_broker() {
        assert_eq!(
            refusal(&[("segment_bytes", "65536")]),
            "segment_bytes: must be at least max_message_bytes = 1048588"
        );
        accept(&[("segment_bytes", "65536"), ("max_message_bytes", "65536")]).expect("they go together");
        accept(&[("max_message_bytes", "16777216")]).expect("the limit");
        assert!(refusal(&[("max_message_bytes", "16777217")]).contains("max_message_bytes_limit = 16777216"));
    }

    #[test]
    fn the_default_message_size_bows_to_the_brokers_limit() {
        let config = TopicConfig::accept(&BTreeMap::new(), 4096).expect("defaults");
        assert_eq!(config.max_message_bytes, 4096);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_known_ones() {
        let error = refusal(&[("segment.bytes", "65536")]);
        assert!(
            error.starts_with("segment.bytes: ") && error.contains("segment_bytes, segment_ms"),
            "{error}"
        );
    }

    #[test]
    fn what_this_version_does_not_do_is_refused_and_not_silently_taken() {
        for (name, value) in
            [("retention_ms", "1000"), ("retention_bytes", "0"), ("cleanup_policy", "compact")]
        {
            match accept(&[(name, value)]) {
                Err(BrokerError::UnsupportedConfig { name: named, value: shown, .. }) => {
                    assert_eq!((named.as_str(), shown.as_str()), (name, value));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        accept(&[("retention_ms", "-1"), ("retention_bytes", "-1"), ("cleanup_policy", "delete")])
            .expect("the values it does have");
    }

    #[test]
    fn the_offsets_topic_has_what_clients_cannot_ask_for() {
        let config = TopicConfig::recall(&offsets_topic_config(), LIMIT).expect("the broker's own");
        assert_eq!(config.cleanup_policy, CleanupPolicy::Compact);
        assert_eq!(config.segment_bytes, 104_857_600);
    }

    #[test]
    fn what_is_kept_is_canonical_and_only_what_was_given() {
        let rough = given(&[("segment_ms", "+0060000"), ("compression", "zstd")]);
        let config = TopicConfig::accept(&rough, LIMIT).expect("valid");
        assert_eq!(config.canonical(&rough), given(&[("segment_ms", "60000"), ("compression", "zstd")]));
        let changed: Vec<_> =
            config.entries(&rough).into_iter().filter(|entry| !entry.is_default).map(|e| e.name).collect();
        assert_eq!(changed, ["compression", "segment_ms"]);
    }

    #[test]
    fn an_update_sets_and_resets() {
        let before = given(&[("compression", "zstd"), ("durability", "os")]);
        let reset = |name: &str| [name.to_owned()];
        let after = merged(&before, &given(&[("durability", "fsync")]), &reset("compression"));
        assert_eq!(after.expect("valid"), given(&[("durability", "fsync")]));
        merged(&before, &given(&[("durability", "fsync")]), &reset("durability")).expect_err("both");
        merged(&before, &BTreeMap::new(), &reset("typo")).expect_err("unknown");
    }
}
