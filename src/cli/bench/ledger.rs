//! `--verify`: what was read is what was acknowledged, in order, once.
//!
//! Every value begins with a [`Stamp`]: who sent it, and which one it is of those sent by that producer to that
//! partition. Both sides keep a [`Chain`] for each producer in each partition, a running hash over the values in order: the
//! producer as it sends, and with the offsets as they are acknowledged, the consumer as it reads. Along the way the
//! consumer holds offsets and numbers against those that are due, which tells where something is wrong; at the end
//! the chains must be equal, which tells that nothing is. Pure.

use std::collections::BTreeMap;

/// What a stamp takes of a value: a producer's number and a sequence, big-endian.
pub(super) const STAMP_BYTES: usize = 12;
/// An odd number without a pattern: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Tells a value from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) producer: u32,
    /// From 0, in each partition.
    pub(super) sequence: u64,
}

impl Stamp {
    /// Overwrites the beginning of a value, which must be long enough.
    pub(super) fn put(self, value: &mut [u8]) {
        if let Some(room) = value.first_chunk_mut::<STAMP_BYTES>() {
            let (producer, sequence) = room.split_at_mut(4);
            producer.copy_from_slice(&self.producer.to_be_bytes());
            sequence.copy_from_slice(&self.sequence.to_be_bytes());
        }
    }

    fn of(value: &[u8]) -> Option<Self> {
        let (producer, rest) = value.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Self { producer: u32::from_be_bytes(*producer), sequence: u64::from_be_bytes(*sequence) })
    }
}

/// What one producer sent to one partition, or what was read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Chain {
    records: u64,
    /// Over the values, in order.
    hash: u64,
    /// All offsets added up, modulo 2^64.
    offsets: u64,
}

impl Chain {
    /// The sequence of the next value.
    pub(super) fn next(&self) -> u64 {
        self.records
    }

    /// The next value; its offset may not be known yet.
    pub(super) fn push(&mut self, value: &[u8]) {
        let digest = u64::from(crc32c::crc32c(value)) | (value.len() as u64) << 32;
        self.hash = (self.hash.rotate_left(23) ^ digest).wrapping_mul(MIX);
        self.records += 1;
    }

    /// Some values have got the offsets from `base` on.
    pub(super) fn acknowledged(&mut self, base: i64, records: u32) {
        for index in 0..u64::from(records) {
            self.offsets = self.offsets.wrapping_add((base as u64).wrapping_add(index));
        }
    }
}

/// What is wrong with what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// No record of this run.
    #[error("at offset {offset} is a record that nobody here has sent")]
    Foreign { offset: i64 },
    /// An offset is missing, or comes again.
    #[error("offset {offset} was read where {due} was due")]
    Offset { offset: i64, due: i64 },
    /// Some records of a producer are missing before this one.
    #[error(
        "at offset {offset} is record {found} of producer {producer}, where {due} was due: lost, or out of order"
    )]
    Lost { offset: i64, producer: u32, found: u64, due: u64 },
    /// A record of a producer that was read before.
    #[error("at offset {offset} is record {found} of producer {producer} again: {due} was due")]
    Again { offset: i64, producer: u32, found: u64, due: u64 },
    /// At the end, there is less than was acknowledged.
    #[error("of producer {producer} {read} records were read, {acknowledged} had been acknowledged")]
    Short { producer: u32, read: u64, acknowledged: u64 },
    /// At the end, there is as much as was acknowledged, but not the same.
    #[error("of producer {producer} {records} records were read, but not as they were sent")]
    Altered { producer: u32, records: u64 },
    /// At the end, there is what was acknowledged, at other offsets.
    #[error("of producer {producer} {records} records were read at other offsets than were acknowledged")]
    Moved { producer: u32, records: u64 },
}

/// What one consumer reads of one partition.
#[derive(Debug, Default)]
pub(super) struct Reader {
    due: i64,
    chains: BTreeMap<u32, Chain>,
}

impl Reader {
    /// The next record that was read.
    ///
    /// # Errors
    /// The [`Fault`], if it is not what must come next.
    pub(super) fn read(&mut self, offset: i64, value: &[u8]) -> Result<(), Fault> {
        if offset != self.due {
            return Err(Fault::Offset { offset, due: self.due });
        }
        let Some(Stamp { producer, sequence }) = Stamp::of(value) else {
            return Err(Fault::Foreign { offset });
        };
        let chain = self.chains.entry(producer).or_default();
        let (found, due) = (sequence, chain.next());
        match found.cmp(&due) {
            std::cmp::Ordering::Greater => return Err(Fault::Lost { offset, producer, found, due }),
            std::cmp::Ordering::Less => return Err(Fault::Again { offset, producer, found, due }),
            std::cmp::Ordering::Equal => {}
        }
        chain.push(value);
        chain.acknowledged(offset, 1);
        self.due += 1;
        Ok(())
    }

