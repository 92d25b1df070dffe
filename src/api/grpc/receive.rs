//! Requests on their way in: gRPC's framing, with every byte counted before it is kept.
//!
//! A message is refused on its declared length, before anything is kept of it. Within the limit it takes memory as it
//! comes, not as declared, and takes all that decoding will need before it is decoded: many small records need far more
//! than they are on the wire. One that stops half way is let go (see [`memory`](super::memory)). What has been decoded
//! holds its memory until the caller drops it; between messages nothing is held but a frame.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};

use super::error::Failure;
use super::memory::{Holder, Known, Memory, NoMemory, Stall, Taken};
use super::weight::Weigh;

/// A flag, and the message's length in 32 bits.
const PREFIX_BYTES: usize = 5;
/// The least that a message takes as it comes; more comes in doubling steps.
const FIRST_STEP_BYTES: usize = 64 << 10;

/// The messages of one call.
pub(super) struct Requests<T> {
    body: Body,
    /// What has come and belongs to no message yet.
    rest: Bytes,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    partial: Option<Partial>,
    max_message_bytes: u64,
    memory: Memory,
    pace: Arc<Pace>,
    _known: Known,
    message: PhantomData<fn() -> T>,
}

/// A message with the memory it takes.
///
/// What it was received in belongs to `message` alone: no one else refers to it.
pub(super) struct Received<T> {
    pub(super) message: T,
    /// Its length as it came.
    pub(super) wire_bytes: usize,
    pub(super) taken: Taken,
}

struct Partial {
    length: usize,
    bytes: BytesMut,
    taken: Taken,
}

/// How the client gets on with a message it has begun.
#[derive(Default)]
struct Pace {
    /// The rest is awaited since, and so much memory waits with it.
    awaited: Mutex<Option<(Instant, u64)>>,
    let_go: CancellationToken,
}

impl Holder for Pace {
    fn stall(&self) -> Option<Stall> {
        let awaited = *self.awaited.lock();
        awaited.filter(|_| !self.let_go.is_cancelled()).map(|(since, bytes)| Stall {
            let_go: false,
            since,
            bytes,
        })
    }

    fn let_go(&self) -> u64 {
        self.let_go.cancel();
        self.awaited.lock().map_or(0, |(_, bytes)| bytes)
    }
}

/// While it lives, it is the client's turn.
struct Awaiting<'a>(&'a Pace);

impl<'a> Awaiting<'a> {
    fn new(pace: &'a Pace, bytes: u64) -> Self {
        *pace.awaited.lock() = Some((Instant::now(), bytes));
        Self(pace)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        *self.0.awaited.lock() = None;
    }
}

impl<T: Message + Default + Weigh> Requests<T> {
    pub(super) fn new(body: Body, memory: &Memory, max_message_bytes: u64) -> Self {
        let pace = Arc::new(Pace::default());
        Self {
            body,
            rest: Bytes::new(),
            prefix: [0; PREFIX_BYTES],
            prefix_bytes: 0,
            partial: None,
            max_message_bytes,
            memory: memory.clone(),
            _known: memory.know(Arc::downgrade(&pace) as Weak<dyn Holder>),
            pace,
            message: PhantomData,
        }
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// A [`Failure`] if there is none, or as [`Requests::next`].
    pub(super) async fn only(mut self) -> Result<Received<T>, Failure> {
        self.next().await?.ok_or_else(|| Failure::invalid_request("message", "is missing"))
    }

    /// The next message; `None` after the last one. May be dropped and called again.
    ///
    /// # Errors
    /// A [`Failure`] if it cannot be read, is too large, stops half way, or there is no memory for it. The call is over
    /// then.
    pub(super) async fn next(&mut self) -> Result<Option<Received<T>>, Failure> {
        loop {
            if let Some(partial) = &mut self.partial {
                partial.fill(&mut self.rest, &self.memory).await?;
                if partial.bytes.len() == partial.length {
                    // Nothing is taken out before the last await, so that nothing is lost if this is dropped.
                    let needed = partial.length as u64 + T::decoded_bytes(&partial.bytes);
                    partial.take_up_to(needed, &self.memory).await?;
                    return self.decode().map(Some);
                }
            } else if self.begin().await? {
                continue;
            }
            if !self.more().await? {
                return match (&self.partial, self.prefix_bytes) {
                    (None, 0) => Ok(None),
                    _ => Err(Failure::invalid_request("message", "ends too early")),
                };
            }
        }
    }

    /// Reads the prefix; returns whether it is complete.
    async fn begin(&mut self) -> Result<bool, Failure> {
        let step = self.rest.len().min(PREFIX_BYTES - self.prefix_bytes);
        self.rest.copy_to_slice(&mut self.prefix[self.prefix_bytes..self.prefix_bytes + step]);
        self.prefix_bytes += step;
        if self.prefix_bytes < PREFIX_BYTES {
            return Ok(false);
        }
        let [flag, length @ ..] = self.prefix;
        if flag != 0 {
            return Err(Failure::invalid_request("message", "is compressed, or not framed as gRPC has it"));
        }
        let length = u32::from_be_bytes(length);
        if u64::from(length) > self.max_message_bytes {
            let found = format!("{length} bytes, the limit is {}", self.max_message_bytes);
            return Err(Failure::request_too_large(&found));
        }
        let length = length as usize;
        let taken = take(&self.memory, length.min(FIRST_STEP_BYTES) as u64).await?;
        // Reserved in the address space only: memory is used as bytes come, and those are counted.
        self.partial = Some(Partial { length, bytes: BytesMut::with_capacity(length), taken });
        self.prefix_bytes = 0;
        Ok(true)
    }

    /// Waits for a frame; returns whether there was one.
    async fn more(&mut self) -> Result<bool, Failure> {
        let _awaiting = self.partial.as_ref().map(|partial| Awaiting::new(&self.pace, partial.taken.bytes()));
        loop {
            let frame = tokio::select! {
                biased;
                () = self.pace.let_go.cancelled() => {
                    return Err(Failure::request_stalled());
                }
                frame = poll_fn(|cx| std::pin::Pin::new(&mut self.body).poll_frame(cx)) => frame,
            };
            match frame.transpose().map_err(|status| broken(&status))? {
                None => return Ok(false),
                Some(frame) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.rest = data;
                        return Ok(true);
                    }
                }
            }
        }
    }

    fn decode(&mut self) -> Result<Received<T>, Failure> {
        let Some(Partial { bytes, taken, length }) = self.partial.take() else {
            return Err(Failure::internal());
        };
        let message = T::decode(bytes.freeze())
            .map_err(|error| Failure::invalid_request("message", error.to_string()))?;
        Ok(Received { message, wire_bytes: length, taken })
    }
}

