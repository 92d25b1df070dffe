//! A response stream whose client takes nothing of it is let go, with all that hangs on it: requests that wait for
//! their turn behind answers that nobody reads.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use super::error::Failure;
use super::memory::{Holder, Known, Memory, Stall};

/// `stream`, ended by STREAM_STALLED and dropped when its client stands still and what it holds of `memory` is wanted.
pub(super) fn let_go_unread<T, S>(
    stream: S,
    memory: &Memory,
) -> impl Stream<Item = Result<T, Status>> + Send + use<T, S>
where
    T: Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
{
    let shared = Arc::new(Shared {
        state: Mutex::new(State { stream: Some(stream.boxed()), unread_since: None }),
        memory: memory.clone(),
    });
    let known = memory.know(Arc::downgrade(&shared) as Weak<dyn Holder>);
    LetGoUnread { shared, told: false, _known: known }
}

struct LetGoUnread<T> {
    shared: Arc<Shared<T>>,
    told: bool,
    _known: Known,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    memory: Memory,
}

struct State<T> {
    /// `None` once it has been let go.
    stream: Option<BoxStream<'static, Result<T, Status>>>,
    /// When the transport got an item; it asks for the next one when that has left.
    unread_since: Option<Instant>,
}

impl<T: Send> Holder for Shared<T> {
    fn stall(&self) -> Option<Stall> {
        // Locked while it is polled, and it may be its own poll that asks: then nobody waits for the client.
        let state = self.state.try_lock()?;
        state.stream.as_ref()?;
        state.unread_since.map(|since| Stall { let_go: false, since, bytes: 0 })
    }

    fn let_go(&self) -> u64 {
        // Dropped without the lock: much may hang on it. How much is known only by what it gives back.
        let stream = self.state.try_lock().and_then(|mut state| state.stream.take());
        drop(stream);
        0
    }
}

impl<T> Stream for LetGoUnread<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.told {
            return Poll::Ready(None);
        }
        let mut state = self.shared.state.lock();
        state.unread_since = None;
        let Some(stream) = &mut state.stream else {
            drop(state);
            self.told = true;
            let stalled = Failure::stream_stalled(self.shared.memory.stall_timeout());
            return Poll::Ready(Some(Err(stalled.into())));
        };
        let polled = stream.as_mut().poll_next(cx);
        if polled.is_ready() {
            state.unread_since = Some(Instant::now());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{poll, stream};
    use tonic_types::StatusExt;

    use super::*;

    #[tokio::test]
    async fn answers_that_nobody_reads_are_let_go_with_what_they_hold() {
        let memory = Memory::new(2, Duration::from_millis(1));
        let watch = tokio::spawn(memory.clone().watch());
        let taken = memory.take(2).await.expect("memory");
        let held = stream::iter([1, 2]).map(Ok).chain(stream::pending()).map(move |item| {
            let _held = &taken;
            item
        });
        let mut answers = Box::pin(let_go_unread(held, &memory));
        assert_eq!(answers.next().await.expect("an answer").expect("1"), 1);
        memory.take(2).await.expect("it has been let go");
        let status = answers.next().await.expect("an ending").expect_err("a status");
        assert_eq!(status.get_details_error_info().expect("ErrorInfo").reason, "STREAM_STALLED");
        assert!(answers.next().await.is_none());
        watch.abort();
    }

    #[tokio::test]
    async fn answers_that_are_not_there_yet_are_waited_for() {
        let memory = Memory::new(1, Duration::from_millis(1));
        // Its own poll makes room, and asks all who might.
        let asks = memory.clone();
        let never = stream::once(async move {
            let _all = asks.take(1).await;
            asks.take(1).await.map(drop).map_err(|_| Status::internal("busy"))
        });
        let mut answers = Box::pin(let_go_unread(never, &memory));
        assert!(poll!(answers.next()).is_pending());
        let Some(holder) = memory.holder() else { panic!("it is known") };
        assert_eq!(holder.stall(), None);
    }
}
