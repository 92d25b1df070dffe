//! A request that the generated glue cannot read: told as every other refusal is, with ErrorInfo.
//!
//! The transport says it by a bare status. Statuses of this edge always carry details, and of its codes the transport
//! uses two for requests only: OUT_OF_RANGE for a message over the limit, and INTERNAL for one that is cut off, framed
//! wrongly or no protobuf. So a bare one of those two says by its code alone what happened.

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};

use futures_util::future::{FutureExt, Map};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use super::error::Failure;

type Answer = Result<http::Response<Body>, Infallible>;

/// Wraps all services of a server.
#[derive(Debug, Clone)]
pub(super) struct TellUnreadable<S>(pub(super) S);

impl<S> Service<http::Request<Body>> for TellUnreadable<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Future<Output = Answer>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Map<S::Future, fn(Answer) -> Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map(|answer| {
            answer.map(|answer| match Status::from_header_map(answer.headers()).as_ref().and_then(failure) {
                Some(failure) => Status::from(failure).into_http(),
                None => answer,
            })
        })
    }
}

fn failure(status: &Status) -> Option<Failure> {
    match status.code() {
        _ if !status.details().is_empty() => None,
        Code::OutOfRange => Some(Failure::request_too_large(status.message())),
        Code::Internal => Some(Failure::invalid_request("message", status.message())),
        _ => None,
    }
}
