//! A panic in a handler is a bug of ours; the client gets INTERNAL for that one call, and the connection with its other
//! calls goes on. The panic itself has been logged by the panic hook.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::future::{CatchUnwind, FutureExt, Map};
use futures_util::stream::{Stream, StreamExt};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::error::Failure;

type Answer = Result<http::Response<Body>, Infallible>;

/// Wraps all services of a server.
#[derive(Debug, Clone)]
pub(super) struct CatchPanic<S>(pub(super) S);

impl<S> Service<http::Request<Body>> for CatchPanic<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Map<CatchUnwind<AssertUnwindSafe<S::Future>>, fn(Result<Answer, Box<dyn Any + Send>>) -> Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Nothing of the call outlives it, so no state can be seen half changed.
        AssertUnwindSafe(self.0.call(request)).catch_unwind().map(|outcome| match outcome {
            Ok(answer) => answer,
            Err(_) => Ok(Status::from(Failure::internal()).into_http()),
        })
    }
}

/// A response stream that ends with INTERNAL where polling it panics.
pub(super) fn guarded<T: Send>(
    stream: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    AssertUnwindSafe(stream)
        .catch_unwind()
        .map(|item| item.unwrap_or_else(|_| Err(Failure::internal().into())))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tonic::Code;

    use super::super::testing::Answering;
    use super::*;

    #[tokio::test]
    async fn a_panicking_handler_answers_internal() {
        let broken = Answering(|| async { panic!("a bug") });
        let Ok(answer) = CatchPanic(broken).call(http::Request::new(Body::empty())).await;
        let status = Status::from_header_map(answer.headers()).expect("a gRPC status");
        assert_eq!(status.code(), Code::Internal);
    }

    #[tokio::test]
    async fn a_panicking_stream_ends_with_internal() {
        let panics = stream::iter([1, 2]).map(|n| if n == 1 { Ok(n) } else { panic!("a bug") });
        let items: Vec<Result<i32, Status>> = guarded(panics).collect().await;
        let [Ok(1), Err(status)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!(status.code(), Code::Internal);
    }
}
