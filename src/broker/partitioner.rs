//! Which partition a record goes to, chosen as Kafka's clients choose it, so that a key has one home whoever
//! writes it.

use std::sync::atomic::{AtomicU32, Ordering};

/// The partition, of `partitions`, that a record with this key belongs to. `partitions` is at least 1.
pub(super) fn by_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Hands out partitions to requests whose records have no key: one to each request, in turn.
#[derive(Debug)]
pub(super) struct Sticky {
    next: AtomicU32,
}

impl Sticky {
    /// Starts anywhere, so that a restart does not favour the first partitions.
    pub(super) fn new() -> Self {
        Self { next: AtomicU32::new(fastrand::u32(..)) }
    }

    /// The next partition, of `partitions`, that `takes_writes`; any if none does. `partitions` is at least
    /// 1.
    pub(super) fn choose(&self, partitions: u32, takes_writes: impl Fn(u32) -> bool) -> u32 {
        let partitions = partitions.max(1);
        let first = self.next.fetch_add(1, Ordering::Relaxed) % partitions;
        (first..partitions).chain(0..first).find(|partition| takes_writes(*partition)).unwrap_or(first)
    }
}

/// Austin Appleby's MurmurHash2 (32 bits) with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_is_kafkas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn a_key_has_one_home_in_range() {
        // 479470107 % 8 and (-973932308 & 0x7fffffff) % 8
        assert_eq!(by_key(b"abc", 8), 3);
        assert_eq!(by_key(b"21", 8), 4);
        assert_eq!(by_key(b"", 1), 0);
    }

    #[test]
    fn requests_without_keys_take_turns() {
        let sticky = Sticky { next: AtomicU32::new(u32::MAX - 2) };
        let chosen: Vec<u32> = (0..3).map(|_| sticky.choose(4, |_| true)).collect();
        assert_eq!(chosen, [1, 2, 3]);
    }

    #[test]
    fn a_partition_that_takes_no_writes_is_passed_over() {
        let sticky = Sticky { next: AtomicU32::new(2) };
        assert_eq!(sticky.choose(3, |partition| partition == 1), 1);
        assert_eq!(sticky.choose(3, |_| false), 0);
    }
}
