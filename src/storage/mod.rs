//! The log on the disk: segments, indexes, group commit, recovery.
//!
//! The broker opens one [`Store`] for its data directory, and through it a [`LogHandle`] for each partition. This
//! layer knows batches and offsets, files and threads; it knows nothing of topics' meaning, of networks, or of tokio.
//!
//! # The way of an append
//!
//! [`LogHandle::append`] hands a batch to the writer thread that owns the log ([`threads`]). It gives the batch its
//! offset and gathers it with what else has arrived ([`log`]), writes the group with one call, and passes it on to the
//! syncing thread, which makes all waiting groups durable together ([`syncer`]), publishes them to readers
//! ([`log_view`], [`tail_cache`]) and acknowledges. With `durability = os` the sync is left out before, and done later.
//!
//! # The way of a read
//!
//! [`LogHandle::read_tail`] answers from memory. What is older, [`LogHandle::read`] finds by the index of its
//! [`segment`] and lends out of the map ([`mmap`]) without a copy.
//!
//! # Looking inside
//!
//! [`verify`] checks a whole directory that no store has open, and changes nothing; [`dump`] shows what a file holds.
//! Both read the formats through their owners, and go past damage in a log ([`walk`]).
//!
//! # Files
//!
//! ```text
//! .lock                           held while the directory is open                       data_dir
//! meta.toml                       format version, cluster id, broker id                  data_dir
//! checkpoint, checkpoint.old      recovery point and start of each log, the clean mark   checkpoint
//! durable                         a lower bound of each log's durable offset             durable
//! <topic>-<partition>/
//!   topic-id                      whose directory it is                                  identity
//!   <base offset>.log             batches                                                segment
//!   <base offset>.index           offset index                                           index
//!   <base offset>.timeindex       time index                                             index
//!   <base offset>.torn            what recovery cut off                                  recovery
//!   leader-epochs                 from which offset on an epoch holds                    epochs
//!   seals                         the manifest: sealed segments and their checksums      seals
//! .deleted/                       logs on their way out                                  data_dir
//! .set-aside/                     directories that no topic knows                        data_dir
//! ```

mod checkpoint;
mod checkpointer;
mod crew;
mod data_dir;
pub mod dump;
mod durable;
mod epochs;
pub mod fs;
mod handle;
mod identity;
mod index;
mod log;
mod log_file;
mod log_view;
pub mod mmap;
mod open_segments;
mod recovery;
mod scan;
mod seals;
mod segment;
mod small_file;
mod stats;
mod store;
mod syncer;
mod tail_cache;
#[cfg(test)]
mod tests;
mod threads;
mod types;
mod upkeep;
pub mod verify;
mod walk;

pub use data_dir::{FORMAT_VERSION, OpenError};
pub use handle::LogHandle;
pub use store::Store;
pub use types::{
    Append, AppendDone, AppendError, Appended, Done, Durability, DurableListener, LogConfig, LogError,
    LogSpec, LogState, LogStatus, OpenLogError, ReadBatches, ReadError, StorageStats, TimestampedOffset,
};