impl Partial {
    /// Moves what belongs to the message out of `rest`.
    async fn fill(&mut self, rest: &mut Bytes, memory: &Memory) -> Result<(), Failure> {
        let step = rest.len().min(self.length - self.bytes.len());
        let filled = self.bytes.len() + step;
        if filled as u64 > self.taken.bytes() {
            self.take_up_to(self.length.min(2 * filled) as u64, memory).await?;
        }
        self.bytes.extend_from_slice(&rest.split_to(step));
        Ok(())
    }

    async fn take_up_to(&mut self, bytes: u64, memory: &Memory) -> Result<(), Failure> {
        let more = bytes.saturating_sub(self.taken.bytes());
        if more > 0 {
            let more = memory.take_more(more, self.taken.bytes()).await;
            self.taken.absorb(more.map_err(refused)?);
        }
        Ok(())
    }
}

async fn take(memory: &Memory, bytes: u64) -> Result<Taken, Failure> {
    memory.take(bytes).await.map_err(refused)
}

fn refused(error: NoMemory) -> Failure {
    match error {
        NoMemory::TooMuch { limit_bytes, .. } => Failure::request_too_large(&format!(
            "decoded it needs more memory than the {limit_bytes} bytes of grpc.request_memory_bytes; split it"
        )),
        NoMemory::Busy => Failure::busy("grpc.request_memory_bytes"),
    }
}

