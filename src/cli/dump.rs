//! `sagwan dump`: shows what a file of a data directory holds.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::format::Blob;
use super::output::{self, Output, OutputArgs, table};
use crate::broker::verify::{self as broker, CatalogueContent};
use crate::config::BrokerConfig;
use crate::record::{BatchError, BatchView, RecordView, TimestampType};
use crate::storage::dump::{self, Content, Dump, DumpError, IndexDump, IndexRow, LogDump, LogPiece};

/// Which file.
#[derive(Debug, Args)]
#[command(after_help = "\
What the file is, its name tells: a segment (00000000000000000000.log, or .1.torn, what a
recovery cut off), its .index and .timeindex, a .snapshot of producers, checkpoint, durable,
catalogue, meta.toml, and in a partition's directory seals, leader-epochs and topic-id; each
also as .old. A broker may run meanwhile: what it is just writing may then look damaged.

Of segments and indexes, --output json prints one object a line, of the others one document.
Bytes that are not UTF-8 are written as {\"base64\": \"...\"}. What cannot be read is told in its
place, the dump goes on with what can be read after it, and the exit code is 1.

Examples:
  sagwan dump data/orders-0/00000000000000000000.log
  sagwan dump data/orders-0/00000000000000000000.log --records --output json
  sagwan dump data/checkpoint")]
pub(super) struct DumpArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Of a segment: the records of each batch, too
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &DumpArgs) -> Result<(), Failure> {
    let path = &args.file;
    let output = args.output.output;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let opened = if dump::plain_name(&name) == broker::CATALOGUE_FILE {
        Opened::Catalogue(broker::read_catalogue_file(path)?)
    } else {
        let unknown = || {
            let path = path.display();
            Failure::CannotRun(format!(
                "{path} has no name of a file that can be shown; see `sagwan dump --help`"
            ))
        };
        Opened::Stored(dump::open(path)?.ok_or_else(unknown)?)
    };
    if args.records && !matches!(opened, Opened::Stored(Dump::Log(_))) {
        let path = path.display();
        return Err(Failure::CannotRun(format!("{path} has no records: --records is for segments")));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let told = match opened {
        Opened::Catalogue(catalogue) => return output::print(output, &catalogue, catalogue_text),
        Opened::Stored(Dump::Whole(content)) => return output::print(output, &content, content_text),
        Opened::Stored(Dump::Log(log)) => {
            let printer = LogPrinter { out: &mut out, output, records: args.records, scratch: Vec::new() };
            printer.run(log)
        }
        Opened::Stored(Dump::Index(index)) => print_index(args, index, &mut out),
    };
    let faults = told?;
    out.flush().map_err(Failure::stdout)?;
    match faults {
        0 => Ok(()),
        1 => Err(Failure::Failed(format!("{}: 1 place cannot be read", path.display()))),
        faults => Err(Failure::Failed(format!("{}: {faults} places cannot be read", path.display()))),
    }
}

/// A file, by who knows its format.
enum Opened {
    Stored(Dump),
    Catalogue(CatalogueContent),
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Prints the entries of an index; returns how many places could not be read.
fn print_index(args: &DumpArgs, mut index: IndexDump, out: &mut impl Write) -> Result<u64, Failure> {
    let output = args.output.output;
    if output == Output::Table {
        let header = if index.is_by_time() { ["TIMESTAMP", "OFFSET"] } else { ["OFFSET", "POSITION"] };
        writeln!(out, "{:>20} {:>20} {:>16}", header[0], header[1], "RELATIVE OFFSET")
            .map_err(Failure::stdout)?;
    }
    let read = |error| Failure::io(format!("cannot read {}", args.file.display()), error);
    while let Some(row) = index.next_row().map_err(read)? {
        match (output, row) {
            (Output::Json, row) => json_line(out, &row),
            (Output::Table, IndexRow::Offset { offset, relative_offset, position }) => {
                writeln!(out, "{offset:>20} {position:>20} {relative_offset:>16}")
            }
            (Output::Table, IndexRow::Time { timestamp_ms, offset, relative_offset }) => {
                writeln!(out, "{timestamp_ms:>20} {offset:>20} {relative_offset:>16}")
            }
        }
        .map_err(Failure::stdout)?;
    }
    let bytes = index.trailing_bytes();
    if bytes == 0 {
        return Ok(0);
    }
    match output {
        Output::Json => json_line(out, &json!({"type": "unreadable", "trailing_bytes": bytes})),
        Output::Table => writeln!(out, "UNREADABLE: {bytes} bytes behind the last entry"),
    }
    .map_err(Failure::stdout)?;
    Ok(1)
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Prints the batches of a segment.
struct LogPrinter<'a, W> {
    out: &'a mut W,
    output: Output,
    records: bool,
    scratch: Vec<u8>,
}

impl<W: Write> LogPrinter<'_, W> {
    /// Returns how many places could not be read.
    fn run(mut self, mut log: LogDump) -> Result<u64, Failure> {
        let mut faults = 0;
        if self.output == Output::Table {
            writeln!(self.out, "{}", batch_header()).map_err(Failure::stdout)?;
        }
        loop {
            let piece = log.next_piece().map_err(|error| Failure::io("cannot read the file", error))?;
            let printed = match piece {
                None => return Ok(faults),
                Some(LogPiece::Batch { position, batch, fault }) => {
                    faults += u64::from(fault.is_some());
                    self.batch(position, &batch, fault.as_deref()).and_then(|()| {
                        let wrong = if self.records { self.print_records(&batch)? } else { None };
                        // A batch that is known to be damaged counts once.
                        faults += u64::from(wrong.is_some() && fault.is_none());
                        match wrong {
                            Some(error) => self.no_records(&error),
                            None => Ok(()),
                        }
                    })
                }
                Some(LogPiece::Unreadable { bytes, detail, resumes }) => {
                    faults += 1;
                    let resumes = resumes.map(crate::types::Offset::get);
                    match self.output {
                        Output::Json => json_line(
                            self.out,
                            &json!({"type": "unreadable", "position": bytes.start, "end": bytes.end,
                                "detail": detail, "resumes_at_offset": resumes}),
                        ),
                        Output::Table => {
                            let goes_on = resumes.map_or_else(
                                || "no batch was found after that".to_owned(),
                                |offset| format!("the next batch begins with offset {offset}"),
                            );
                            writeln!(
                                self.out,
                                "{:>12} UNREADABLE up to byte {}: {detail}; {goes_on}",
                                bytes.start, bytes.end
                            )
                        }
                    }
                }
            };
            printed.map_err(Failure::stdout)?;
        }
    }

    fn batch(&mut self, position: u64, batch: &BatchView<'_>, fault: Option<&str>) -> io::Result<()> {
        match self.output {
            Output::Table => writeln!(self.out, "{}", batch_text(position, batch, fault)),
            Output::Json => json_line(self.out, &BatchRow::new(position, batch, fault)),
        }
    }

    /// Prints records, until one cannot be read.
    fn print_records(&mut self, batch: &BatchView<'_>) -> io::Result<Option<BatchError>> {
        let cap = BrokerConfig::default().max_decompressed_bytes;
        let records = match batch.records(&mut self.scratch, cap) {
            Ok(records) => records,
            Err(error) => return Ok(Some(error)),
        };
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Ok(Some(error)),
            };
            let row = RecordRow::new(&record);
            match self.output {
                Output::Json => json_line(self.out, &row)?,
                Output::Table => {
                    let json = |blob: &Option<Blob<'_>>| serde_json::to_string(blob);
                    let headers = serde_json::to_string(&row.headers)?;
                    let (key, value) = (json(&row.key)?, json(&row.value)?);
                    writeln!(
                        self.out,
                        "{:>12} offset {} timestamp {} key {key} value {value} headers {headers}",
                        "", row.offset, row.timestamp_ms
                    )?;
                }
            }
        }
        Ok(None)
    }

    fn no_records(&mut self, error: &BatchError) -> io::Result<()> {
        match self.output {
            Output::Json => {
                json_line(self.out, &json!({"type": "unreadable_records", "detail": error.to_string()}))
            }
            Output::Table => writeln!(self.out, "{:>12} UNREADABLE records: {error}", ""),
        }
    }
}

