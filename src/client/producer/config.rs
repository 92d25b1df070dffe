//! Settings of a producer.

use std::time::Duration;

use crate::client::error::Error;
use crate::record::Codec;

/// The most a producer may be told to hold, or to send in one batch.
const MAX_BYTES: usize = 1 << 30;
/// The longest row of batches under way.
const MAX_IN_FLIGHT: usize = 65_536;
/// The batches of one producer that a partition remembers: one further back could not be told from a new one.
const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;

/// How a producer gathers, sends and repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// How batches are compressed; a topic's own `compression` prevails. Default: not at all.
    pub compression: Codec,
    /// A batch with so many bytes, before compression, is sent at once; the topic's `max_message_bytes` is kept too.
    /// A larger record goes alone. 1 B to 1 GiB. Default: 64 KiB.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more. Default: 5 ms.
    pub linger: Duration,
    /// Bytes of records that were accepted and are not yet acknowledged; beyond it [`Producer::send`] waits.
    /// `batch_bytes` to 1 GiB. Default: 32 MiB.
    ///
    /// [`Producer::send`]: super::Producer::send
    pub buffer_bytes: usize,
    /// Batches under way at a time. 1 to 65,536. Default: 32.
    pub max_in_flight: usize,
    /// Batches of one partition under way at a time, within `max_in_flight`. Without `idempotence` only 1 keeps the order
    /// of sends whatever happens: with more, a batch that had to be repeated may land behind a later one. 1 to 65,536; with
    /// `idempotence` at most 5, as the broker remembers so many. Default: 5.
    pub max_in_flight_per_partition: usize,
    /// How long a record may take from being accepted to being acknowledged. Until then its batch is sent again after
    /// whatever may pass, with growing delays; without `idempotence` only if it is certain that it was not appended.
    /// Default: 2 min.
    pub delivery_timeout: Duration,
    /// Number the batches, so that the broker appends each of them once and in order, however often it is sent: a broken
    /// connection or a killed server then costs time, and neither loses nor doubles a record. Without it, the deliveries
    /// of a batch whose connection broke before the answer fail, with an error that
    /// [says so](crate::client::Error::is_outcome_unknown). Default: true.
    pub idempotence: bool,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            compression: Codec::None,
            batch_bytes: 64 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            max_in_flight: 32,
            max_in_flight_per_partition: MAX_IN_FLIGHT_IDEMPOTENT,
            delivery_timeout: Duration::from_mins(2),
            idempotence: true,
        }
    }
}

impl ProducerConfig {
    /// Checks every value against its range and its relatives.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let check = |name: &str, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(format!("{name} = {value}: must be from {min} to {max}")))
            }
        };
        check("batch_bytes", self.batch_bytes, 1, MAX_BYTES)?;
        check("buffer_bytes", self.buffer_bytes, self.batch_bytes, MAX_BYTES)?;
        check("max_in_flight", self.max_in_flight, 1, MAX_IN_FLIGHT)?;
        let per_partition = if self.idempotence { MAX_IN_FLIGHT_IDEMPOTENT } else { MAX_IN_FLIGHT };
        check("max_in_flight_per_partition", self.max_in_flight_per_partition, 1, per_partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_a_value_out_of_range_is_named() {
        ProducerConfig::default().validate().expect("defaults");
        let config = ProducerConfig { buffer_bytes: 100, ..ProducerConfig::default() };
        let error = config.validate().expect_err("a buffer smaller than a batch");
        assert!(error.to_string().contains("buffer_bytes = 100"), "{error}");
    }

    #[test]
    fn an_idempotent_producer_has_no_more_under_way_than_the_broker_remembers() {
        let config = ProducerConfig { max_in_flight_per_partition: 6, ..ProducerConfig::default() };
        let error = config.validate().expect_err("six");
        assert!(error.to_string().contains("max_in_flight_per_partition = 6"), "{error}");
        ProducerConfig { idempotence: false, ..config }.validate().expect("nothing has to be remembered");
    }
}
