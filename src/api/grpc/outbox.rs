//! The queue between the task that fills a response stream and the transport that empties it.
//!
//! It is small and bounded, so that a slow reader stops the task. And the task can take back what the transport has not
//! fetched yet: a reader that stands still must not keep buffers and mapped segments alive, and the transport cannot be
//! made to let go of them, since it asks for the next message only when the one before has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Status;

use super::error::Failure;

/// The filling end. Dropped without [`Outbox::end`], as by a panic, it ends the stream with an internal error.
pub(super) struct Outbox<T> {
    sender: mpsc::Sender<T>,
    shared: Arc<Shared<T>>,
    stall_timeout: Duration,
}

/// The emptying end: the response stream. Always ends with a status.
pub(super) struct Messages<T> {
    shared: Arc<Shared<T>>,
    ended: bool,
}

struct Shared<T> {
    queue: Mutex<mpsc::Receiver<T>>,
    /// Why the stream ends; set before the sender is dropped.
    ending: Mutex<Option<Failure>>,
}

/// An outbox of `capacity` messages, whose reader may stand still for `stall_timeout`.
pub(super) fn outbox<T>(capacity: usize, stall_timeout: Duration) -> (Outbox<T>, Messages<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let shared = Arc::new(Shared { queue: Mutex::new(receiver), ending: Mutex::new(None) });
    (Outbox { sender, shared: Arc::clone(&shared), stall_timeout }, Messages { shared, ended: false })
}

impl<T> Outbox<T> {
    /// Puts a message at the end, once there is room.
    ///
    /// # Errors
    /// STREAM_STALLED if the reader makes no room in time; nothing is kept for it then. Any failure once it has gone
    /// away, since nobody is left to hear it.
    pub(super) async fn send(&self, message: T) -> Result<(), Failure> {
        match tokio::time::timeout(self.stall_timeout, self.sender.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::internal()),
            Err(_) => {
                let mut queue = self.shared.queue.lock();
                queue.close();
                while queue.try_recv().is_ok() {}
                Err(Failure::stream_stalled(self.stall_timeout))
            }
        }
    }

    /// Returns once the reader has gone away.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Ends the stream with `failure`, after what is in the queue.
    pub(super) fn end(self, failure: Failure) {
        *self.shared.ending.lock() = Some(failure);
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.shared.queue.lock().poll_recv(cx);
        polled.map(|message| {
            Some(message.ok_or_else(|| {
                self.ended = true;
                self.shared.ending.lock().take().unwrap_or_else(Failure::internal).into()
            }))
        })
    }
}

impl<T> Drop for Messages<T> {
    fn drop(&mut self) {
        self.shared.queue.lock().close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn reason(status: &Status) -> String {
        status.get_details_error_info().expect("ErrorInfo").reason
    }

    #[tokio::test]
    async fn what_was_sent_comes_before_the_ending() {
        let (outbox, mut messages) = outbox(2, LONG);
        outbox.send(1).await.expect("room");
        outbox.send(2).await.expect("room");
        outbox.end(Failure::shutting_down());
        assert_eq!(messages.next().await.expect("a message").expect("1"), 1);
        assert_eq!(messages.next().await.expect("a message").expect("2"), 2);
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(reason(&status), "SHUTTING_DOWN");
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_given_up_and_holds_nothing() {
        let (outbox, mut messages) = outbox(1, Duration::from_millis(1));
        let held = Arc::new(());
        outbox.send(Arc::clone(&held)).await.expect("room");
        let failure = outbox.send(Arc::clone(&held)).await.expect_err("no room, ever");
        assert_eq!(Arc::strong_count(&held), 1);
        outbox.end(failure);
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&status), "STREAM_STALLED");
    }

    #[tokio::test]
    async fn a_sender_that_dies_is_an_error_and_not_an_end() {
        let (outbox, mut messages) = outbox::<()>(1, LONG);
        drop(outbox);
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(status.code(), Code::Internal);
    }

    #[tokio::test]
    async fn the_sender_hears_when_the_reader_goes() {
        let (outbox, messages) = outbox::<()>(1, LONG);
        drop(messages);
        outbox.closed().await;
    }
}
