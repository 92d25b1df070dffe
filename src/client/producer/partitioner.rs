//! Which partition a record goes to when it does not say: by its key, as Kafka's clients choose, or one after another.

use crate::types::PartitionId;

/// The partition of a key among `partitions` (at least one): murmur2 without its sign bit, as Kafka's default partitioner.
pub(super) fn partition_of_key(key: &[u8], partitions: u32) -> PartitionId {
    let hash = murmur2(key) & 0x7fff_ffff;
    partition(hash % partitions.max(1))
}

/// Another partition than `current`, at random, if there is another.
pub(super) fn another_partition(current: Option<PartitionId>, partitions: u32) -> PartitionId {
    match current {
        Some(current) if partitions > 1 => {
            let step = fastrand::u32(1..partitions);
            partition((current.get().unsigned_abs() + step) % partitions)
        }
        _ => partition(fastrand::u32(0..partitions.max(1))),
    }
}

fn partition(number: u32) -> PartitionId {
    i32::try_from(number).ok().and_then(PartitionId::new).unwrap_or_default()
}

/// MurmurHash2 by Austin Appleby, 32 bits, with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_hashes_as_kafka_does() {
        // From Kafka's UtilsTest.testMurmur2.
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_key_always_goes_to_the_same_partition_of_those_there_are() {
        assert_eq!(partition_of_key(b"21", 8).get(), 1_173_551_340 % 8);
        assert_eq!(partition_of_key(b"anything", 1).get(), 0);
    }

    #[test]
    fn another_partition_is_another_one_and_reaches_all() {
        let mut seen = [false; 5];
        let mut current = None;
        for _ in 0..1_000 {
            let next = another_partition(current, 5);
            assert_ne!(Some(next), current);
            seen[next.index()] = true;
            current = Some(next);
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(another_partition(Some(PartitionId::default()), 1).get(), 0);
    }
}
