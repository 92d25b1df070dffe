//! A consumer of the load: which partitions it reads how far, and what it notes of them. How records come is told by
//! [`stream`] and [`library`].

mod library;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::args::Mode;
use super::course::Course;
use super::gauges::Gauges;
use super::ledger::{Chain, Fault, Reader};
use super::plan::Plan;
use super::topics::Topics;
use crate::cli::failure::Failure;
use crate::client::Client;

/// What was acknowledged in all, once it is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged {
    /// Where partitions end.
    pub(super) ends: Arc<[i64]>,
    /// By producer and partition, where it is to be verified.
    pub(super) chains: Arc<[Vec<Chain>]>,
}

/// What a consumer is for.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Reads what is appended, from the first record to what turns out to be the last.
    Follow(watch::Receiver<Option<Acknowledged>>),
    /// Reads all there is, again and again until the course of the round ends.
    CatchUp(Acknowledged),
    /// Reads all there is, once.
    ReadBack(Acknowledged),
}

/// One consumer, connected, before the round begins.
#[derive(Debug)]
pub(super) struct Consumer {
    plan: Arc<Plan>,
    client: Client,
    topics: Arc<Topics>,
    /// The partitions it reads.
    places: Vec<usize>,
    /// Which of those it is who read the same ones.
    reader: usize,
    task: Task,
}

impl Consumer {
    /// Number `number` of `consumers`.
    pub(super) fn new(
        (number, consumers): (usize, usize),
        plan: &Arc<Plan>,
        client: Client,
        topics: &Arc<Topics>,
        task: Task,
    ) -> Self {
        let places = topics.share(number, consumers);
        let reader = number / topics.len().max(1);
        Self { plan: Arc::clone(plan), client, topics: Arc::clone(topics), places, reader, task }
    }

    /// Reads as its task says. Returns how many records were found to be as they were acknowledged, where that is asked
    /// for.
    ///
    /// # Errors
    /// What cannot be read, or is not what was acknowledged.
    pub(super) async fn run(self, gauges: Arc<Gauges>) -> Result<u64, Failure> {
        let Self { plan, client, topics, places, reader, mut task } = self;
        let mut verified = 0;
        loop {
            let mut pass = Pass::new(&plan, &topics, &places, reader, &task, &gauges);
            if !pass.is_done() {
                match plan.mode {
                    Mode::Client => library::run(&client, &mut pass, &mut task).await?,
                    Mode::Batches | Mode::Records => stream::run(&client, &mut pass, &mut task).await?,
                }
            }
            verified += pass.settle()?;
            let again = matches!(task, Task::CatchUp(_))
                && !pass.broken_off
                && !places.is_empty()
                && gauges.course.admits(gauges.course.now_ns(), 0);
            if !again {
                return Ok(verified);
            }
        }
    }
}

/// Once through the partitions of a consumer.
struct Pass<'a> {
    plan: &'a Plan,
    topics: &'a Topics,
    gauges: &'a Gauges,
    kind: Kind,
    reader: usize,
    marks: Vec<Mark>,
    /// Their places in `marks`, by partition.
    indexes: HashMap<usize, usize>,
    /// How many partitions are not read to their end, or have none so far.
    open: usize,
    acknowledged: Option<Acknowledged>,
    /// The course ended before the pass did.
    broken_off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Follow,
    CatchUp,
    ReadBack,
}

/// How far a partition has been read.
#[derive(Debug)]
struct Mark {
    place: usize,
    next: i64,
    end: Option<i64>,
    /// Under `--verify`.
    ledger: Option<Reader>,
}

impl Mark {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

impl<'a> Pass<'a> {
    fn new(
        plan: &'a Plan,
        topics: &'a Topics,
        places: &[usize],
        reader: usize,
        task: &Task,
        gauges: &'a Gauges,
    ) -> Self {
        let ledger = || plan.verify.then(Reader::default);
        let mark = |&place| Mark { place, next: 0, end: None, ledger: ledger() };
        let marks: Vec<_> = places.iter().map(mark).collect();
        let (kind, acknowledged) = match task {
            Task::Follow(_) => (Kind::Follow, None),
            Task::CatchUp(acknowledged) => (Kind::CatchUp, Some(acknowledged.clone())),
            Task::ReadBack(acknowledged) => (Kind::ReadBack, Some(acknowledged.clone())),
        };
        let mut pass = Self {
            plan,
            topics,
            gauges,
            kind,
            reader,
            open: marks.len(),
            marks,
            indexes: places.iter().enumerate().map(|(index, &place)| (place, index)).collect(),
            acknowledged: None,
            broken_off: false,
        };
        if let Some(acknowledged) = acknowledged {
            pass.learn(acknowledged);
        }
        pass
    }

