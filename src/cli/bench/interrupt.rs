//! A wish for an early end: SIGTERM, or Ctrl-C. Whoever hears it gives up what it does; what is dropped on the way removes
//! what it made, so that a run that is broken off leaves no process and no directory behind. Who cannot wait for that says so
//! again, and the process ends as it is.

use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;
use crate::cli::signals::Signals;

/// The exit code of an end at once.
const AT_ONCE: i32 = 130;

/// Known to all of a run.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(CancellationToken);

impl Interrupt {
    /// From now on, a signal does not end the process by itself.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(super) fn listen() -> Result<Self, Failure> {
        let mut signals = Signals::new().map_err(|error| Failure::io("cannot listen for signals", error))?;
        let wanted = CancellationToken::new();
        let told = wanted.clone();
        tokio::spawn(async move {
            signals.next().await;
            told.cancel();
            signals.next().await;
            std::process::exit(AT_ONCE);
        });
        Ok(Self(wanted))
    }

    /// Returns when somebody wants an end.
    pub(super) async fn wanted(&self) -> Failure {
        self.0.cancelled().await;
        Failure::Failed("interrupted".to_owned())
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Does some work; an end that is wanted drops it.
    ///
    /// # Errors
    /// Its own, and that it was interrupted.
    pub(super) async fn or<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            failure = self.wanted() => Err(failure),
        }
    }

    /// Puts in order what a run leaves. An end that was wanted before includes that; one that is wanted now drops it.
    ///
    /// # Errors
    /// That it was interrupted.
    pub(super) async fn tidy(&self, work: impl Future<Output = ()>) -> Result<(), Failure> {
        let work = async {
            work.await;
            Ok(())
        };
        if self.is_wanted() { work.await } else { self.or(work).await }
    }
}