/// A batch as a line of JSON.
#[derive(Serialize)]
struct BatchRow<'a> {
    r#type: &'static str,
    position: u64,
    size_bytes: usize,
    base_offset: i64,
    last_offset: i64,
    record_count: i32,
    codec: String,
    leader_epoch: i32,
    timestamp_type: &'static str,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    attributes: i16,
    crc: u32,
    crc_ok: bool,
    fault: Option<&'a str>,
}

impl<'a> BatchRow<'a> {
    fn new(position: u64, batch: &BatchView<'_>, fault: Option<&'a str>) -> Self {
        let attributes = batch.attributes();
        let codec = attributes.codec();
        Self {
            r#type: "batch",
            position,
            size_bytes: batch.size_bytes(),
            base_offset: batch.base_offset().get(),
            last_offset: batch.last_offset().get(),
            record_count: batch.record_count(),
            codec: codec.map_or_else(|| attributes.codec_id().to_string(), |codec| codec.name().to_owned()),
            leader_epoch: batch.leader_epoch().0,
            timestamp_type: match attributes.timestamp_type() {
                TimestampType::CreateTime => "create",
                TimestampType::LogAppendTime => "append",
            },
            base_timestamp_ms: batch.base_timestamp(),
            max_timestamp_ms: batch.max_timestamp(),
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            transactional: attributes.is_transactional(),
            control: attributes.is_control(),
            attributes: attributes.0,
            crc: batch.crc(),
            crc_ok: batch.crc_is_valid(),
            fault,
        }
    }
}

