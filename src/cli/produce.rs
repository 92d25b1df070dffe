//! `sagwan produce`: appends lines to a topic, one record a line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::FutureExt as _;
use indicatif::ProgressBar;

use super::failure::Failure;
use super::{format, input, lines, output, progress};
use crate::client::{
    Client, Codec, Delivery, Error, Header, Offset, PartitionId, Producer, ProducerConfig, ProducerRecord,
    TopicInfo, TopicName, TopicPartition,
};
use crate::record::{HEADER_BYTES, MIN_RECORD_BYTES};

/// Larger batches than a program's: lines come in bulk, and a sync of the broker is worth one batch a partition.
const BATCH_BYTES: usize = 512 << 10;
/// Records that were sent and not yet looked after.
const MAX_OUTSTANDING: usize = 256 << 10;
/// Trouble that lasts so long is told.
const TROUBLE_AFTER: Duration = Duration::from_secs(2);
/// ... and told again after this time.
const TROUBLE_AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether there is any.
const TROUBLE_LOOK: Duration = Duration::from_millis(500);

/// What to append, and where.
#[derive(Debug, Args)]
#[command(after_help = "\
Lines are bytes: all but the newline is kept, a carriage return too. An empty line is a
record with an empty value. A last line without a newline is a record as well; read back,
it has one. At the first failure it stops, and says how many records were acknowledged. So it
does at Ctrl-C, once what it has read is appended; a second one does not wait for that. What may
pass, such as a full disk or a broker that is started again, is told on standard error and tried
again for two minutes; a line is appended once, however often it had to be sent.

Examples:
  sagwan produce logs /var/log/syslog
  journalctl -f | sagwan produce journal --compression zstd
  printf 'k1\\tv1\\nk2\\tv2\\n' | sagwan produce orders --key-separator '\\t'
  echo 42 | sagwan produce counter --partition 0 --expected-offset 41")]
