//! Opening the logs that earlier runs left behind, several at a time.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use super::super::handle::LogHandle;
use super::super::recovery::{Prior, RecoveryEnv, key, open_log};
use super::super::recovery_progress::{RecoveryProgress, TELL_EVERY};
use super::super::types::{LogSpec, OpenLogError};
use super::Store;
use crate::types::LeaderEpoch;

impl Store {
    /// Opens existing logs, several at a time, recovering those that need it; one result for each, in order. Blocks.
    ///
    /// # Errors
    /// Each its own: [`OpenLogError`]. Such a log is left as it is.
    pub fn open_logs(&self, specs: &[LogSpec]) -> Vec<Result<LogHandle, OpenLogError>> {
        let next = AtomicUsize::new(0);
        let progress = RecoveryProgress::new(specs.len());
        let results: Vec<OnceLock<_>> = specs.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            // Each of the threads has one; the last to end ends the telling too.
            let (running, ended) = channel::<()>();
            for _ in 0..self.config.recovery_threads.min(specs.len()) {
                let running = running.clone();
                let (next, results, progress) = (&next, &results, &progress);
                scope.spawn(move || {
                    let _running = running;
                    while let (i, Some(spec)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        (i, specs.get(i))
                    } && let Some(result) = results.get(i)
                    {
                        // A panic costs this log, not the start; the hook has told of it.
                        let opened =
                            std::panic::catch_unwind(AssertUnwindSafe(|| self.open_one(spec, progress)));
                        // Set once: every index is given out once.
                        let _ = opened.map(|opened| result.set(opened));
                        progress.opened();
                    }
                });
            }
            drop(running);
            progress.tell(&ended, TELL_EVERY);
        });
        progress.tell_end();
        let died = |spec: &LogSpec| OpenLogError::Damaged {
            path: self.dirs.path(spec),
            detail: "its recovery did not finish".to_owned(),
        };
        specs
            .iter()
            .zip(results)
            .map(|(spec, result)| result.into_inner().unwrap_or_else(|| Err(died(spec))))
            .collect()
    }

    fn open_one(&self, spec: &LogSpec, progress: &RecoveryProgress) -> Result<LogHandle, OpenLogError> {
        let prior = Prior {
            checkpoint: self.prior_logs.get(&key(spec)).copied(),
            clean: self.was_clean,
            durable: self.prior_durable.get(&key(spec)).copied().unwrap_or_default(),
        };
        self.open_with(spec, prior, self.env.leader_epoch, progress)
    }

    /// Opens a log of which so much is known, to append with this epoch.
    pub(super) fn open_with(
        &self,
        spec: &LogSpec,
        prior: Prior,
        leader_epoch: LeaderEpoch,
        progress: &RecoveryProgress,
    ) -> Result<LogHandle, OpenLogError> {
        let dir = self.dirs.know(spec);
        let env = RecoveryEnv { log: &self.env, max_group_bytes: self.config.max_group_bytes, progress };
        let began = Instant::now();
        match open_log(&self.fs, &env, spec, dir, prior) {
            Ok(recovered) => {
                if let Some(bytes) = recovered.scanned_bytes {
                    let (end, dir) = (recovered.end.mark.offset, recovered.dir.display());
                    if began.elapsed() >= TELL_EVERY {
                        tracing::info!(%dir, scanned_bytes = bytes, log_end_offset = %end, "recovered a log");
                    } else {
                        tracing::debug!(%dir, scanned_bytes = bytes, log_end_offset = %end, "recovered a log");
                    }
                    self.counters.recovered_logs.add(1);
                    self.counters.recovered_bytes.add(bytes);
                }
                Ok(self.add(spec, recovered, leader_epoch))
            }
            Err(error) => {
                // What is known of it is kept for when it is looked at.
                let slot = self.slots.lock().assign(key(spec), prior.durable);
                self.unopened.lock().insert(key(spec), slot);
                Err(error)
            }
        }
    }
}
