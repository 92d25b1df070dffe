//! A store with one log whose threads are stepped by the test.

use std::time::{Duration, Instant};

use super::super::crew::Crew;
use super::super::writer::Command;
use super::*;

/// What will come of an append.
pub(super) type Outcome = Receiver<Result<Appended, AppendError>>;

/// A store whose threads are stepped by the test.
pub(super) struct Stepped {
    pub(super) open: Open,
    pub(super) crew: Crew,
}

impl Stepped {
    pub(super) fn new(fixture: &Fixture) -> Self {
        let clock: Arc<dyn Clock> = fixture.clock.clone();
        let config = StorageConfig { writer_threads: 1, ..fixture.config.clone() };
        let (store, crew) =
            Store::assemble(Arc::clone(&fixture.fs), fixture.dir.path(), &config, clock).unwrap();
        store.prepare().unwrap();
        let log = store.create_logs(std::slice::from_ref(&fixture.spec)).unwrap().remove(0);
        Self { open: Open { store, log }, crew }
    }

    pub(super) fn send(&self, batch: BytesMut) -> Outcome {
        self.open.send(batch)
    }

    /// The writer makes one group of all that was sent.
    pub(super) fn write(&mut self) {
        let writer = &mut self.crew.writers[0];
        while let Ok(command) = writer.commands.try_recv() {
            writer.round(command);
        }
    }

    /// Appends batches of ten numbered records, each a group, until the log has `records`. Nobody seals what is rolled.
    pub(super) fn fill(&mut self, records: u64) {
        for tag in (0..records).step_by(10) {
            let appended = self.send(batch(tag, 10, 100));
            self.write();
            self.sync();
            appended.try_recv().unwrap().unwrap();
        }
    }

    pub(super) fn sync(&self) {
        self.crew.syncer.sync_waiting(Instant::now());
    }
}

/// Deletes a log.
pub(super) fn delete(store: &Store, crew: &mut Crew, log: LogHandle) -> Result<(), LogError> {
    while_writing(crew, || store.delete_logs(&[log], &[]))
}

/// Opens a log again whose loss has been accepted.
pub(super) fn go_on(
    store: &Store,
    crew: &mut Crew,
    log: &LogHandle,
    spec: &LogSpec,
    accepted: AcceptedLoss,
) -> Result<LogHandle, AcceptLossError> {
    while_writing(crew, || store.go_on(log, spec, accepted))
}

/// Closes a log: its writer has to let go of it meanwhile.
fn while_writing<T: Send>(crew: &mut Crew, close: impl FnOnce() -> T + Send) -> T {
    let [writer] = &mut crew.writers[..] else { panic!("one writer") };
    std::thread::scope(|scope| {
        let closing = scope.spawn(close);
        while let Ok(command) = writer.commands.recv_timeout(Duration::from_mins(1)) {
            let is_close = matches!(command, Command::Close(..));
            writer.round(command);
            if is_close {
                break;
            }
        }
        closing.join().unwrap()
    })
}