pub(super) struct ProduceArgs {
    /// The topic; the broker creates it if it is not there, and may
    #[arg(value_parser = input::topic)]
    topic: TopicName,
    /// The file to read; standard input if not given, or -
    file: Option<PathBuf>,
    /// What stands between key and value in a line; \t and \n are understood. Without it, lines are values
    #[arg(long, value_name = "SEP", value_parser = separator, allow_hyphen_values = true)]
    key_separator: Option<Separator>,
    /// The partition; by key if not given, or all in turn
    #[arg(long, value_name = "N", value_parser = input::partition, allow_hyphen_values = true)]
    partition: Option<PartitionId>,
    /// A header for every record; may be given several times
    #[arg(long = "header", value_name = "K=V", value_parser = input::pair)]
    headers: Vec<(String, String)>,
    /// Append all lines as one batch, and only if the first one gets this offset; else tell the next one, and fail
    #[arg(long, value_name = "N", value_parser = input::offset, allow_hyphen_values = true, requires = "partition", conflicts_with = "compression")]
    expected_offset: Option<Offset>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Snappy => Self::Snappy,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

#[derive(Debug, Clone)]
struct Separator(Bytes);

fn separator(text: &str) -> Result<Separator, String> {
    match format::unescape(text)? {
        empty if empty.is_empty() => Err("a separator cannot be empty".to_owned()),
        bytes => Ok(Separator(bytes.into())),
    }
}

pub(super) async fn run(args: ProduceArgs, client: &Client) -> Result<(), Failure> {
    let (blocks, total) = match args.file.as_ref().filter(|file| file.as_os_str() != "-") {
        Some(path) => {
            let unreadable = |error| Failure::io(format!("cannot read {}", path.display()), error);
            let file = File::open(path).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            (lines::read(file), Some(size))
        }
        None => (lines::read(std::io::stdin()), None),
    };
    let producer = client.producer(ProducerConfig {
        compression: args.compression.into(),
        batch_bytes: BATCH_BYTES,
        ..ProducerConfig::default()
    })?;
    let mut run = Run {
        producer: producer.clone(),
        template: template(&args),
        separator: args.key_separator,
        outstanding: VecDeque::new(),
        lines: 0,
        acknowledged: 0,
        bytes: 0,
        started: Instant::now(),
    };
    let condition = args.partition.zip(args.expected_offset);
    if let Some((partition, expected)) = condition {
        let place = TopicPartition::new(args.topic, partition);
        run.all_at(client, &place, expected, blocks).await?;
        eprintln!("{}", run.summary());
        return Ok(());
    }
    let bar = progress::bytes(total);
    let done = tokio::select! {
        done = run.all(blocks, &bar) => done,
        never = tell_troubles(&producer, &bar) => match never {},
    };
    bar.finish_and_clear();
    run.count_acknowledged();
    eprintln!("{}", run.summary());
    done
}

/// Tells what the producer keeps trying again, before it gives up.
async fn tell_troubles(producer: &Producer, bar: &ProgressBar) -> Infallible {
    let mut told: Option<Instant> = None;
    loop {
        tokio::time::sleep(TROUBLE_LOOK).await;
        let Some(trouble) = producer.trouble().filter(|trouble| trouble.lasting >= TROUBLE_AFTER) else {
            continue;
        };
        if told.is_none_or(|told| told.elapsed() >= TROUBLE_AGAIN) {
            told = Some(Instant::now());
            let seconds = trouble.lasting.as_secs();
            let reason = Failure::from(trouble.error);
            bar.suspend(|| eprintln!("nothing acknowledged for {seconds} s, trying again: {reason}"));
        }
    }
}

/// What one batch for the topic may have before the broker packs it; it may still find it too large.
fn most_bytes_at_once(topic: &TopicInfo) -> u64 {
    let is_packed = topic.config("compression").is_some_and(|codec| !["producer", "none"].contains(&codec));
    let max_message_bytes = topic.config("max_message_bytes").and_then(|max| max.parse().ok());
    // Packed, it may be within the limit all the same.
    max_message_bytes.filter(|_| !is_packed).unwrap_or(lines::MAX_LINE_BYTES as u64)
}

/// What all records have in common.
fn template(args: &ProduceArgs) -> ProducerRecord {
    let header =
        |(key, value): &(String, String)| Header { key: key.clone(), value: Some(value.clone().into()) };
    ProducerRecord {
        partition: args.partition,
        headers: args.headers.iter().map(header).collect(),
        ..ProducerRecord::new(args.topic.clone())
    }
}

/// One run over one input.
struct Run {
    producer: Producer,
    template: ProducerRecord,
    separator: Option<Separator>,
    /// In the order of the lines.
    outstanding: VecDeque<Delivery>,
    /// Sent so far.
    lines: u64,
    acknowledged: u64,
    bytes: u64,
    started: Instant,
}

impl Run {
    /// Sends every line and waits for the acknowledgements; ends with the first failure. Interrupted, it reads no
    /// further and still waits for those of what it has sent; interrupted again, it waits no longer.
    async fn all(
        &mut self,
        blocks: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let interrupted = tokio::select! {
            sent = self.send(blocks, bar) => sent.map(|()| false)?,
            _ = tokio::signal::ctrl_c() => true,
        };
        tokio::select! {
            settled = self.finish() => settled?,
            _ = tokio::signal::ctrl_c() => {
                return Err(Failure::Failed("interrupted; more than that may have been appended".to_owned()));
            }
        }
        if interrupted {
            return Err(Failure::Failed(format!(
                "interrupted after line {}, which was appended",
                self.lines
            )));
        }
        Ok(())
    }