fn batch_header() -> String {
    format!(
        "{:>12} {:>24} {:>8} {:>10} {:<6} {:>5} {:>29} {:>22} {:<10} CRC",
        "POSITION", "OFFSETS", "RECORDS", "BYTES", "CODEC", "EPOCH", "TIMESTAMPS", "PRODUCER", "ATTRIBUTES"
    )
}

fn batch_text(position: u64, batch: &BatchView<'_>, fault: Option<&str>) -> String {
    let row = BatchRow::new(position, batch, fault);
    let producer = match row.producer_id {
        -1 => "-".to_owned(),
        id => format!("{id}/{}/{}", row.producer_epoch, row.base_sequence),
    };
    let verdict = if row.crc_ok { "ok" } else { "WRONG" };
    let fault = row.fault.map_or_else(String::new, |fault| format!("; {fault}"));
    format!(
        "{:>12} {:>24} {:>8} {:>10} {:<6} {:>5} {:>29} {:>22} {:<10} {:#010x} {verdict}{fault}",
        row.position,
        format!("{}-{}", row.base_offset, row.last_offset),
        row.record_count,
        row.size_bytes,
        row.codec,
        row.leader_epoch,
        format!("{}-{}", row.base_timestamp_ms, row.max_timestamp_ms),
        producer,
        format!("{:#06x}", row.attributes),
        row.crc,
    )
}

/// A record as a line of JSON; the names are those of `consume`.
#[derive(Serialize)]
struct RecordRow<'a> {
    r#type: &'static str,
    offset: i64,
    timestamp_ms: i64,
    key: Option<Blob<'a>>,
    value: Option<Blob<'a>>,
    headers: Vec<HeaderRow<'a>>,
}

#[derive(Serialize)]
struct HeaderRow<'a> {
    key: &'a str,
    value: Option<Blob<'a>>,
}

impl<'a> RecordRow<'a> {
    fn new(record: &RecordView<'a>) -> Self {
        let headers = record.headers().map(|(key, value)| HeaderRow { key, value: value.map(Blob) });
        Self {
            r#type: "record",
            offset: record.offset.get(),
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Blob),
            value: record.value.map(Blob),
            headers: headers.collect(),
        }
    }
}

