//! The writers: a few threads, each the owner of its logs, which alone changes them.
//!
//! ```text
//! append -> [commands] -> writer: gather, write -> [SyncQueue] -> syncer: sync, durable slots, publish, acknowledge
//! ```
//! While the syncer waits for the disk, the writers write the next group. A lone append, with nothing before it and
//! nothing behind, is synced by its writer: waking another thread for it takes about as long as a fifth of the sync.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::log::{Log, LogEnv};
use super::open_logs::OpenLogs;
use super::sync_queue::{LazyFile, SyncQueue};
use super::sync_thread::SyncThread;
use super::types::{Append, AppendError, Done, Durability, LogConfig, LogError};
use super::upkeep::Job;

/// How often it is looked whether room that was set aside is used up.
const AHEAD_INTERVAL: Duration = Duration::from_secs(1);

/// A log's number in this process.
pub(super) type LogNumber = u64;

/// What a writer thread is asked to do; in order.
pub(super) enum Command {
    /// It owns this log from now on.
    Open(LogNumber, Box<Log>),
    /// Appends a batch.
    Append(LogNumber, Append),
    /// New settings.
    Configure(LogNumber, LogConfig, Done<()>),
    /// Lets go of the log; what was accepted is written and synced or failed first. Answers when that is done.
    Close(LogNumber, Sender<()>),
    /// Writes what was accepted, and ends.
    Stop,
}

/// One writer thread: owns logs, and alone changes them.
pub(super) struct Writer {
    pub(super) commands: Receiver<Command>,
    pub(super) queue: Arc<SyncQueue>,
    pub(super) syncer: Arc<SyncThread>,
    pub(super) jobs: Sender<Job>,
    pub(super) env: Arc<LogEnv>,
    pub(super) max_group_bytes: u64,
    pub(super) logs: HashMap<LogNumber, Box<Log>>,
    /// Logs with something gathered.
    pub(super) touched: Vec<LogNumber>,
    /// Logs with room set aside.
    pub(super) ahead: HashSet<LogNumber>,
    /// When those were last looked at.
    pub(super) looked_ahead: Instant,
    pub(super) open_logs: OpenLogs,
}

