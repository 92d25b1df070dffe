//! The record format alone: what the broker does with a batch that comes encoded, and with records that come one by one,
//! side by side with the least that a program could do with the same bytes. One thread, nothing but memory.
//!
//! One round is 256 batches of 64 KiB (16 MiB), of 100-byte values and of 1,000-byte ones:
//! - checking a batch as a producer sends it: frame, checksum, every record;
//! - walking its records, as a decoding reader does;
//! - building one of its records: encoding, header, checksum.
//!
//! The baselines are a CRC-32C of the same bytes, which is a part of checking and of building, and a copy from memory to
//! memory. The batches of a round are different ones, as in a broker, so that they come out of the processor's caches.
#![allow(clippy::expect_used, reason = "a step that fails ends the bench")]

mod interleave;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use interleave::{Contender, compare};
use sagwan::record::{BatchBuilder, BatchOptions, BatchView, ValidationRules, validate};

/// As near to it as whole records come.
const BATCH_BYTES: usize = 64 << 10;
const BATCHES_PER_ROUND: usize = 256;

/// Something that is done with each batch of a round.
struct Work<'a, F> {
    name: &'static str,
    is_baseline: bool,
    batches: &'a [BytesMut],
    once: F,
}

impl<F: FnMut(&[u8])> Contender for Work<'_, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_baseline(&self) -> bool {
        self.is_baseline
    }

    fn prepare(&mut self) {}

    fn work(&mut self) {
        for batch in self.batches {
            (self.once)(batch);
        }
    }
}

fn batch(value: &[u8]) -> BytesMut {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    while batch.size_bytes() + BatchBuilder::record_size_upper_bound(None, Some(value), 0, 0) <= BATCH_BYTES {
        batch.push(i64::from(batch.record_count()), None, Some(value), []);
    }
    batch.build().expect("a batch within the format's limits")
}

fn records(criterion: &mut Criterion, value_bytes: usize) {
    let value = vec![b'x'; value_bytes];
    let batches: Vec<_> = (0..BATCHES_PER_ROUND).map(|_| batch(&value)).collect();
    let rules = ValidationRules {
        max_message_bytes: u64::MAX,
        now_ms: i64::MAX,
        timestamp_after_max_ms: 0,
        strict: false,
        max_decompressed_bytes: u64::MAX,
    };
    let check = |batch: &[u8]| {
        black_box(validate(batch, &rules).expect("a valid batch"));
    };
    let walk = |batch: &[u8]| {
        let batch = BatchView::parse(batch).expect("a whole batch");
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch, u64::MAX).expect("records that are not compressed") {
            black_box(record.expect("a valid record"));
        }
    };
    let build = |_: &[u8]| {
        black_box(batch(&value));
    };
    let checksum = |batch: &[u8]| {
        assert!(BatchView::parse(batch).expect("a whole batch").crc_is_valid());
    };
    let mut target = vec![0; BATCH_BYTES];
    let copy = |batch: &[u8]| {
        target[..batch.len()].copy_from_slice(batch);
        black_box(&target);
    };
    let batches = &batches[..];
    let contenders: &mut [Box<dyn Contender + '_>] = &mut [
        Box::new(Work { name: "check", is_baseline: false, batches, once: check }),
        Box::new(Work { name: "walk", is_baseline: false, batches, once: walk }),
        Box::new(Work { name: "build", is_baseline: false, batches, once: build }),
        Box::new(Work { name: "CRC-32C", is_baseline: true, batches, once: checksum }),
        Box::new(Work { name: "copy", is_baseline: true, batches, once: copy }),
    ];
    let bytes = batches.iter().map(|batch| batch.len() as u64).sum();
    compare(
        criterion,
        &format!("record batches of 64 KiB, values of {value_bytes} bytes"),
        bytes,
        contenders,
    );
}

fn batches(criterion: &mut Criterion) {
    records(criterion, 100);
    records(criterion, 1_000);
}

criterion_group!(record, batches);
criterion_main!(record);
