//! Which partition a record goes to when it does not say: by its key, as Kafka's clients choose, or one after another.

use crate::record::partition_for_key;
use crate::types::PartitionId;

/// The partition of a key among `partitions`, of which there is at least one.
pub(super) fn partition_of_key(key: &[u8], partitions: u32) -> PartitionId {
    partition(partition_for_key(key, partitions))
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

#[cfg(test)]
mod tests {
    use super::*;

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
