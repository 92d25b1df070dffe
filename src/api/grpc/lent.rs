//! What answers borrow from segment maps, until the transport has made its copy.
//!
//! Encoding a message copies the record bytes out of the maps, and a page can vanish even then: the copy has zeros in its
//! place. So the leases of what goes into a message are put down in the answer's [`Lent`], and asked when the message has
//! been encoded and before any of it is sent: the answer ends with the failure instead.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{FutureExt, Map};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Response, Status};

use super::error::Failure;
use crate::storage::{Lease, ReadBatches};
use crate::types::TopicName;

type Answer = Result<http::Response<Body>, Infallible>;

/// What one partition's part of a message borrows.
#[derive(Debug, Clone)]
pub(super) struct Loan {
    lease: Lease,
    topic: TopicName,
    partition: i32,
}

impl Loan {
    /// What a message borrows that has some of `batches` in it; nothing of what is in memory of its own.
    pub(super) fn of(batches: &ReadBatches, topic: &TopicName, partition: i32) -> Option<Self> {
        let lease = &batches.lease;
        lease.is_of_map().then(|| Self { lease: lease.clone(), topic: topic.clone(), partition })
    }
}

/// What the messages of one answer borrow that have not been sent yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Lent(Arc<Mutex<Vec<Loan>>>);

impl Lent {
    /// Puts a loan down, if there is one, before the message that borrows is encoded.
    pub(super) fn put(&self, loan: Option<Loan>) {
        if let Some(loan) = loan {
            self.0.lock().push(loan);
        }
    }

    /// The answer, which is looked at as it leaves through [`CheckLent`].
    pub(super) fn respond<T>(self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        response.extensions_mut().insert(self);
        response
    }

    /// Gives back what has been borrowed, and says whether it was all there.
    fn settle(&self) -> Result<(), Failure> {
        let loans = std::mem::take(&mut *self.0.lock());
        match loans.iter().find(|loan| !loan.lease.is_intact()) {
            None => Ok(()),
            Some(Loan { topic, partition, .. }) => Err(Failure::vanished(topic.as_str(), *partition)),
        }
    }
}

/// Wraps all services of a server.
#[derive(Debug, Clone)]
pub(super) struct CheckLent<S>(pub(super) S);

impl<S> Service<http::Request<Body>> for CheckLent<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Map<S::Future, fn(Answer) -> Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map(|answer| {
            answer.map(|mut answer| match answer.extensions_mut().remove::<Lent>() {
                Some(lent) => answer.map(|body| Body::new(Checked { body, lent, ended: false })),
                None => answer,
            })
        })
    }
}

/// A body whose messages have borrowed. Each frame holds whole messages, encoded in the poll that returns it.
struct Checked<B> {
    body: B,
    lent: Lent,
    /// It has been cut short.
    ended: bool,
}

impl<B: HttpBody<Data = Bytes, Error = Status> + Unpin> HttpBody for Checked<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Err(failure) = self.lent.settle() else { return Poll::Ready(frame) };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        let told = Status::from(failure).add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::ops::Range;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::poll_fn;
    use tonic::Code;

    use super::*;
    use crate::storage::mmap;

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
        fn has_failed(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A body that borrows for each of its frames, and fails the map while it makes the last one.
    struct Borrowing {
        lent: Lent,
        map: Arc<Fragile>,
        frames: usize,
    }

    impl HttpBody for Borrowing {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let map: Arc<dyn mmap::Map> = self.map.clone();
            let batches = ReadBatches { lease: Lease::of(&map), ..ReadBatches::default() };
            let topic = TopicName::parse("orders").expect("a name");
            self.lent.put(Loan::of(&batches, &topic, 3));
            self.frames -= 1;
            self.map.0.store(self.frames == 0, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"copied")))))
        }
    }

    fn next(body: &mut Checked<Borrowing>) -> Option<Frame<Bytes>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).now_or_never().expect("ready");
        frame.map(|frame| frame.expect("a frame"))
    }

    #[test]
    fn a_copy_that_was_made_while_its_pages_vanished_is_not_sent() {
        let (lent, map) = (Lent::default(), Arc::new(Fragile::default()));
        let body = Borrowing { lent: lent.clone(), map: Arc::clone(&map), frames: 2 };
        let mut checked = Checked { body, lent, ended: false };
        assert!(next(&mut checked).expect("the first").is_data());
        assert_eq!(Arc::strong_count(&map), 2, "what has been copied is given back");
        let trailers = next(&mut checked).expect("the end").into_trailers().expect("not the second");
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), Code::Internal);
        let part = tonic_types::StatusExt::get_details_error_info(&status).expect("ErrorInfo");
        assert_eq!(part.reason, "STORAGE_ERROR");
        assert_eq!(part.metadata.get("partition").map(String::as_str), Some("3"));
        assert!(checked.is_end_stream() && next(&mut checked).is_none());
    }
}
