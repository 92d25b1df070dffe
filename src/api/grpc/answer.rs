//! The answer to a fetch on its way out: messages that a task puts in, and that leave in pieces as the transport asks.
//!
//! A message is encoded piece by piece and not as a whole: batches stay what they were read as, slices of maps or of
//! the tail cache, until their bytes are copied into the piece that goes out next. So a client that takes nothing costs
//! a few pieces in the transport, however large the message; the rest can be taken back at any time, which the
//! transport never allows for what it has been given. What it is told then is STREAM_STALLED.
//!
//! # What a message takes of the memory
//! Its content, as long as that lasts, and for its pieces the least of its encoded size and [`TRANSPORT_BYTES`], until
//! the transport has sent or dropped them: a piece is memory of its own and knows its answer. While there is more to
//! come, the next piece takes the memory of one that has been sent: it is still in the processor's caches.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use super::error::Failure;
use super::memory::{Holder, Known, Memory, Stall, Taken};
use super::message::{Message, PIECE_BYTES};

/// What the transport may hold of one answer: its send buffer of 400 KiB, which no setting reaches, and a piece on
/// either side of it.
pub(super) const TRANSPORT_BYTES: u64 = (400 << 10) + 2 * PIECE_BYTES as u64;

/// What goes out at a time at first, a frame of HTTP/2's default size, and what share of what has been sent later on: a
/// client that stops before it has taken much leaves little in the transport.
const FIRST_PIECE_BYTES: usize = 16 << 10;
/// Sent pieces whose memory is kept for the next; as many as there is room for beside the transport's buffer.
const MOST_SPARE: usize = 2;
const PIECE_SHARE: usize = 8;

/// The filling end. Dropped without [`Answer::end`], as by a panic, it ends the answer with an internal error.
pub(super) struct Answer(Arc<Shared>);

/// The emptying end. Always ends with a status.
pub(super) struct AnswerBody(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is room for a message, or there never will be.
    moved: Notify,
    /// Breaks the connection.
    cut: CancellationToken,
    memory: Memory,
    capacity: usize,
}

struct State {
    queue: VecDeque<(Message, Taken)>,
    current: Option<Message>,
    /// For the current message, and for the pieces of earlier ones.
    taken: Option<Taken>,
    in_transport_bytes: u64,
    sent_bytes: usize,
    /// Memory of pieces that have been sent; none unless there are more to be made, by a message that has taken it too.
    spare: Vec<Vec<u8>>,
    moved_at: Instant,
    waker: Option<Waker>,
    phase: Phase,
    known: Option<Known>,
}

enum Phase {
    Filling,
    /// After what is in the queue: this.
    Ending(Option<Failure>),
    /// Now: this.
    LetGo(Option<Failure>),
    /// The status has been told, or nobody is left to hear it.
    Over,
}

/// An answer of which `capacity` messages may wait for the transport.
pub(super) fn answer(memory: &Memory, capacity: usize, cut: CancellationToken) -> (Answer, AnswerBody) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::with_capacity(capacity),
            current: None,
            taken: None,
            in_transport_bytes: 0,
            sent_bytes: 0,
            spare: Vec::new(),
            moved_at: Instant::now(),
            waker: None,
            phase: Phase::Filling,
            known: None,
        }),
        moved: Notify::new(),
        cut,
        memory: memory.clone(),
        capacity,
    });
    let known = memory.know(Arc::downgrade(&shared) as Weak<dyn Holder>);
    shared.state.lock().known = Some(known);
    (Answer(Arc::clone(&shared)), AnswerBody(shared))
}

impl Answer {
    /// Puts a message at the end, once there is room.
    ///
    /// # Errors
    /// STREAM_STALLED if the reader has been let go. Any failure once it has gone away, since nobody is left to hear
    /// it.
    pub(super) async fn send(&self, message: Message, taken: Taken) -> Result<(), Failure> {
        loop {
            // Made before the look, so that no move in between is missed.
            let moved = self.0.moved.notified();
            {
                let mut state = self.0.state.lock();
                match state.phase {
                    Phase::Filling if state.queue.len() < self.0.capacity => {
                        if state.is_empty() {
                            // Until now there was nothing to take.
                            state.moved_at = Instant::now();
                        }
                        state.queue.push_back((message, taken));
                        state.wake();
                        return Ok(());
                    }
                    Phase::Filling => {}
                    Phase::LetGo(_) => return Err(self.0.stalled()),
                    Phase::Ending(_) | Phase::Over => return Err(Failure::internal()),
                }
            }
            moved.await;
        }
    }

    /// Returns once nothing that is sent would be heard.
    pub(super) async fn closed(&self) {
        loop {
            let moved = self.0.moved.notified();
            if matches!(self.0.state.lock().phase, Phase::LetGo(_) | Phase::Over) {
                return;
            }
            moved.await;
        }
    }

