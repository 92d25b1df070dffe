//! Those who do the work of a store: started each on a thread of its own, and ended in the order in which work flows.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::sync_queue::SyncQueue;
use super::sync_thread::SyncThread;
use super::upkeep::{Job, Upkeep};
use super::writer::{Command, Writer};

/// The workers of a store, before they start.
pub(super) struct Crew {
    pub(super) writers: Vec<Writer>,
    pub(super) syncer: Arc<SyncThread>,
}

impl Crew {
    /// Starts them.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub(super) fn start(self) -> io::Result<Threads> {
        let mut threads = Threads::default();
        for (i, writer) in self.writers.into_iter().enumerate() {
            threads.writers.push(spawn(&format!("log-writer-{i}"), move || writer.run())?);
        }
        let syncer = self.syncer;
        threads.syncer = Some(spawn("log-syncer", move || syncer.run())?);
        Ok(threads)
    }
}

/// The running threads of a store.
#[derive(Default)]
pub(super) struct Threads {
    writers: Vec<JoinHandle<()>>,
    syncer: Option<JoinHandle<()>>,
    upkeep: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts the one for what can wait.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub(super) fn start_upkeep(&mut self, upkeep: Upkeep) -> io::Result<()> {
        self.upkeep = Some(spawn("log-upkeep", move || upkeep.run())?);
        Ok(())
    }

    /// Lets them finish what they have, and returns when they have ended: first those who write, then the one who
    /// syncs what they wrote, then the one who seals what they rolled.
    pub(super) fn stop(self, writers: &[Sender<Command>], queue: &SyncQueue, jobs: &Sender<Job>) {
        for writer in writers {
            // One that has died has said so.
            let _ = writer.send(Command::Stop);
        }
        self.writers.into_iter().for_each(join);
        queue.stop();
        self.syncer.into_iter().for_each(join);
        let _ = jobs.send(Job::Stop);
        self.upkeep.into_iter().for_each(join);
    }
}

/// Starts a thread; a panic in it is told in the log at once, not when somebody joins it.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if std::panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!(
                thread,
                "a storage thread has panicked; its work stays undone until the next start"
            );
        }
    })
}

fn join(thread: JoinHandle<()>) {
    // A panic was told when it happened.
    let _ = thread.join();
}
