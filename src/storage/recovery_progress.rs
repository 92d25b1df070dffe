//! How far the opening of logs has come: told in the log of events while it takes long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the progress is told, and how long one log may take before it gets a line of its own.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);

/// Counters of one call that opens logs.
#[derive(Debug)]
pub(super) struct RecoveryProgress {
    logs: u64,
    opened_logs: AtomicU64,
    /// Of the logs that have been begun.
    bytes: AtomicU64,
    scanned_bytes: AtomicU64,
    began: Instant,
}

impl RecoveryProgress {
    /// So many logs are to be opened.
    pub(super) fn new(logs: usize) -> Self {
        Self {
            logs: logs as u64,
            opened_logs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            scanned_bytes: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// So many bytes more have to be scanned.
    pub(super) fn begin(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of them have been.
    pub(super) fn advance(&self, bytes: u64) {
        self.scanned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One log more is open, or cannot be.
    pub(super) fn opened(&self) {
        self.opened_logs.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells how far it is, every so often until the sender of `ended` is gone.
    pub(super) fn tell(&self, ended: &Receiver<()>, every: Duration) {
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            tracing::info!(
                partitions = format_args!("{} of {}", self.opened_logs.load(Ordering::Relaxed), self.logs),
                scanned_mib = format_args!("{} of {}", mib(&self.scanned_bytes), mib(&self.bytes)),
                "opening partitions"
            );
        }
    }

    /// Tells how long it took, if anything had to be scanned.
    pub(super) fn tell_end(&self) {
        if self.bytes.load(Ordering::Relaxed) > 0 {
            let took_ms = self.began.elapsed().as_millis() as u64;
            tracing::info!(
                partitions = self.logs,
                scanned_mib = mib(&self.scanned_bytes),
                took_ms,
                "opened partitions"
            );
        }
    }
}

fn mib(bytes: &AtomicU64) -> u64 {
    bytes.load(Ordering::Relaxed) >> 20
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read, pipe};
    use std::sync::mpsc::channel;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    struct Lines(Mutex<PipeWriter>);

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = PipeWriter;

        fn make_writer(&'a self) -> PipeWriter {
            self.0.lock().try_clone().unwrap()
        }
    }

    #[test]
    fn what_takes_long_is_told_until_it_ends() {
        let (mut read, write) = pipe().unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(Lines(Mutex::new(write))).finish();
        let progress = RecoveryProgress::new(7);
        progress.begin(5 << 20);
        progress.advance(3 << 20);
        progress.opened();
        let (running, ended) = channel();
        std::thread::scope(|scope| {
            let progress = &progress;
            scope.spawn(move || {
                tracing::subscriber::with_default(subscriber, || {
                    progress.tell(&ended, Duration::from_millis(1));
                });
            });
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                let mut byte = [0];
                read.read_exact(&mut byte).unwrap();
                line.extend(byte);
            }
            let line = String::from_utf8(line).unwrap();
            assert!(line.contains("partitions=1 of 7 scanned_mib=3 of 5"), "{line}");
            // Whoever opens the logs has done: the telling ends too, and with it this test.
            drop(running);
            let mut rest = Vec::new();
            read.read_to_end(&mut rest).unwrap();
        });
    }
}
