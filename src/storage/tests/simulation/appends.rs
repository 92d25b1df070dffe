//! What is appended: by nobody in particular, and by idempotent producers.

use std::sync::PoisonError;

use super::super::sim_producer::{Numbered, SimProducer};
use super::*;

impl Simulation {
    pub(super) fn append(&mut self) {
        let log = self.random(2) as usize;
        let (number, builder) = self.records(log);
        let expected_offset = self.condition(log, number);
        self.send(log, number, builder.build().unwrap(), expected_offset);
    }

    /// A producer sends something new, or what was not acknowledged.
    pub(super) fn produce(&mut self) {
        let who = self.random(self.producers.len() as u64) as usize;
        let log = self.producers[who].log;
        if !self.producers[who].has_room() {
            return self.send_again(who);
        }
        let (number, builder) = self.records(log);
        self.owners.insert(number, who);
        let condition = if self.producers[who].is_idle() { self.condition(log, number) } else { None };
        let Numbered { batch, .. } = self.producers[who].number(number, builder, condition);
        self.send(log, number, batch, condition);
    }

    pub(super) fn send_again(&mut self, who: usize) {
        for Numbered { number, batch, expected_offset, .. } in self.producers[who].again() {
            self.send(self.producers[who].log, number, batch, expected_offset);
        }
    }

    /// A producer sends what was acknowledged.
    pub(super) fn produce_again(&mut self) {
        let (who, back) = (self.random(self.producers.len() as u64) as usize, self.random(5) as usize);
        if let Some(Numbered { number, batch, expected_offset, .. }) = self.producers[who].acknowledged(back)
        {
            self.send(self.producers[who].log, number, batch, expected_offset);
        }
    }

    /// On a disk that works again, every producer gets its last batches through, each once.
    pub(super) fn finish_producing(&mut self) {
        // After a loss that `os` allows, one answer makes a producer begin anew.
        for _ in 0..2 {
            for who in 0..self.producers.len() {
                self.send_again(who);
            }
            self.write();
            self.sync();
            self.hear();
        }
        assert!(self.producers.iter().all(SimProducer::is_idle), "{:?}", self.producers);
        self.cut_power();
    }

    /// Now and then an offset at which alone the batch may be: often the right one.
    fn condition(&mut self, log: usize, number: u64) -> Option<Offset> {
        if self.random(6) > 0 {
            return None;
        }
        let end = self.up().logs[log].status().log_end_offset;
        let expected = end.plus(self.random(3).saturating_sub(1) as u32);
        self.models[log].expected.insert(number, expected);
        Some(expected)
    }

    /// A new batch, without who sends it.
    fn records(&mut self, log: usize) -> (u64, BatchBuilder) {
        let count = 1 + self.random(4) as u32;
        let bytes = if self.random(10) == 0 { self.random(3_000) } else { self.random(300) } as usize;
        self.records_of(log, count, bytes)
    }

    fn records_of(&mut self, log: usize, count: u32, bytes: usize) -> (u64, BatchBuilder) {
        let number = self.next_number;
        self.next_number += 1;
        self.models[log].sent.insert(number, count);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..count {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(8 + bytes, number as u8);
            builder.push(self.clock.now_ms(), None, Some(&value), []);
        }
        (number, builder)
    }

    /// A batch of so many records of such a size, of no producer.
    pub(in super::super) fn append_to(&mut self, log: usize, count: u32, bytes: usize) {
        let (number, builder) = self.records_of(log, count, bytes);
        self.send(log, number, builder.build().unwrap(), None);
    }

    fn send(&mut self, log: usize, number: u64, batch: BytesMut, expected_offset: Option<Offset>) {
        let outcomes = Arc::clone(&self.outcomes[log]);
        let done: AppendDone = Box::new(move |result| {
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        });
        self.up().logs[log].append(Append { batch, expected_offset, done });
    }
}
