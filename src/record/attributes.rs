//! The attribute bits of a batch.

use super::codec::Codec;

const CODEC_MASK: i16 = 0b0111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;
const KNOWN: i16 = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL | DELETE_HORIZON;

/// Whose clock a batch's timestamps are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    #[default]
    CreateTime,
    /// The broker's: all records have the batch's maximum timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch, as they stand in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// How the records are packed; `None` for a number without a meaning.
    pub fn codec(self) -> Option<Codec> {
        Codec::from_id(self.codec_id())
    }

    /// The codec's number, known or not.
    pub fn codec_id(self) -> u8 {
        (self.0 & CODEC_MASK) as u8
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Whether its records are markers for brokers and consumers, not data.
    pub fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Whether the base timestamp is the time from which tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON != 0
    }

    /// The bits that mean nothing today; 0 in a good batch.
    pub fn unknown_bits(self) -> u16 {
        (self.0 & !KNOWN) as u16
    }

    /// The same with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self((self.0 & !CODEC_MASK) | i16::from(codec.id()))
    }

    /// The same with log-append time.
    #[must_use]
    pub fn with_log_append_time(self) -> Self {
        Self(self.0 | LOG_APPEND_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_its_meaning() {
        assert_eq!(Attributes(0).codec(), Some(Codec::None));
        assert_eq!(Attributes(0).timestamp_type(), TimestampType::CreateTime);
        assert_eq!(Attributes(0b0000_1000).timestamp_type(), TimestampType::LogAppendTime);
        assert!(Attributes(0b0001_0000).is_transactional());
        assert!(Attributes(0b0010_0000).is_control());
        assert!(Attributes(0b0100_0000).has_delete_horizon());
        assert_eq!(Attributes(0b0111_1111).unknown_bits(), 0);
        assert_eq!(Attributes(-1).unknown_bits(), 0xff80);
        for (id, codec) in [(0, "none"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
            assert_eq!(Attributes(id).codec().map(Codec::name), Some(codec));
        }
        for id in 5..8 {
            assert_eq!(Attributes(id).codec(), None);
        }
    }

    #[test]
    fn another_codec_leaves_the_other_bits() {
        let all = Attributes(0b0111_1001);
        assert_eq!(all.with_codec(Codec::Zstd), Attributes(0b0111_1100));
        assert_eq!(all.with_codec(Codec::None), Attributes(0b0111_1000));
        assert_eq!(Attributes(0b0100).with_log_append_time(), Attributes(0b1100));
    }
}