    /// It is known now where the partitions end.
    fn learn(&mut self, acknowledged: Acknowledged) {
        for mark in &mut self.marks {
            mark.end = Some(acknowledged.ends.get(mark.place).copied().unwrap_or_default());
        }
        self.acknowledged = Some(acknowledged);
        self.open = self.marks.iter().filter(|mark| !mark.is_done()).count();
    }

    fn is_done(&self) -> bool {
        self.open == 0 || self.broken_off
    }

    /// The place in `marks` of a partition.
    fn index(&self, topic: &str, partition: i32) -> Result<usize, Failure> {
        let place = self.topics.number(topic, partition);
        place.and_then(|place| self.indexes.get(&place).copied()).ok_or_else(|| {
            Failure::Failed(format!("the broker sent records of {topic}-{partition}, which nobody asked for"))
        })
    }

    /// What the next record must be.
    ///
    /// # Errors
    /// That it is something else.
    fn check(&mut self, index: usize, offset: i64, value: &[u8]) -> Result<(), Failure> {
        let Some(mark) = self.marks.get_mut(index) else { return Ok(()) };
        let Some(ledger) = &mut mark.ledger else { return Ok(()) };
        ledger.read(offset, value).map_err(|fault| faulty(self.topics, mark.place, &fault))
    }

    /// A partition has been read up to `next`; that was so much more.
    fn read(&mut self, index: usize, next: i64, records: u64, bytes: u64) {
        let Some(mark) = self.marks.get_mut(index) else { return };
        let was_done = mark.is_done();
        mark.next = mark.next.max(next);
        if mark.is_done() && !was_done {
            self.open -= 1;
        }
        if records == 0 {
            return;
        }
        let course: &Course = &self.gauges.course;
        let at_ns = course.now_ns();
        match self.kind {
            Kind::Follow => {
                self.gauges.followed.add(course, at_ns, records, bytes);
                self.gauges.read_to(mark.place, self.reader, next, at_ns);
            }
            Kind::CatchUp => {
                self.gauges.caught_up.add(course, at_ns, records, bytes);
                // Where there are producers too, a total is theirs.
                let counted = if self.plan.workload.produces() { 0 } else { records };
                let over = !course.admits(at_ns, u32::try_from(counted).unwrap_or(u32::MAX));
                // Only what is read to its end can be verified.
                self.broken_off = over && !self.plan.verify;
            }
            Kind::ReadBack => self.gauges.read_back.add(course, at_ns, records, bytes),
        }
    }

    /// At the end of the pass: how many records are as they were acknowledged.
    ///
    /// # Errors
    /// That some are not.
    fn settle(&self) -> Result<u64, Failure> {
        let Some(acknowledged) = self.acknowledged.as_ref().filter(|_| !self.broken_off) else {
            return Ok(0);
        };
        let mut settled = 0;
        for mark in &self.marks {
            let Some(ledger) = &mark.ledger else { continue };
            let of_place =
                |(producer, chains): (usize, &Vec<Chain>)| Some((producer as u32, *chains.get(mark.place)?));
            let chains = acknowledged.chains.iter().enumerate().filter_map(of_place);
            settled += ledger.settle(chains).map_err(|fault| faulty(self.topics, mark.place, &fault))?;
        }
        Ok(settled)
    }
}

fn faulty(topics: &Topics, place: usize, fault: &Fault) -> Failure {
    let place = topics.place(place).map(ToString::to_string).unwrap_or_default();
    Failure::Failed(format!("VERIFICATION FAILED: partition {place}: {fault}"))
}

/// Waits until it is known what was acknowledged; for ever where that was known from the start, or has been told.
async fn outcome(task: &mut Task, known: bool) -> Option<Acknowledged> {
    match task {
        Task::Follow(outcome) if !known => {
            let told = outcome.wait_for(Option::is_some).await.map(|told| told.clone());
            match told {
                Ok(acknowledged) => acknowledged,
                // Nobody will tell any more: the round has failed, and this consumer is about to be dropped.
                Err(_) => std::future::pending().await,
            }
        }
        _ => std::future::pending().await,
    }
}
