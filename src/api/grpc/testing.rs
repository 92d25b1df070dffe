//! What the tests of the wrappers around all services share.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};

/// A service that answers each call with what this function makes.
pub(super) struct Answering<F>(pub(super) F);

impl<F, A> Service<http::Request<Body>> for Answering<F>
where
    F: FnMut() -> A,
    A: Future<Output = Result<http::Response<Body>, Infallible>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> A {
        self.0()
    }
}