fn catalogue_text(catalogue: &CatalogueContent) -> String {
    let topics = catalogue.topics.iter().map(|topic| {
        let settings: Vec<_> = topic.config.iter().map(|(name, value)| format!("{name}={value}")).collect();
        [topic.name.clone(), topic.id.clone(), topic.partitions.to_string(), settings.join(" ")]
    });
    let topics = table(["TOPIC", "ID", "PARTITIONS", "SETTINGS"], topics);
    let topics = format!("the next producer id is {}\n\n{topics}", catalogue.next_producer_id);
    if catalogue.deletions.is_empty() {
        return topics;
    }
    let deletions = catalogue.deletions.iter();
    let deletions = deletions.map(|one| [one.name.clone(), one.id.clone(), one.partitions.to_string()]);
    format!("{topics}\n\n{}", table(["BEING DELETED", "ID", "PARTITIONS"], deletions))
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn content_text(content: &Content) -> String {
    match content {
        Content::Checkpoint { clean, leader_epoch, logs } => {
            let header = [
                "TOPIC ID",
                "PARTITION",
                "LOG START",
                "RECOVERY POINT",
                "SEGMENT",
                "POSITION",
                "INDEX",
                "TIME INDEX",
                "LARGEST TIMESTAMP",
                "PRODUCERS AT",
            ];
            let logs = logs.iter().map(|log| {
                [
                    log.topic_id.clone(),
                    log.partition.to_string(),
                    log.log_start_offset.to_string(),
                    log.recovery_point.to_string(),
                    log.segment.to_string(),
                    log.position.to_string(),
                    log.index_entries.to_string(),
                    log.time_entries.to_string(),
                    or_dash(log.max_timestamp_ms),
                    or_dash(log.producer_snapshot),
                ]
            });
            let end = if *clean { "the run ended in an orderly way" } else { "the run has not ended" };
            format!("{end}; leader epoch {leader_epoch}\n\n{}", table(header, logs))
        }
        Content::Durable { slots } => {
            let slots = slots.iter().map(|slot| {
                let number = slot.slot.to_string();
                if let Some(log) = &slot.log {
                    let (partition, durable) = (log.partition.to_string(), log.durable_offset.to_string());
                    return [number, log.topic_id.clone(), partition, durable];
                }
                let state = if slot.torn { "torn" } else { "free" };
                [number, state.to_owned(), String::new(), String::new()]
            });
            table(["SLOT", "TOPIC ID", "PARTITION", "DURABLE OFFSET"], slots)
        }
        Content::Seals { first, segments } => {
            let header = [
                "BASE OFFSET",
                "NEXT OFFSET",
                "BYTES",
                "LARGEST TIMESTAMP",
                "INDEX",
                "TIME INDEX",
                "BLOCK CRCS",
            ];
            let segments = segments.iter().map(|segment| {
                let crcs: Vec<_> = segment.block_crcs.iter().map(|crc| format!("{crc:08x}")).collect();
                [
                    segment.base_offset.to_string(),
                    segment.next_offset.to_string(),
                    segment.size_bytes.to_string(),
                    or_dash(segment.max_timestamp_ms),
                    segment.index_entries.to_string(),
                    segment.time_entries.to_string(),
                    crcs.join(" "),
                ]
            });
            format!("the first segment that counts begins with offset {first}\n\n{}", table(header, segments))
        }
        Content::LeaderEpochs { epochs } => {
            let epochs =
                epochs.iter().map(|one| [one.leader_epoch.to_string(), one.start_offset.to_string()]);
            table(["LEADER EPOCH", "START OFFSET"], epochs)
        }
        Content::Snapshot { offset, producers } => {
            let header = ["PRODUCER ID", "EPOCH", "IDLE MS", "SEQUENCES", "OFFSETS"];
            let rows = producers.iter().flat_map(|producer| {
                producer.batches.iter().map(|batch| {
                    [
                        producer.producer_id.to_string(),
                        producer.epoch.to_string(),
                        producer.idle_ms.to_string(),
                        format!("{}-{}", batch.base_sequence, batch.last_sequence),
                        format!("{}-{}", batch.base_offset, batch.last_offset),
                    ]
                })
            });
            format!("the producers at offset {offset}\n\n{}", table(header, rows))
        }
        Content::TopicId { topic_id, partition } => format!("topic id {topic_id}, partition {partition}"),
        Content::Meta { format_version, cluster_id, broker_id } => {
            format!("format version {format_version}, cluster id {cluster_id}, broker id {broker_id}")
        }
    }
}
