//! The queue between the task that fills a response stream and the transport that empties it.
//!
//! It is small and bounded, so that a slow reader stops the task. And the task can take back what the transport has not
//! fetched yet: a reader that stands still must not keep buffers and mapped segments alive, and the transport cannot be
//! made to let go of them, since it asks for the next message only when the one before has left. That holds to the end:
//! a stream that has come to its end, or to that of the log, can still have messages that nobody takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// How many messages have been taken.
    taken: AtomicU64,
    /// Why the stream ends; set before the sender is dropped.
    ending: Mutex<Option<Failure>>,
}

/// An outbox of `capacity` messages, whose reader may stand still for `stall_timeout`.
pub(super) fn outbox<T>(capacity: usize, stall_timeout: Duration) -> (Outbox<T>, Messages<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let (queue, taken) = (Mutex::new(receiver), AtomicU64::new(0));
    let shared = Arc::new(Shared { queue, taken, ending: Mutex::new(None) });
    (Outbox { sender, shared: Arc::clone(&shared), stall_timeout }, Messages { shared, ended: false })
}

impl<T> Outbox<T> {
    /// Puts a message at the end, once there is room.
    ///
    /// # Errors
    /// Any failure once the reader has gone away, since nobody is left to hear it.
    pub(super) async fn send(&self, message: T) -> Result<(), Failure> {
        self.sender.send(message).await.map_err(|_| Failure::internal())
    }

    /// Returns STREAM_STALLED once messages have waited all through `stall_timeout` and none was taken: after twice that
    /// time at most. Nothing is kept for the reader then.
    pub(super) async fn stalled(&self) -> Failure {
        let taken = || self.shared.taken.load(Ordering::Relaxed);
        loop {
            let (waits, before) = (!self.shared.queue.lock().is_empty(), taken());
            tokio::time::sleep(self.stall_timeout).await;
            let mut queue = self.shared.queue.lock();
            if waits && taken() == before {
                queue.close();
                while queue.try_recv().is_ok() {}
                return Failure::stream_stalled(self.stall_timeout);
            }
        }
    }

    /// Returns once the reader has gone away.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Ends the stream with `failure`, after what is in the queue. Returns when that has been taken, or taken back.
    pub(super) async fn end(self, failure: Failure) {
        *self.shared.ending.lock() = Some(failure);
        tokio::select! {
            biased;
            // Room for as many as there can be: there is none.
            _ = self.sender.reserve_many(self.sender.max_capacity()) => {}
            stalled = self.stalled() => *self.shared.ending.lock() = Some(stalled),
        }
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = {
            let mut queue = self.shared.queue.lock();
            let polled = queue.poll_recv(cx);
            // Under the lock, so that whoever takes messages back has seen it.
            self.shared.taken.fetch_add(u64::from(polled.is_ready()), Ordering::Relaxed);
            polled
        };
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
        tokio::spawn(outbox.end(Failure::shutting_down()));
        assert_eq!(messages.next().await.expect("a message").expect("1"), 1);
        assert_eq!(messages.next().await.expect("a message").expect("2"), 2);
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(reason(&status), "SHUTTING_DOWN");
        assert!(messages.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_given_up_and_holds_nothing() {
        let (outbox, mut messages) = outbox(1, LONG);
        let held = Arc::new(());
        outbox.send(Arc::clone(&held)).await.expect("room");
        let failure = tokio::select! {
            _ = outbox.send(Arc::clone(&held)) => panic!("there is no room, ever"),
            failure = outbox.stalled() => failure,
        };
        assert_eq!(Arc::strong_count(&held), 1);
        outbox.end(failure).await;
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&status), "STREAM_STALLED");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_after_the_end_is_taken_back_too() {
        let (outbox, mut messages) = outbox(2, LONG);
        let held = Arc::new(());
        outbox.send(Arc::clone(&held)).await.expect("room");
        outbox.end(Failure::shutting_down()).await;
        assert_eq!(Arc::strong_count(&held), 1);
        let status = messages.next().await.expect("an ending").expect_err("a status");
        assert_eq!(reason(&status), "STREAM_STALLED", "it has not seen all that there was");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_one_message_in_time_is_not_given_up() {
        let (outbox, mut messages) = outbox(2, LONG);
        tokio::select! {
            failure = outbox.stalled() => panic!("{failure:?}"),
            () = async {
                // Nothing to take is no standing still.
                tokio::time::sleep(3 * LONG).await;
                for number in 0..8 {
                    outbox.send(number).await.expect("room");
                    tokio::time::sleep(LONG * 3 / 4).await;
                    messages.next().await.expect("a message").expect("a number");
                }
            } => {}
        }
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
