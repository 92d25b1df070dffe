//! Sagwan: a Kafka-style partitioned commit-log server.
//!
//! This page is the map of the house. The binary `sagwan` is [`cli::main`]; a broker inside another program is
//! [`server::Server`]; a client is [`client::Client`].
//!
//! # Layers
//!
//! A module imports from its own layer's inside and from below, never from above; `storage-tests/tests/architecture`
//! holds the house to it.
//!
//! ```text
//! L6  server, cli          wiring: a whole broker; one file a subcommand
//! L5  api::grpc            the edge: wire types are translated here and nowhere else
//! L4  group                committed offsets of consumer groups, in __consumer_offsets
//! L3  broker               topics and partitions, produce, fetch, waiting readers, the catalogue
//! L2  storage              segments, indexes, group commit, recovery. Files and threads, no tokio
//! L1  record               the record batch format: pure functions over bytes
//! L0  types clock config   words and limits; time as a parameter; one settings struct a layer
//! --  client               an island: sees types, record and proto, and is seen by the command line
//! --  proto                what the build script makes of proto/
//! ```
//!
//! # The way of a produce
//!
//! 1. [`api::grpc`] takes a request off its connection, checks what it says and hands it to the broker. On a stream,
//!    requests are started one after the other, which keeps their order, and answered as each is done.
//! 2. [`broker`] finds the partition, checks the batch ([`record::validate`]) or builds one of the records, gives it the
//!    topic's codec and timestamps, and waits for room in its queue: that is the back-pressure.
//! 3. [`storage::LogHandle::append`] sends it to the writer thread that owns the log. The writer looks whether its
//!    producer has sent it before (`storage::producers`) and whether it comes at the expected offset, gives it its
//!    offset, gathers what else has come, and writes the group with one call.
//! 4. The syncing thread makes the groups of all writers durable together, moves the durable offset, and completes
//!    the acknowledgements. With `durability = os` the writer does the last two itself and the sync comes later.
//! 5. The broker's high watermark follows the durable offset and wakes the readers that wait for it; the edge answers.
//!
//! # The way of a fetch
//!
//! 1. [`api::grpc`] turns positions into offsets through the broker, once.
//! 2. [`broker`] asks the log's tail cache: what was appended last is in memory. Anything older is found by the offset
//!    index of its segment and lent out of the map without a copy. What is not in memory is read on a blocking thread; by
//!    who takes much at a time, the first time past the page cache, into memory of the broker's own.
//! 3. At the end of the log the reader waits for the high watermark; nothing polls.
//! 4. The edge sends the batches as they are stored, or decodes them into records. The transport's copy is the first of
//!    what comes from a map, and is discarded if a page of it could not be had.
//!
//! # Tasks and threads
//!
//! ```text
//! log-writer-N    storage.writer_threads of them; each owns its logs and alone changes them
//! log-syncer      syncs groups, publishes, acknowledges
//! log-upkeep      seals segments, writes checkpoints, deletes
//! tokio workers   connections and calls; never wait for the disk (`grpc.threads`)
//! tokio blocking  cold reads, costly (de)compression, changes of topics, opening and closing
//! ```
//!
//! # Files
//!
//! What a data directory holds is told in [`storage`]; besides, `catalogue` is [`broker`]'s: the topics there are, and
//! the producer ids that have been set aside.

pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod group;
pub mod proto;
pub mod record;
pub mod server;
pub mod storage;
pub mod types;

/// The README's Rust is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
