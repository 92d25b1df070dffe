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
    /// Puts a loan down, before the message that borrows is encoded.
    pub(super) fn put(&self, loan: Loan) {
        self.0.lock().push(loan);
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
