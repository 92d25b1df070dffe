use super::*;

#[test]
fn a_batch_is_ready_when_it_is_full_or_has_lingered() {
    let now = Instant::now();
    let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
    append(&mut accumulator, None, 100, now);
    assert!(accumulator.take_ready(9, now).is_empty(), "it lingers");
    let lingered = now + ProducerConfig::default().linger;
    assert_eq!(accumulator.next_ready(), Some(lingered));
    let taken = accumulator.take_ready(9, lingered);
    assert_eq!(numbers(&taken), [0]);
    accumulator.appended(&taken[0]);

    append(&mut accumulator, None, 600, lingered);
    append(&mut accumulator, None, 600, lingered);
    assert_eq!(numbers(&accumulator.take_ready(9, lingered)), [1], "full, as the next record did not fit");
}

#[test]
fn a_record_larger_than_a_batch_goes_alone() {
    let now = Instant::now();
    let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
    append(&mut accumulator, None, 10, now);
    append(&mut accumulator, None, 5 * LIMIT, now);
    append(&mut accumulator, None, 10, now);
    let sizes: Vec<_> = (0..2)
        .flat_map(|_| {
            let taken = accumulator.take_ready(9, now);
            for batch in &taken {
                accumulator.appended(batch);
            }
            taken.iter().map(Batch::size_bytes).collect::<Vec<_>>()
        })
        .collect();
    assert!(sizes.len() == 2 && sizes[0] < LIMIT && sizes[1] > 5 * LIMIT, "{sizes:?}");
}

#[test]
fn the_oldest_batches_go_first_when_there_is_no_room_for_all() {
    let now = Instant::now();
    let mut accumulator = accumulator(4, &ProducerConfig::default(), now);
    for partition in [3, 1, 2, 0] {
        let record =
            ProducerRecord::new(topic()).partition(PartitionId::new(partition).expect("small")).value("v");
        accumulator.append(&record, 0, LIMIT, LIMIT, now).expect("taken");
    }
    let lingered = now + Duration::from_secs(1);
    let taken = accumulator.take_ready(2, lingered);
    let partitions: Vec<_> = taken.iter().map(|batch| batch.target.partition.get()).collect();
    assert_eq!(partitions, [3, 1]);
}

#[test]
fn records_without_a_key_stay_together_until_their_batch_is_full() {
    let now = Instant::now();
    let mut accumulator = accumulator(8, &ProducerConfig::default(), now);
    let first = append(&mut accumulator, None, 300, now);
    assert_eq!(append(&mut accumulator, None, 300, now), first);
    let second = append(&mut accumulator, None, 800, now);
    assert_ne!(second, first);
    assert_eq!(append(&mut accumulator, Some("21"), 10, now), partition_of_key(b"21", 8));
}

#[test]
fn what_waits_too_long_expires_oldest_first() {
    let now = Instant::now();
    let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
    append(&mut accumulator, None, LIMIT, now);
    let later = now + Duration::from_secs(30);
    append(&mut accumulator, None, 10, later);
    let expiry = now + ProducerConfig::default().delivery_timeout;
    assert_eq!(accumulator.next_expiry(), Some(expiry));
    assert_eq!(numbers(&accumulator.take_hopeless(expiry)), [0]);
    assert_eq!(accumulator.next_expiry(), Some(expiry + Duration::from_secs(30)));
}

#[test]
fn a_stale_topic_is_looked_at_again_and_a_closed_producer_takes_nothing() {
    let now = Instant::now();
    let mut accumulator = accumulator(1, &ProducerConfig::default(), now);
    let record = ProducerRecord::new(topic()).value("v");
    let refusal = |accumulator: &mut Accumulator| accumulator.append(&record, 0, 1, 1, now).err();
    assert!(accumulator.trust_topic(&topic(), now));
    assert_eq!(refusal(&mut accumulator), Some(Refused::NeedsMetadata));
    accumulator.close();
    assert_eq!(refusal(&mut accumulator), Some(Refused::Closed));
}