/// A body that ends before its time. The client that broke off hears nothing of it any more.
fn broken(status: &Status) -> Failure {
    let what = if status.code() == Code::Cancelled { "was broken off" } else { status.message() };
    Failure::invalid_request("message", what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::BufMut;
    use futures_util::poll;
    use futures_util::stream::{Stream, StreamExt};
    use http_body::Frame;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;
    use tonic_types::StatusExt;

    use super::*;
    use crate::proto::{ProduceRequest, Record};

    const LIMIT: u64 = 1 << 20;
    const LONG: Duration = Duration::from_hours(1);

    /// A body that is sent by a test.
    struct Scripted<S>(S);

    impl<S: Stream<Item = Bytes> + Unpin> http_body::Body for Scripted<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_next_unpin(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }

    fn requests(memory: &Memory, max: u64) -> (mpsc::UnboundedSender<Bytes>, Requests<ProduceRequest>) {
        let (sender, frames) = mpsc::unbounded_channel();
        let body = Body::new(Scripted(UnboundedReceiverStream::new(frames)));
        (sender, Requests::new(body, memory, max))
    }

    fn framed(request: &ProduceRequest) -> Bytes {
        let mut wire = BytesMut::new();
        wire.put_u8(0);
        wire.put_u32(request.encoded_len() as u32);
        request.encode(&mut wire).expect("encoded");
        wire.freeze()
    }

    fn request(batch_bytes: usize) -> ProduceRequest {
        ProduceRequest {
            topic: "t".to_owned(),
            record_batch: Some(vec![1; batch_bytes].into()),
            ..Default::default()
        }
    }

    fn reason<T>(outcome: Result<T, Failure>) -> String {
        let Err(failure) = outcome else { panic!("it was read") };
        Status::from(failure).get_details_error_info().expect("ErrorInfo").reason
    }

    async fn free(memory: &Memory) -> bool {
        poll!(Box::pin(memory.take(LIMIT))).is_ready()
    }

    #[tokio::test]
    async fn messages_are_the_same_however_they_are_cut_into_frames() {
        let memory = Memory::new(LIMIT, LONG);
        let sent = [request(0), request(300), ProduceRequest::default(), request(200_000)];
        let wire: Vec<u8> = sent.iter().flat_map(framed).collect();
        for frame_bytes in [1_009, 7, 300_000] {
            let (frames, mut requests) = requests(&memory, LIMIT);
            for frame in wire.chunks(frame_bytes) {
                frames.send(Bytes::copy_from_slice(frame)).expect("sent");
            }
            drop(frames);
            for expected in &sent {
                let received = requests.next().await.expect("readable").expect("a message");
                assert_eq!(received.message, *expected);
                assert!(received.taken.bytes() >= expected.encoded_len() as u64);
            }
            assert!(requests.next().await.expect("an end").is_none());
            assert!(free(&memory).await);
        }
    }

    #[tokio::test]
    async fn a_message_is_refused_on_its_length_alone() {
        let memory = Memory::new(LIMIT, LONG);
        for (length, refused) in [(99, false), (100, false), (101, true), (u32::MAX, true)] {
            let (frames, mut requests) = requests(&memory, 100);
            frames.send([&[0][..], &length.to_be_bytes()].concat().into()).expect("sent");
            let mut reading = Box::pin(requests.next());
            match poll!(&mut reading) {
                std::task::Poll::Ready(outcome) => {
                    assert!(refused);
                    assert_eq!(reason(outcome), "MESSAGE_TOO_LARGE");
                }
                std::task::Poll::Pending => assert!(!refused, "{length} is waited for"),
            }
        }
    }

    #[tokio::test]
    async fn half_a_message_takes_what_has_come_and_makes_room_when_asked() {
        let memory = Memory::new(LIMIT, LONG);
        let wire = framed(&request(900_000));
        let (frames, mut requests) = requests(&memory, LIMIT);
        assert_eq!(requests.pace.stall(), None);
        frames.send(wire.slice(..100_000)).expect("sent");
        let pace = Arc::clone(&requests.pace);
        let mut reading = Box::pin(requests.next());
        assert!(poll!(&mut reading).is_pending());
        assert!(
            poll!(Box::pin(memory.take(LIMIT - 200_000))).is_ready(),
            "the other half is not counted yet"
        );
        assert!(pace.stall().is_some());
        assert!((100_000..=200_000).contains(&pace.let_go()));
        assert_eq!(reason(reading.await), "REQUEST_STALLED");
        drop(requests);
        assert!(free(&memory).await);
    }

    #[tokio::test]
    async fn nothing_is_lost_when_the_reading_is_interrupted() {
        let memory = Memory::new(LIMIT, LONG);
        let (frames, mut requests) = requests(&memory, LIMIT);
        for byte in framed(&request(50)) {
            assert!(poll!(Box::pin(requests.next())).is_pending());
            assert_eq!(requests.pace.stall(), None, "nobody waits for the client");
            frames.send(Bytes::copy_from_slice(&[byte])).expect("sent");
        }
        assert_eq!(requests.next().await.expect("readable").expect("a message").message, request(50));
    }

    #[tokio::test]
    async fn nobody_else_holds_what_a_message_was_received_in() {
        let memory = Memory::new(LIMIT, LONG);
        let (frames, mut requests) = requests(&memory, LIMIT);
        frames.send(framed(&request(50_000))).expect("sent");
        let received = requests.next().await.expect("readable").expect("a message");
        let wire_bytes = request(50_000).encoded_len();
        assert_eq!(received.wire_bytes, wire_bytes);
        assert!(received.message.record_batch.is_some_and(|batch| batch.is_unique()));
    }

    #[tokio::test]
    async fn records_are_refused_where_decoding_would_take_too_much() {
        let memory = Memory::new(LIMIT, LONG);
        for (records, refused) in [(3_000, false), (4_000, true)] {
            let request = ProduceRequest { records: vec![Record::default(); records], ..Default::default() };
            let (frames, requests) = requests(&memory, LIMIT);
            frames.send(framed(&request)).expect("sent");
            let outcome = requests.only().await;
            if refused {
                assert_eq!(reason(outcome), "MESSAGE_TOO_LARGE");
            } else {
                let received = outcome.expect("readable");
                let needed = (records * size_of::<Record>()) as u64;
                assert!(received.taken.bytes() >= needed, "{} < {needed}", received.taken.bytes());
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_invalid_request() {
        let memory = Memory::new(LIMIT, LONG);
        for bad in
            [&b"\x01\0\0\0\0"[..], b"\x07\0\0\0\0", b"\0\0", b"\0\0\0\0\x05abc", b"\0\0\0\0\x02\xff\xff", b""]
        {
            let (frames, requests) = requests(&memory, LIMIT);
            frames.send(Bytes::from_static(bad)).expect("sent");
            drop(frames);
            assert_eq!(reason(requests.only().await), "INVALID_REQUEST", "{bad:?}");
            assert!(free(&memory).await);
        }
    }
}