    /// Holds everything that was read against what was acknowledged, by producer. Returns how many records that is.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub(super) fn settle(&self, acknowledged: impl Iterator<Item = (u32, Chain)>) -> Result<u64, Fault> {
        let mut settled = 0;
        let mut unknown = self.chains.clone();
        for (producer, chain) in acknowledged {
            let read = unknown.remove(&producer).unwrap_or_default();
            let records = read.records;
            if records != chain.records {
                return Err(Fault::Short { producer, read: records, acknowledged: chain.records });
            }
            if read.hash != chain.hash {
                return Err(Fault::Altered { producer, records });
            }
            if read.offsets != chain.offsets {
                return Err(Fault::Moved { producer, records });
            }
            settled += records;
        }
        match unknown.into_iter().next() {
            None => Ok(settled),
            Some((producer, chain)) => Err(Fault::Short { producer, read: chain.records, acknowledged: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(producer: u32, sequence: u64) -> Vec<u8> {
        let mut value = vec![b'x'; 20];
        Stamp { producer, sequence }.put(&mut value);
        value
    }

    /// Two producers that send three records each, in turns, acknowledged at offsets 0 to 5.
    fn sent() -> (Vec<Vec<u8>>, Vec<(u32, Chain)>) {
        let mut chains = [(0, Chain::default()), (1, Chain::default())];
        let mut log = Vec::new();
        for sequence in 0..3 {
            for (producer, chain) in &mut chains {
                log.push(value(*producer, sequence));
                chain.push(&value(*producer, sequence));
                chain.acknowledged(log.len() as i64 - 1, 1);
            }
        }
        (log, chains.to_vec())
    }

    /// What a consumer says who reads these values at consecutive offsets.
    fn verdict(log: &[Vec<u8>]) -> Result<u64, Fault> {
        let mut reader = Reader::default();
        for (offset, value) in log.iter().enumerate() {
            reader.read(offset as i64, value)?;
        }
        reader.settle(sent().1.into_iter())
    }

    #[test]
    fn what_is_read_as_acknowledged_settles() {
        assert_eq!(verdict(&sent().0), Ok(6));
    }

    #[test]
    fn a_lost_record_is_caught() {
        let mut log = sent().0;
        log.remove(2);
        assert_eq!(verdict(&log), Err(Fault::Lost { offset: 3, producer: 0, found: 2, due: 1 }));
        let mut log = sent().0;
        log.pop();
        assert_eq!(verdict(&log), Err(Fault::Short { producer: 1, read: 2, acknowledged: 3 }));
    }

    #[test]
    fn a_reordered_record_is_caught() {
        let mut log = sent().0;
        log.swap(0, 2);
        assert_eq!(verdict(&log), Err(Fault::Lost { offset: 0, producer: 0, found: 1, due: 0 }));
    }

    #[test]
    fn a_doubled_record_is_caught() {
        let mut log = sent().0;
        log.insert(1, log[0].clone());
        assert_eq!(verdict(&log), Err(Fault::Again { offset: 1, producer: 0, found: 0, due: 1 }));
        let mut log = sent().0;
        log.push(value(1, 3));
        assert_eq!(verdict(&log), Err(Fault::Short { producer: 1, read: 4, acknowledged: 3 }));
        let mut log = sent().0;
        log.push(value(7, 0));
        assert_eq!(verdict(&log), Err(Fault::Short { producer: 7, read: 1, acknowledged: 0 }));
    }

    #[test]
    fn an_altered_record_is_caught() {
        let mut log = sent().0;
        log[3][15] ^= 1;
        assert_eq!(verdict(&log), Err(Fault::Altered { producer: 1, records: 3 }));
        log[3].truncate(5);
        assert_eq!(verdict(&log), Err(Fault::Foreign { offset: 3 }));
    }

    #[test]
    fn an_offset_that_is_skipped_or_was_not_acknowledged_is_caught() {
        let mut reader = Reader::default();
        reader.read(0, &value(0, 0)).expect("the first");
        assert_eq!(reader.read(2, &value(0, 1)), Err(Fault::Offset { offset: 2, due: 1 }));
        let mut chain = Chain::default();
        chain.push(&value(0, 0));
        chain.acknowledged(5, 1);
        assert_eq!(reader.settle([(0, chain)].into_iter()), Err(Fault::Moved { producer: 0, records: 1 }));
    }
}
