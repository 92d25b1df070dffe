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
pub(super) fn let_go_unread<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    memory: Memory,
) -> impl Stream<Item = Result<T, Status>> + Send {
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
        let state = self.state.lock();
        state.stream.as_ref()?;
        state.unread_since.map(|since| Stall { let_go: false, since })
    }

    fn let_go(&self) -> u64 {
        // Dropped without the lock: much may hang on it. How much is known only by what it gives back.
        let stream = self.state.lock().stream.take();
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