    /// Ends the answer after what is in the queue: well, or with `failure`.
    pub(super) fn end(self, outcome: Result<(), Failure>) {
        self.0.end(outcome.err());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.end(Some(Failure::internal()));
    }
}

impl Shared {
    /// Once only: the first one counts.
    fn end(&self, failure: Option<Failure>) {
        let mut state = self.state.lock();
        if let Phase::Filling = state.phase {
            state.phase = Phase::Ending(failure);
            state.wake();
        }
    }

    fn stalled(&self) -> Failure {
        Failure::stream_stalled(self.memory.stall_timeout())
    }

    /// The transport has sent a piece, or dropped it.
    fn sent(&self, piece: Vec<u8>) {
        let mut state = self.state.lock();
        state.in_transport_bytes -= piece.len() as u64;
        state.sent_bytes = state.sent_bytes.saturating_add(piece.len());
        state.moved_at = Instant::now();
        // A short one, as at the beginning, and at the end of a message, would be made anew.
        if state.has_more() && piece.capacity() == PIECE_BYTES && state.spare.len() < MOST_SPARE {
            state.spare.push(piece);
        }
        if state.current.is_none() {
            state.keep_transport_only();
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        !self.has_more() && self.in_transport_bytes == 0
    }

    /// Whether any message is not all with the transport.
    fn has_more(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Gives back what was taken for a message that is gone.
    fn keep_transport_only(&mut self) {
        if !self.has_more() {
            self.spare.clear();
        }
        if let Some(taken) = &self.taken {
            taken.shrink_to(self.in_transport_bytes);
        }
    }

    /// Frees what has not been given to the transport.
    fn clear(&mut self) {
        self.queue.clear();
        self.current = None;
        self.keep_transport_only();
    }
}

impl Holder for Shared {
    fn stall(&self) -> Option<Stall> {
        let state = self.state.lock();
        let (since, bytes) = (state.moved_at, state.in_transport_bytes);
        match state.phase {
            _ if state.is_empty() => None,
            Phase::Filling | Phase::Ending(_) => Some(Stall { let_go: false, since, bytes }),
            Phase::LetGo(_) | Phase::Over => Some(Stall { let_go: true, since, bytes }),
        }
    }

    fn let_go(&self) -> u64 {
        let mut state = self.state.lock();
        if let Phase::LetGo(_) | Phase::Over = state.phase {
            self.cut.cancel();
            return state.in_transport_bytes;
        }
        state.phase = Phase::LetGo(Some(self.stalled()));
        let taken = |state: &State| {
            let queued: u64 = state.queue.iter().map(|(_, taken)| taken.bytes()).sum();
            queued + state.taken.as_ref().map_or(0, Taken::bytes)
        };
        let before = taken(&state);
        state.clear();
        let freed = before - taken(&state);
        state.wake();
        drop(state);
        self.moved.notify_waiters();
        freed
    }
}

/// A piece that the transport holds.
struct Piece {
    bytes: Vec<u8>,
    answer: Arc<Shared>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer.sent(mem::take(&mut self.bytes));
    }
}

impl AnswerBody {
    /// The next piece; `None` if there is none now, or there must not be any more.
    fn piece(&self, state: &mut State) -> Option<Bytes> {
        loop {
            let Some(current) = &mut state.current else {
                let (message, taken) = state.queue.pop_front()?;
                self.0.moved.notify_waiters();
                state.current = Some(message);
                match &state.taken {
                    Some(all) => all.absorb(taken),
                    None => state.taken = Some(taken),
                }
                continue;
            };
            let most_bytes = (state.sent_bytes / PIECE_SHARE).clamp(FIRST_PIECE_BYTES, PIECE_BYTES);
            // A short piece in the memory of a long one would hold more than is counted for it.
            let is_full = most_bytes == PIECE_BYTES && current.left_bytes() >= PIECE_BYTES as u64;
            let spare = if is_full { state.spare.pop() } else { None };
            let piece = current.next_piece(most_bytes, spare.unwrap_or_default());
            if let Some(failure) = current.failure() {
                state.phase = Phase::LetGo(Some(failure));
                state.clear();
                self.0.moved.notify_waiters();
                return None;
            }
            if current.is_done() {
                state.current = None;
            }
            state.in_transport_bytes += piece.len() as u64;
            state.moved_at = Instant::now();
            if state.current.is_none() {
                state.keep_transport_only();
            }
            return Some(Bytes::from_owner(Piece { bytes: piece, answer: Arc::clone(&self.0) }));
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.0.state.lock();
        if !matches!(state.phase, Phase::LetGo(_) | Phase::Over)
            && let Some(piece) = self.piece(&mut state)
        {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let ending = match mem::replace(&mut state.phase, Phase::Over) {
            Phase::Filling => {
                state.phase = Phase::Filling;
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Phase::Ending(ending) | Phase::LetGo(ending) => ending,
            Phase::Over => return Poll::Ready(None),
        };
        let mut trailers = HeaderMap::new();
        ending.map_or_else(|| Status::ok(""), Status::from).add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0.state.lock().phase, Phase::Over)
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.phase = Phase::Over;
        state.clear();
        drop(state);
        self.0.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io;
    use std::ops::Range;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures_util::poll;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::super::loan::Loan;
    use super::*;
    use crate::proto::PartitionData;
    use crate::storage::{Lease, ReadBatches, mmap};
    use crate::types::TopicName;

    const LONG: Duration = Duration::from_hours(1);
    const LIMIT: u64 = 1 << 20;

    fn memory() -> Memory {
        Memory::new(LIMIT, LONG)
    }

    fn message(batch: &Bytes) -> Message {
        let data = PartitionData { record_batches: vec![batch.clone()], ..Default::default() };
        Message::new(vec![data], Vec::new()).expect("not too long")
    }

    async fn send(answer: &Answer, memory: &Memory, batch: &Bytes) -> Result<(), Failure> {
        answer.send(message(batch), memory.take(batch.len() as u64).await.expect("memory")).await
    }

    async fn frame(body: &mut AnswerBody) -> Option<Frame<Bytes>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.map(|frame| frame.expect("no error"))
    }

    async fn piece(body: &mut AnswerBody) -> Bytes {
        frame(body).await.and_then(|frame| frame.into_data().ok()).expect("data")
    }

    async fn status(body: &mut AnswerBody) -> Status {
        let trailers = frame(body).await.and_then(|frame| frame.into_trailers().ok()).expect("trailers");
        assert!(frame(body).await.is_none() && body.is_end_stream());
        Status::from_header_map(&trailers).expect("a status")
    }

    #[tokio::test]
    async fn what_was_sent_comes_before_the_ending() {
        let memory = memory();
        let (answer, mut body) = answer(&memory, 2, CancellationToken::new());
        send(&answer, &memory, &Bytes::from_static(b"one")).await.expect("room");
        send(&answer, &memory, &Bytes::from_static(b"two")).await.expect("room");
        answer.end(Err(Failure::shutting_down()));
        assert!(piece(&mut body).await.ends_with(b"one"));
        assert!(piece(&mut body).await.ends_with(b"two"));
        let status = status(&mut body).await;
        assert_eq!(status.get_details_error_info().expect("ErrorInfo").reason, "SHUTTING_DOWN");
    }

    #[tokio::test]
    async fn pieces_grow_with_what_has_been_sent() {
        let memory = memory();
        let (answer, mut body) = answer(&memory, 1, CancellationToken::new());
        send(&answer, &memory, &Bytes::from(vec![1; 6 * PIECE_BYTES])).await.expect("room");
        // While nothing is taken, they stay small.
        let mut held: Vec<_> = Vec::new();
        for _ in 0..8 {
            held.push(piece(&mut body).await);
        }
        assert!(held.iter().all(|piece| piece.len() == FIRST_PIECE_BYTES));
        held.clear();
        body.0.state.lock().sent_bytes = 2 * PIECE_SHARE * FIRST_PIECE_BYTES;
        assert_eq!(piece(&mut body).await.len(), 2 * FIRST_PIECE_BYTES);
        body.0.state.lock().sent_bytes = usize::MAX / 2;
        assert_eq!(piece(&mut body).await.len(), PIECE_BYTES);
    }

    #[tokio::test]
    async fn a_piece_takes_the_memory_of_one_that_was_sent_and_none_is_kept_at_the_end() {
        let memory = memory();
        let (answer, mut body) = answer(&memory, 1, CancellationToken::new());
        body.0.state.lock().sent_bytes = PIECE_SHARE * PIECE_BYTES;
        send(&answer, &memory, &Bytes::from(vec![1; 4 * PIECE_BYTES])).await.expect("room");
        let (first, second) = (piece(&mut body).await, piece(&mut body).await);
        let sent = first.as_ptr();
        drop(first);
        let third = piece(&mut body).await;
        assert_eq!(third.as_ptr(), sent);
        drop((second, third));
        assert!(!body.0.state.lock().spare.is_empty(), "more is to come");
        let rest = (piece(&mut body).await, piece(&mut body).await);
        assert!(rest.1.len() < PIECE_BYTES);
        assert_ne!(rest.1.as_ptr(), sent, "a short one has memory of its own");
        drop(rest);
        assert!(body.0.state.lock().spare.is_empty());
        assert!(memory.take(LIMIT).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_answer_makes_the_next_message_wait() {
        let memory = memory();
        let (answer, mut body) = answer(&memory, 1, CancellationToken::new());
        let batch = Bytes::from_static(b"batch");
        send(&answer, &memory, &batch).await.expect("room");
        let mut waiting = Box::pin(send(&answer, &memory, &batch));
        assert!(poll!(&mut waiting).is_pending());
        drop(piece(&mut body).await);
        waiting.await.expect("room");
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_let_go_and_holds_what_the_transport_has() {
        let memory = memory();
        let cut = CancellationToken::new();
        let (answer, mut body) = answer(&memory, 1, cut.clone());
        assert_eq!(body.0.stall(), None, "there is nothing to take");
        let content = Bytes::from(vec![1; 4 * PIECE_BYTES]);
        send(&answer, &memory, &content).await.expect("room");
        let in_transport = piece(&mut body).await;
        send(&answer, &memory, &content).await.expect("room");
        let mut waiting = Box::pin(answer.closed());
        assert!(poll!(&mut waiting).is_pending());

        assert_eq!(body.0.stall().map(|stall| stall.let_go), Some(false));
        assert_eq!(in_transport.len(), FIRST_PIECE_BYTES);
        assert_eq!(body.0.let_go(), (8 * PIECE_BYTES - FIRST_PIECE_BYTES) as u64);
        assert!(content.is_unique(), "nothing is kept");
        assert!(
            memory.take(LIMIT - FIRST_PIECE_BYTES as u64).await.is_ok(),
            "all but what the transport has"
        );
        waiting.await;
        let status = status(&mut body).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().expect("ErrorInfo").reason, "STREAM_STALLED");

        // What is left goes with the connection only.
        assert_eq!(body.0.stall().map(|stall| stall.let_go), Some(true));
        assert!(!cut.is_cancelled());
        body.0.let_go();
        assert!(cut.is_cancelled());
        drop(in_transport);
        assert_eq!(body.0.stall(), None);
        assert!(memory.take(LIMIT).await.is_ok());
    }

    /// A map that fails when it is told to.
    #[derive(Debug, Default)]
    struct Fragile(AtomicBool);

    impl mmap::Map for Fragile {
        fn len(&self) -> u64 {
            1
        }
        fn slice(self: Arc<Self>, _range: Range<u64>) -> io::Result<Bytes> {
            Ok(Bytes::from_static(b"x"))
        }
        fn slice_in_memory(self: Arc<Self>, range: Range<u64>) -> Option<Bytes> {
            self.slice(range).ok()
        }
        fn has_failed(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_copy_that_was_made_while_its_pages_vanished_is_not_sent() {
        let memory = memory();
        let (answer, mut body) = answer(&memory, 1, CancellationToken::new());
        let map = Arc::new(Fragile::default());
        let lender: Arc<dyn mmap::Map> = map.clone();
        let batches = ReadBatches { lease: Lease::of(&lender), ..ReadBatches::default() };
        drop(lender);
        let loan = Loan::of(&batches, &TopicName::parse("orders").expect("a name"), 3);
        drop(batches);
        let content = Bytes::from(vec![1; 4 * PIECE_BYTES]);
        let data = PartitionData { record_batches: vec![content.clone()], ..Default::default() };
        let message = Message::new(vec![data], loan.into_iter().collect()).expect("not too long");
        answer.send(message, memory.take(LIMIT).await.expect("memory")).await.expect("room");
        drop(piece(&mut body).await);
        map.0.store(true, Ordering::Relaxed);
        let status = status(&mut body).await;
        let told = status.get_details_error_info().expect("ErrorInfo");
        assert_eq!((status.code(), told.reason.as_str()), (Code::Internal, "STORAGE_ERROR"));
        assert_eq!(told.metadata.get("partition").map(String::as_str), Some("3"));
        assert!(content.is_unique() && Arc::strong_count(&map) == 1, "what was borrowed is given back");
        assert!(memory.take(LIMIT).await.is_ok());
    }

    #[tokio::test]
    async fn a_task_that_dies_is_an_error_and_not_an_end() {
        let (answer, mut body) = answer(&memory(), 1, CancellationToken::new());
        drop(answer);
        assert_eq!(status(&mut body).await.code(), Code::Internal);
    }

    #[tokio::test]
    async fn the_sender_hears_when_the_reader_goes() {
        let memory = memory();
        let (answer, body) = answer(&memory, 1, CancellationToken::new());
        let batch = Bytes::from_static(b"batch");
        send(&answer, &memory, &batch).await.expect("room");
        drop(body);
        answer.closed().await;
        assert!(send(&answer, &memory, &batch).await.is_err());
        assert!(memory.take(LIMIT).await.is_ok());
    }
}
