//! The accumulator against a broker and connections that fail at random, one partition, from a seed.
//!
//! Whatever comes: each batch lies in the log at most once, the log is in the order of the sends, and what is said of a
//! batch is true. Connections that are gone may still deliver what they carried.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::client::error::{Error, reason};
use crate::record::BatchView;

/// A broker remembers so many batches of a producer.
const REMEMBERED: usize = 5;

/// What is known of a batch in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Appended,
    Absent,
    Unknown,
}

struct Request {
    number: u64,
    bytes: bytes::Bytes,
}

/// The broker's side of one partition.
#[derive(Default)]
struct Broker {
    /// Batches by number.
    log: Vec<u64>,
    /// Epoch, next sequence, and the last base sequences of the one producer.
    producer: Option<(i16, i32, VecDeque<i32>)>,
}

impl Broker {
    /// `false`: it is out of order, or of an old epoch.
    fn append(&mut self, request: &Request) -> bool {
        let view = BatchView::parse(&request.bytes).expect("a batch");
        let (epoch, sequence) = (view.producer_epoch(), view.base_sequence());
        let (newest, next, recent) = self.producer.get_or_insert_with(|| (epoch, sequence, VecDeque::new()));
        if epoch < *newest {
            return false;
        }
        if epoch > *newest {
            if sequence != 0 {
                return false;
            }
            (*newest, *next) = (epoch, 0);
            recent.clear();
        }
        if recent.contains(&sequence) {
            return true;
        }
        if sequence != *next {
            return false;
        }
        *next += view.record_count();
        recent.push_back(sequence);
        if recent.len() > REMEMBERED {
            recent.pop_front();
        }
        self.log.push(request.number);
        true
    }
}

struct World {
    random: fastrand::Rng,
    now: Instant,
    accumulator: Accumulator,
    broker: Broker,
    /// Those that are gone, and the one there is: what each carries.
    connections: Vec<VecDeque<Request>>,
    /// Answers on their way over the last connection: whether it was appended, or refused for now or for good.
    answers: VecDeque<(u64, Answer)>,
    in_flight: BTreeMap<u64, Batch>,
    fates: BTreeMap<u64, Fate>,
    sent: u64,
}

#[derive(Clone, Copy)]
enum Answer {
    Appended,
    OutOfOrder,
    Full,
    Invalid,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(1), ..ProducerConfig::default() };
        Self {
            random: fastrand::Rng::with_seed(seed),
            now,
            accumulator: accumulator(1, &config, now),
            broker: Broker::default(),
            connections: vec![VecDeque::new()],
            answers: VecDeque::new(),
            in_flight: BTreeMap::new(),
            fates: BTreeMap::new(),
            sent: 0,
        }
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..25 => self.append(),
            25..50 => self.dispatch(),
            50..70 => self.deliver(),
            70..90 => self.hear(),
            90..92 => self.break_connection(),
            _ => self.now += Duration::from_millis(self.random.u64(0..150)),
        }
        self.expire();
    }

    fn append(&mut self) {
        let size = if self.random.bool() { LIMIT } else { 10 };
        append(&mut self.accumulator, None, size, self.now);
    }

    fn dispatch(&mut self) {
        for mut batch in self.accumulator.take_ready(9, self.now) {
            if self.random.u32(0..20) == 0 {
                self.accumulator.requeue(batch, self.now);
                continue;
            }
            let bytes = batch.encode().expect("small enough");
            batch.sent = true;
            self.sent += 1;
            let wire = self.connections.last_mut().expect("there is always one");
            wire.push_back(Request { number: batch.number, bytes });
            self.in_flight.insert(batch.number, batch);
        }
    }

    /// The broker takes a request, from any connection.
    fn deliver(&mut self) {
        let last = self.connections.len() - 1;
        let from = if self.random.u32(0..4) == 0 { self.random.usize(0..=last) } else { last };
        let Some(request) = self.connections[from].pop_front() else { return };
        let answer = match self.random.u32(0..20) {
            0 => Answer::Full,
            1 => Answer::Invalid,
            _ if self.broker.append(&request) => Answer::Appended,
            _ => Answer::OutOfOrder,
        };
        if from == last {
            self.answers.push_back((request.number, answer));
        }
    }

    /// An answer comes, not always the oldest.
    fn hear(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let which = self.random.usize(0..self.answers.len());
        let (number, answer) = self.answers.remove(which).expect("it is there");
        let mut batch = self.in_flight.remove(&number).expect("it was under way");
        let later = self.now + Duration::from_millis(self.random.u64(0..50));
        match answer {
            Answer::Appended => {
                self.accumulator.appended(&batch);
                self.note(&batch, Fate::Appended);
            }
            Answer::OutOfOrder => self.accumulator.out_of_order(batch, later),
            Answer::Full => self.accumulator.requeue(batch, later),
            Answer::Invalid => {
                self.accumulator.given_up(&mut batch);
                self.fail(&batch);
            }
        }
    }

    fn break_connection(&mut self) {
        self.answers.clear();
        self.connections.push(VecDeque::new());
        for (_, mut batch) in std::mem::take(&mut self.in_flight) {
            let lost = Error::new(tonic::Code::Unavailable, reason::CONNECTION_LOST, "the connection broke");
            batch.unanswered = Some(lost);
            self.accumulator.requeue(batch, self.now);
        }
    }

    fn expire(&mut self) {
        for batch in self.accumulator.take_hopeless(self.now) {
            self.fail(&batch);
        }
    }

    fn fail(&mut self, batch: &Batch) {
        let refused = Error::new(tonic::Code::ResourceExhausted, reason::STORAGE_FULL, "full");
        let unknown = batch.failure(refused).is_outcome_unknown();
        self.note(batch, if unknown { Fate::Unknown } else { Fate::Absent });
    }

    fn note(&mut self, batch: &Batch, fate: Fate) {
        assert_eq!(self.fates.insert(batch.number, fate), None, "a batch has one fate");
    }

    fn judge(&self, seed: u64) {
        let log = &self.broker.log;
        assert!(log.is_sorted_by(|a, b| a < b), "seed {seed}: twice, or out of order: {log:?}");
        for (number, fate) in &self.fates {
            let there = log.binary_search(number).is_ok();
            let said = match fate {
                Fate::Appended => there,
                Fate::Absent => !there,
                Fate::Unknown => true,
            };
            assert!(said, "seed {seed}: batch {number} is said to be {fate:?}; there: {there}");
        }
    }
}

#[test]
fn each_batch_is_appended_once_and_in_order_whatever_fails() {
    let (mut sent, mut unknown, mut absent, mut epochs) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        // What is still on its way comes, or expires.
        world.accumulator.flush();
        for _ in 0..60 {
            world.dispatch();
            while world.connections.iter().any(|wire| !wire.is_empty()) {
                world.deliver();
            }
            while !world.answers.is_empty() {
                world.hear();
            }
            world.now += Duration::from_millis(50);
            world.expire();
        }
        assert!(
            world.in_flight.is_empty() && world.accumulator.flush().is_empty(),
            "seed {seed}: all is settled"
        );
        world.judge(seed);
        sent += world.sent;
        unknown += world.fates.values().filter(|fate| **fate == Fate::Unknown).count();
        absent += world.fates.values().filter(|fate| **fate == Fate::Absent).count();
        epochs += world.broker.producer.map_or(0, |(epoch, ..)| epoch);
    }
    // It has seen all there is to see.
    assert!(
        sent > 10_000 && unknown > 100 && absent > 100 && epochs > 100,
        "{sent} {unknown} {absent} {epochs}"
    );
}
