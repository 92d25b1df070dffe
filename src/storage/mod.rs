//! The log on the disk: segments, indexes, group commit, recovery.
//!
//! The broker opens one [`Store`] for its data directory, and through it a [`LogHandle`] for each partition. This
//! layer knows batches and offsets, files and threads; it knows nothing of topics' meaning, of networks, or of tokio.
//!
//! # The way of an append
//!
//! [`LogHandle::append`] hands a batch to the writer thread that owns the log ([`writer`]). It gives the batch its
//! offset and gathers it with what else has arrived ([`log`]), writes the group with one call, and passes it on to the
//! syncing thread, which makes all waiting groups durable together ([`syncer`]), publishes them to readers
//! ([`log_view`], [`tail_cache`]) and acknowledges. With `durability = os` the sync is left out before, and done later.
//!
//! # The way of a read
//!
//! [`LogHandle::read_now`] answers from memory: what was appended last ([`tail_cache`]), or what follows on an earlier
//! read ([`read_ends`]) and is in the page cache. Anything else, [`LogHandle::read`] finds by the index of its
//! [`segment`], checks ([`segment_reader`]) and lends out of the map ([`mmap`]) without a copy; whether it was all there,
//! its [`Lease`] tells once it has been copied.
//!
//! # Looking inside
//!
//! [`verify`] checks a whole directory that no store has open, and changes nothing; [`dump`] shows what a file holds.
//! Both read the formats through their owners, and go past damage in a log as recovery does ([`scan`]).
//!
//! # Files
//!
//! ```text
//! .lock                           held while the directory is open                       data_dir
//! meta.toml                       format version, cluster id, broker id                  data_dir
//! checkpoint, checkpoint.old      recovery point and start of each log, the clean mark   checkpoint
//! durable                         a lower bound of each log's durable offset             durable
//! reserve                         room for when the disk is full                         room
//! <topic>-<partition>/
//!   topic-id                      whose directory it is                                  identity
//!   <base offset>.log             batches                                                segment
//!   <base offset>.index           offset index                                           index
//!   <base offset>.timeindex       time index                                             index
//!   <base offset>.<n>.torn        what recovery cut off                                  torn
//!   <offset>.snapshot             the idempotent producers at that offset                producer_snapshot
//!   leader-epochs                 from which offset on an epoch holds                    epochs
//!   seals                         the manifest: sealed segments and their checksums      seals
//! .deleted/                       logs on their way out                                  data_dir
//! .set-aside/                     directories that no topic knows                        data_dir
//! ```

mod block_scan;
mod checkpoint;
mod checkpointer;
mod crew;
mod damage;
mod data_dir;
pub mod dump;
mod durable;
mod epochs;
pub mod fs;
#[doc(hidden)]
pub mod fuzzing;
mod gap;
mod handle;
mod identity;
mod index;
mod index_repair;
pub mod limits;
mod log;
mod log_dirs;
mod log_file;
mod log_view;
mod lost_epochs;
mod lost_seals;
mod map_table;
pub mod mmap;
mod open_logs;
mod open_segments;
mod page_cache;
mod preallocation;
mod producer_recovery;
mod producer_snapshot;
mod producers;
mod read_ends;
mod recovery;
mod recovery_progress;
mod room;
mod scan;
mod seals;
mod segment;
mod segment_reader;
mod small_file;
mod stats;
mod store;
mod sync_queue;
mod sync_thread;
mod syncer;
mod tail_cache;
#[cfg(test)]
pub(crate) mod tests;
mod torn;
mod types;
mod upkeep;
pub mod verify;
mod writer;
mod written;

pub use data_dir::{FORMAT_VERSION, OpenError};
pub use handle::LogHandle;
pub use mmap::Lease;
pub use producers::ProducerError;
pub use store::Store;
pub use types::{
    AcceptLossError, AcceptedLoss, Append, AppendDone, AppendError, Appended, Done, Durability,
    DurableListener, LogConfig, LogError, LogSpec, LogState, LogStatus, OpenLogError, ReadBatches, ReadError,
    StorageStats, TimestampedOffset,
};
