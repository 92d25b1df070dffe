//! `sagwan consume`: reads the records of a topic and prints them.

use std::io::{BufWriter, Write};
use std::pin::pin;

use clap::{Args, ValueEnum};
use futures_util::FutureExt as _;

use super::failure::Failure;
use super::format::{self, Format};
use super::{input, progress};
use crate::client::{Client, ConsumedRecord, Consumer, ConsumerConfig, PartitionId, Position, TopicName};

/// Gathered before it is written, as long as more records are at hand.
const BUFFER_BYTES: usize = 256 << 10;
/// Larger responses than a program's: reading is in bulk.
const FETCH_BYTES: usize = 4 << 20;
/// After so many records without a pause it is looked whether to stop, and the bar moves.
const RECORDS_A_LOOK: u64 = 1_024;

/// What to read, and how to print it.
#[derive(Debug, Args)]
#[command(after_help = "\
By default the values are printed as they are, each with a newline; a tombstone leaves an
empty line. Partitions are read side by side: the order is kept within each. One that cannot
be read is told on standard error, and the exit code is then 1; the others are read on.

Directives of --format:
  %t topic   %p partition   %o offset   %k key   %v value   %T timestamp in ms   %h headers
  \\n newline   \\t tab   \\r carriage return   \\0 zero byte   \\\\ backslash   %% percent sign

Examples:
  sagwan consume orders --exit-at-end > orders.txt
  sagwan consume orders --from latest --format '%p %o %k %v\\n'
  sagwan consume orders --from @2026-01-31T12:00:00Z --max-messages 10 --output json")]
pub(super) struct ConsumeArgs {
    /// The topic
    #[arg(value_parser = input::topic)]
    topic: TopicName,
    /// Where to begin: earliest, latest, OFFSET, or @TIMESTAMP (ms since 1970, or like 2026-01-31T12:00:00Z)
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = input::position, allow_hyphen_values = true)]
    from: Position,
    /// The partition to read, instead of all; may be given several times
    #[arg(long = "partition", value_name = "N", value_parser = input::partition, allow_hyphen_values = true)]
    partitions: Vec<PartitionId>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    max_messages: Option<u64>,
    /// Stop at what is the end when it begins, instead of waiting for more
    #[arg(long)]
    exit_at_end: bool,
    /// How a record is written; see below
    #[arg(long, value_parser = Format::parse, conflicts_with = "output", allow_hyphen_values = true)]
    format: Option<Format>,
    /// How records are written
    #[arg(long, value_enum, default_value_t = Output::Values)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Their values, one a line
    Values,
    /// One JSON object a line; bytes that are not UTF-8 as {"base64": "..."}
    Json,
}

/// How a record is written.
enum Writer {
    Format(Format),
    Json,
}

impl Writer {
    fn write(&self, record: &ConsumedRecord, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Format(format) => format.write(record, out),
            Self::Json => format::write_json(record, out),
        }
    }
}

pub(super) async fn run(args: ConsumeArgs, client: &Client) -> Result<(), Failure> {
    let mut config = ConsumerConfig { max_bytes: FETCH_BYTES, ..ConsumerConfig::default() };
    if args.partitions.is_empty() {
        config = config.topic(args.topic, args.from);
    } else {
        for partition in args.partitions {
            config = config.partition(args.topic.clone(), partition, args.from);
        }
    }
    let writer = match (args.output, args.format) {
        (Output::Json, _) => Writer::Json,
        (Output::Values, format) => Writer::Format(format.unwrap_or_else(Format::values)),
    };
    let mut consumer = client.consumer(config).await?;
    let bar = if args.exit_at_end {
        let ends = consumer.end_offsets().await?;
        let to_read = consumer.positions().map(|(partition, position)| {
            ends.get(partition)
                .map_or(0, |end| end.get().saturating_sub(position.get()).max(0).unsigned_abs())
        });
        let bar = progress::records(to_read.sum());
        consumer.stop_at(&ends);
        bar
    } else {
        progress::none()
    };
    let done = print(&mut consumer, &writer, args.max_messages, &bar).await;
    bar.finish_and_clear();
    done
}

/// Prints records until there are no more, there were enough, or somebody interrupts. A partition that fails is told at
/// once and does not end it.
async fn print(
    consumer: &mut Consumer,
    writer: &Writer,
    max_messages: Option<u64>,
    bar: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock());
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut printed = 0_u64;
    let mut done = Ok(());
    while max_messages.is_none_or(|max| printed < max) {
        let mut next = consumer.next().now_or_never();
        if next.is_none() {
            // Nothing at hand: whoever reads along gets what there is.
            out.flush().map_err(Failure::stdout)?;
            tokio::select! {
                record = consumer.next() => next = Some(record),
                _ = &mut interrupt => break,
            }
        }
        let Some(record) = next.flatten() else { break };
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                // What was read before the failure is good.
                out.flush().map_err(Failure::stdout)?;
                let gone = error.is_retriable();
                let failure = Failure::from(error);
                if gone {
                    return Err(failure);
                }
                bar.suspend(|| failure.tell());
                done = Err(Failure::Told);
                continue;
            }
        };
        writer.write(&record, &mut out).map_err(Failure::stdout)?;
        printed += 1;
        if printed.is_multiple_of(RECORDS_A_LOOK) {
            bar.set_position(printed);
            if (&mut interrupt).now_or_never().is_some() {
                break;
            }
        }
    }
    out.flush().map_err(Failure::stdout)?;
    done
}
