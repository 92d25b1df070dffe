//! A reader of what is in memory, beside one that makes the broker read its disk: does it notice?
//!
//! It fetches a little at a time, at a rate, from a topic that is small enough to stay in memory and was read before the
//! course began. Its latencies count from when each fetch should have been sent.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use super::gauges::Gauges;
use super::pacer::Pacer;
use super::plan::{WARM_FETCH_BYTES, WARM_FETCHES_PER_S};
use super::schedule::Schedule;
use super::topics::Topics;
use crate::cli::connection;
use crate::cli::failure::Failure;
use crate::client::{Client, Error};
use crate::proto;

/// A thread of its own for all warm readers: they are programs of their own, which wait for the broker and not for what the
/// cold reader makes of what it has read.
#[derive(Debug)]
pub(super) struct Apart {
    /// Where to spawn what is to run there.
    pub(super) handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Apart {
    /// # Errors
    /// When no thread can be had.
    pub(super) fn new() -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("cannot start a thread", error))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

/// Nothing waits for it: it may be dropped where nothing may block.
impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One reader, connected.
#[derive(Debug)]
pub(super) struct WarmReader {
    number: usize,
    readers: usize,
    client: Client,
    topics: Arc<Topics>,
    ends: Arc<[i64]>,
    pacer: Pacer,
    /// Where the next fetch begins: a partition's number, and an offset.
    at: (usize, i64),
}

impl WarmReader {
    /// Number `number` of `readers`, connected to the broker at `url`, once it has read all that was acknowledged in
    /// `topics`: so that it is in memory.
    ///
    /// # Errors
    /// When no timer can be made; what cannot be read.
    pub(super) async fn warmed_up(
        (number, readers): (usize, usize),
        url: String,
        topics: Arc<Topics>,
        ends: Arc<[i64]>,
    ) -> Result<Self, Failure> {
        let client = connection::connect(&url).await?;
        let pacer = Pacer::new().map_err(|error| Failure::io("cannot make a timer", error))?;
        let mut reader = Self { number, readers, client, topics, ends, pacer, at: (0, 0) };
        reader.fetch().await?;
        while reader.at != (0, 0) {
            reader.fetch().await?;
        }
        Ok(reader)
    }

    /// Fetches at its rate until the course of the round ends.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) async fn run(mut self, gauges: Arc<Gauges>) -> Result<(), Failure> {
        let course = &gauges.course;
        let all_per_s = WARM_FETCHES_PER_S * self.readers as f64;
        let mut schedule = Schedule::at_rate(all_per_s, self.number, self.readers);
        loop {
            let now_ns = course.now_ns();
            let due_ns = schedule.due_ns(now_ns);
            if !course.admits(due_ns.max(now_ns), 0) {
                give_up(&gauges, self.number, &mut schedule, now_ns);
                return Ok(());
            }
            if due_ns > now_ns {
                let waited = self.pacer.wait(now_ns, due_ns).await;
                waited.map_err(|error| Failure::io("cannot set a timer", error))?;
                continue;
            }
            schedule.take();
            let (records, bytes) = self.fetch().await?;
            gauges.warm_read(self.number, due_ns, course.now_ns(), records, bytes);
        }
    }

    /// One fetch; returns how many records and bytes it had.
    async fn fetch(&mut self) -> Result<(u64, u64), Failure> {
        let (number, offset) = self.at;
        let Some(place) = self.topics.place(number) else { return Ok((0, 0)) };
        let position = proto::Position { at: Some(proto::position::At::Offset(offset)) };
        let partition = proto::FetchPartition {
            topic: place.topic.as_str().to_owned(),
            partition: place.partition.get(),
            position: Some(position),
        };
        let request = proto::FetchRequest {
            partitions: vec![partition],
            format: proto::FetchFormat::RecordBatches.into(),
            max_bytes: WARM_FETCH_BYTES,
            ..proto::FetchRequest::default()
        };
        let answered = self.client.log_service().fetch(request).await;
        let response = answered.map_err(|status| self.client.error_of(&status))?.into_inner();
        let data = response.partitions.into_iter().next().unwrap_or_default();
        if let Some(error) = data.error {
            return Err(Error::from_proto(error).into());
        }
        let bytes = data.record_batches.iter().map(|batches| batches.len() as u64).sum();
        if bytes == 0 {
            return Err(Failure::Failed(format!("{place} has nothing at offset {offset}")));
        }
        let end = self.ends.get(number).copied().unwrap_or_default();
        self.at = match data.next_offset {
            next if next < end => (number, next),
            _ => ((number + 1) % self.topics.len().max(1), 0),
        };
        Ok(((data.next_offset - offset).max(0) as u64, bytes))
    }
}

/// The course has ended at `now_ns`: what was due before the end and had to wait for a fetch counts with how long it had
/// waited by now.
fn give_up(gauges: &Gauges, reader: usize, schedule: &mut Schedule, now_ns: u64) {
    let end_ns = gauges.course.closed_ns().min(now_ns);
    while schedule.due_ns(now_ns) < end_ns {
        gauges.warm_gave_up(reader, schedule.due_ns(now_ns), now_ns);
        schedule.take();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::bench::course::Course;
    use crate::cli::bench::meeting::Meetings;
    use crate::cli::bench::plan::Stop;

    const MS: u64 = 1_000_000;

    /// Of a reader whose fetch at 4 ms, one of each millisecond, was answered at 30 ms.
    fn given_up(course: Course) -> (u64, u64) {
        let gauges = Gauges::new(course, Meetings::default());
        let mut schedule = Schedule::at_rate(1_000.0, 0, 1);
        (0..=4).for_each(|_| schedule.take());
        give_up(&gauges, 0, &mut schedule, 30 * MS);
        let latencies = gauges.warm_read.merged();
        (latencies.len(), latencies.max() / MS)
    }

    #[test]
    fn what_was_due_behind_a_fetch_that_outlasts_the_course_counts() {
        assert_eq!(given_up(Course::begin(Duration::ZERO, Stop::After(Duration::from_millis(20)))), (15, 25));
        let total = Course::begin(Duration::ZERO, Stop::Records(5));
        assert!(total.admits(10 * MS, 5));
        assert_eq!(given_up(total), (5, 25), "the total was spent at 10 ms");
    }
}
