//! Letting a log whose end is lost go on behind it.

use std::sync::mpsc::channel;

use super::super::handle::LogHandle;
use super::super::recovery::{Prior, key};
use super::super::recovery_progress::RecoveryProgress;
use super::super::types::{AcceptLossError, AcceptedLoss, Done, LogError, LogSpec};
use super::super::upkeep::Job;
use super::super::writer::Command;
use super::Store;

impl Store {
    /// Gives up what a log has lost at its end, for good, and lets the log go on behind it: see [`super::super::gap`]. All
    /// that can be read stays readable. The handle returned is the log from now on; the one before is closed. Blocks.
    ///
    /// # Errors
    /// [`AcceptLossError`]: nothing has changed, unless it is `Reopen`.
    pub fn accept_loss(
        &self,
        log: &LogHandle,
        spec: &LogSpec,
    ) -> Result<(LogHandle, AcceptedLoss), AcceptLossError> {
        let (tell, outcome) = channel();
        // Nobody stops waiting before it is told.
        self.commit_loss(log, Box::new(move |result| drop(tell.send(result))));
        let accepted = outcome.recv().unwrap_or(Err(LogError::Closed))?;
        Ok((self.go_on(log, spec, accepted)?, accepted))
    }

    /// The first half: makes it durable, and closes the log.
    pub(in super::super) fn commit_loss(&self, log: &LogHandle, done: Done<AcceptedLoss>) {
        if let Err(error) = self.jobs.send(Job::AcceptLoss(log.view.clone(), done))
            && let Job::AcceptLoss(_, done) = error.0
        {
            done(Err(LogError::Closed));
        }
    }

    /// The second half: opens the log again.
    ///
    /// # Errors
    /// `Reopen`.
    pub(in super::super) fn go_on(
        &self,
        log: &LogHandle,
        spec: &LogSpec,
        accepted: AcceptedLoss,
    ) -> Result<LogHandle, AcceptLossError> {
        let (done, closed) = channel();
        if log.commands.send(Command::Close(log.number, done)).is_ok() {
            // An error: the writer is gone, and the log with it.
            let _ = closed.recv();
        }
        // A checkpoint that is written before it is open again keeps what the last one has.
        self.logs.lock().remove(&key(spec));
        let prior = Prior {
            checkpoint: self.checkpointer.last.lock().get(&key(spec)).copied(),
            clean: false,
            durable: log.durable_offset(),
        };
        let opened = self.open_with(spec, prior, accepted.leader_epoch, &RecoveryProgress::new(1));
        self.slots.lock().release(log.view.slot);
        opened.map_err(AcceptLossError::Reopen)
    }
}