impl Writer {
    /// Runs until it is stopped or everybody who could ask it for something is gone.
    pub(super) fn run(mut self) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run_until_stopped())).is_err() {
            tracing::error!("a writing thread has panicked; its partitions take no more writes");
            // It may have been about to sync.
            self.queue.synced();
            self.die();
        }
        // What still waits to be read here is refused when the channel goes.
        while let Ok(command) = self.commands.try_recv() {
            refuse(command, None);
        }
    }

    fn run_until_stopped(&mut self) {
        let mut waiting = None;
        while let Some(command) = waiting.take().or_else(|| self.next()) {
            let stop = self.round(command);
            self.give_back_if_due();
            if !stop {
                waiting = self.commands.try_recv().ok();
            }
            // With more to write, the next group is to be ready when this one is synced.
            let is_free = !stop && waiting.is_none();
            if let Some(alone) = self.queue.hand_over(is_free) {
                self.syncer.sync_groups(vec![alone]);
            }
            if stop {
                break;
            }
        }
        self.logs.values_mut().for_each(|log| log.give_back());
    }

    /// Waits for a command. Room that was set aside is not kept waiting with it.
    fn next(&mut self) -> Option<Command> {
        while !self.ahead.is_empty() {
            match self.commands.recv_timeout(AHEAD_INTERVAL) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.give_back_if_due(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.commands.recv().ok()
    }

    fn give_back_if_due(&mut self) {
        if !self.ahead.is_empty() && self.looked_ahead.elapsed() >= AHEAD_INTERVAL {
            self.looked_ahead = Instant::now();
            self.give_back_if_slow();
        }
    }

    /// Gives back what was set aside for logs that do not use it up.
    pub(super) fn give_back_if_slow(&mut self) {
        self.ahead.retain(|number| self.logs.get_mut(number).is_some_and(|log| log.give_back_if_slow()));
    }

    /// What it was about to do is in an unknown state. No log of its own takes writes any more, nor any that it is still
    /// to be given; what has been handed to the syncing thread is not acknowledged either.
    fn die(&mut self) {
        for (_, log) in self.logs.drain() {
            log.view().fail(WRITER_DIED);
        }
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Stop => return,
                Command::Open(_, log) => log.view().fail(WRITER_DIED),
                command => refuse(command, Some(WRITER_DIED.into())),
            }
        }
    }

    /// Carries out `command` and what else has arrived, up to a group's worth, and writes what was gathered. Returns
    /// whether it was told to stop.
    pub(super) fn round(&mut self, command: Command) -> bool {
        let (mut gathered, mut stop) = (0, false);
        let mut next = Some(command);
        while let Some(command) = next {
            match self.handle(command) {
                Some(bytes) => gathered += bytes,
                None => stop = true,
            }
            let full = stop || gathered >= self.max_group_bytes;
            next = if full { None } else { self.commands.try_recv().ok() };
        }
        for number in std::mem::take(&mut self.touched) {
            self.write(number);
        }
        stop
    }

    /// Returns the bytes gathered, or `None` to stop.
    fn handle(&mut self, command: Command) -> Option<u64> {
        match command {
            Command::Append(number, append) => return Some(self.gather(number, append)),
            Command::Open(number, log) => {
                self.logs.insert(number, log);
            }
            Command::Configure(number, config, done) => self.configure(number, config, done),
            Command::Close(number, done) => {
                self.write(number);
                if let Some(mut log) = self.logs.remove(&number) {
                    self.queue.wait_until_idle(log.view());
                    log.give_back();
                }
                self.open_logs.closed(number);
                // Nobody need wait for it.
                let _ = done.send(());
            }
            Command::Stop => return None,
        }
        Some(0)
    }

    fn gather(&mut self, number: LogNumber, append: Append) -> u64 {
        let Some(log) = self.logs.get_mut(&number) else {
            (append.done)(Err(AppendError::Closed));
            return 0;
        };
        if log.must_roll(&append.batch) && log.takes(&append) {
            self.write(number);
            // Asked again: a write that failed may have left the segment empty.
            let log = self.logs.get_mut(&number);
            if log.is_some_and(|log| log.must_roll(&append.batch))
                && let Err(error) = self.roll(number)
            {
                (append.done)(Err(error));
                return 0;
            }
        }
        let Some(log) = self.logs.get_mut(&number) else { return 0 };
        let size = append.batch.len() as u64;
        let had_gathered = log.has_gathered();
        log.gather(append);
        if !had_gathered && log.has_gathered() {
            self.touched.push(number);
        }
        size
    }

    fn roll(&mut self, number: LogNumber) -> Result<(), AppendError> {
        self.make_room(number);
        let Some(log) = self.logs.get_mut(&number) else { return Err(AppendError::Closed) };
        let rolled = log.roll()?;
        // Without the upkeep thread the segment stays unsealed until the next start.
        let _ = self.jobs.send(Job::Seal(rolled));
        Ok(())
    }

    fn write(&mut self, number: LogNumber) {
        let Some(log) = self.logs.get_mut(&number) else { return };
        if !log.has_gathered() {
            return;
        }
        self.make_room(number);
        let Some(log) = self.logs.get_mut(&number) else { return };
        let durability = log.config().durability;
        if durability == Durability::Fsync {
            self.queue.wait_for_room(log.view(), log.gathered_bytes(), self.max_group_bytes);
        }
        let wrote = log.write();
        if log.has_set_aside() {
            self.ahead.insert(number);
        }
        let Some(written) = wrote else { return };
        // With `durability = os` too, what is acknowledged is to be synced some time.
        if written.may_skip_sync(durability) && !self.queue.is_dead() {
            let lazy = LazyFile {
                view: Arc::clone(&written.view),
                file: Some(Arc::clone(&written.file)),
                end: written.end,
            };
            written.publish(&self.env.tail_cache);
            self.queue.push_lazy(lazy);
        } else {
            self.queue.push(written);
        }
    }

    /// Before the file of a log is used: as long as there are too many open, another log closes its own. One that has
    /// nothing unsynced if there is one; else the next group waits until the one whose turn it is has synced.
    fn make_room(&mut self, number: LogNumber) {
        if self.open_logs.must_make_room(number) {
            let is_idle = |number: &LogNumber| self.logs.get(number).is_none_or(|log| log.is_synced());
            let idle = self.open_logs.oldest_first().find(is_idle);
            if let Some(other) = idle.or_else(|| self.open_logs.oldest_first().next()) {
                self.close_file(other);
            }
        }
        self.open_logs.used(number);
    }

    fn close_file(&mut self, number: LogNumber) {
        self.open_logs.closed(number);
        let Some(log) = self.logs.get_mut(&number) else { return };
        if !log.is_synced() {
            self.queue.wait_until_idle(log.view());
        }
        if !log.is_synced() {
            // What `durability = os` has left unsynced. If it fails, that log takes no more writes.
            let _ = log.sync();
        }
        self.queue.release_lazy(log.view());
        log.close_file();
    }

    fn configure(&mut self, number: LogNumber, config: LogConfig, done: Done<()>) {
        self.write(number);
        let Some(log) = self.logs.get_mut(&number) else { return done(Err(LogError::Closed)) };
        let before = log.config().durability;
        if before == Durability::Os
            && config.durability == Durability::Fsync
            && let Err(reason) = log.sync()
        {
            return done(Err(LogError::Sealed { reason }));
        }
        log.set_config(config);
        done(Ok(()));
    }
}

/// Why a log takes no more writes whose writer has panicked.
pub(super) const WRITER_DIED: &str = "the thread that writes it has panicked";

/// Answers a command that nobody will carry out: its log takes no writes, for this reason, or is closed.
pub(super) fn refuse(command: Command, sealed: Option<Arc<str>>) {
    match command {
        Command::Append(_, append) => {
            (append.done)(Err(sealed.map_or(AppendError::Closed, |reason| AppendError::Sealed { reason })));
        }
        Command::Configure(_, _, done) => {
            done(Err(sealed.map_or(LogError::Closed, |reason| LogError::Sealed { reason })));
        }
        Command::Open(..) | Command::Close(..) | Command::Stop => {}
    }
}