    /// Appends every line in one batch at just this offset, or none.
    async fn all_at(
        &mut self,
        client: &Client,
        place: &TopicPartition,
        expected: Offset,
        mut blocks: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        let (mut records, mut size_bytes, mut most_bytes) = (Vec::new(), HEADER_BYTES as u64, None);
        while let Some(block) = blocks.recv().await {
            let block = block.map_err(|error| Failure::io("cannot read the input", error))?;
            let most_bytes = if let Some(most_bytes) = most_bytes {
                most_bytes
            } else {
                let topic = client.admin().describe_or_create_topic(&place.topic).await?;
                *most_bytes.insert(most_bytes_at_once(&topic))
            };
            for line in lines::lines(&block) {
                self.lines += 1;
                let record = self.record(self.lines, line)?;
                let contents = [&record.key, &record.value].into_iter().flatten().map(Bytes::len);
                size_bytes += MIN_RECORD_BYTES + contents.sum::<usize>() as u64;
                if size_bytes > most_bytes {
                    return Err(Failure::Failed(format!(
                        "the input does not fit one batch: with line {} it is larger than the {most_bytes} bytes that topic \
                         {} takes at once; nothing was appended",
                        self.lines, place.topic
                    )));
                }
                records.push(record);
            }
            self.bytes += block.len() as u64;
        }
        if records.is_empty() {
            return Err(Failure::Failed("there is no line to append".to_owned()));
        }
        client.append_at(place, expected, &records).await.map_err(|error| {
            if error.is_outcome_unknown() {
                let at = expected.get();
                Failure::Failed(format!("may or may not have been appended, look at offset {at}: {error}"))
            } else {
                error.into()
            }
        })?;
        self.acknowledged = self.lines;
        Ok(())
    }

    /// Sends every line.
    async fn send(
        &mut self,
        mut blocks: tokio::sync::mpsc::Receiver<std::io::Result<Bytes>>,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        while let Some(block) = blocks.recv().await {
            let block = block.map_err(|error| Failure::io("cannot read the input", error))?;
            for line in lines::lines(&block) {
                let number = self.lines + 1;
                let record = self.record(number, line)?;
                let delivery = self.producer.send(record).await;
                self.outstanding.push_back(delivery.map_err(|error| failed(number, &error))?);
                self.lines = number;
            }
            self.bytes += block.len() as u64;
            bar.inc(block.len() as u64);
            self.settle(MAX_OUTSTANDING).await?;
        }
        Ok(())
    }

    /// Waits for what is outstanding.
    async fn finish(&mut self) -> Result<(), Failure> {
        // Each delivery tells its own failure, with its line.
        let _ = self.producer.flush().await;
        self.settle(0).await
    }

    fn record(&self, number: u64, line: Bytes) -> Result<ProducerRecord, Failure> {
        let mut record = self.template.clone();
        if let Some(Separator(separator)) = &self.separator {
            let at =
                line.windows(separator.len()).position(|window| window == separator).ok_or_else(|| {
                    Failure::Failed(format!(
                        "line {number} has no key separator \"{}\"",
                        separator.escape_ascii()
                    ))
                })?;
            record.key = Some(line.slice(..at));
            record.value = Some(line.slice(at + separator.len()..));
        } else {
            record.value = Some(line);
        }
        Ok(record)
    }

    /// Takes off what is settled, and waits while more than `most` is left; ends with the first failure.
    async fn settle(&mut self, most: usize) -> Result<(), Failure> {
        loop {
            let left = self.outstanding.len();
            let Some(oldest) = self.outstanding.front_mut() else { return Ok(()) };
            let mut settled = (&mut *oldest).now_or_never();
            if settled.is_none() && left > most {
                settled = Some(oldest.await);
            }
            let Some(settled) = settled else { return Ok(()) };
            self.outstanding.pop_front();
            settled.map_err(|error| failed(self.lines - left as u64 + 1, &error))?;
            self.acknowledged += 1;
        }
    }

    /// After a failure, counts what was acknowledged none the less.
    fn count_acknowledged(&mut self) {
        let settled = self.outstanding.drain(..).filter_map(Delivery::now_or_never);
        self.acknowledged += settled.flatten().count() as u64;
    }

    fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-6);
        format!(
            "{} records acknowledged, {} read in {seconds:.2} s: {}/s, {} records/s",
            output::thousands(self.acknowledged),
            output::size(self.bytes),
            output::size((self.bytes as f64 / seconds) as u64),
            output::thousands((self.acknowledged as f64 / seconds) as u64),
        )
    }
}

fn failed(line: u64, error: &Error) -> Failure {
    let fate =
        if error.is_outcome_unknown() { "may or may not have been appended" } else { "was not appended" };
    Failure::Failed(format!("line {line} {fate}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_may_have_escapes_but_must_not_be_empty() {
        assert_eq!(separator(r"\t").map(|Separator(bytes)| bytes), Ok(Bytes::from_static(b"\t")));
        assert!(separator("").is_err());
    }
}
