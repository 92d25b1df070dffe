//! A call whose time is up ends with DEADLINE_EXCEEDED, as gRPC has it. The transport by itself would say CANCELLED, and
//! since its answer often arrives before the client's own clock has run out, that is what clients would see.

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, FutureExt, Map};
use tokio::time::Timeout;
use tokio::time::error::Elapsed;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

type Answer = Result<http::Response<Body>, Infallible>;

/// The protocol's header: at most eight digits and a unit.
const TIMEOUT_HEADER: &str = "grpc-timeout";
const MAX_DIGITS: usize = 8;

/// Wraps all services of a server. Bounds the time until a call is answered; a response stream that has begun is ended
/// by its client.
#[derive(Debug, Clone)]
pub(super) struct Deadline<S>(pub(super) S);

impl<S> Service<http::Request<Body>> for Deadline<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Future<Output = Answer>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Map<Timeout<S::Future>, fn(Result<Answer, Elapsed>) -> Answer>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let timeout = request.headers().get(TIMEOUT_HEADER).and_then(|value| parse(value.to_str().ok()?));
        let answer = self.0.call(request);
        let Some(timeout) = timeout else { return Either::Left(answer) };
        // Set before the transport's own, and asked first: it is this one that speaks.
        Either::Right(tokio::time::timeout(timeout, answer).map(|outcome| {
            outcome.unwrap_or_else(|Elapsed { .. }| {
                Ok(Status::deadline_exceeded("the deadline of the call has passed").into_http())
            })
        }))
    }
}

/// `None` for what is no timeout: the transport disregards it too.
fn parse(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tonic::Code;

    use super::super::testing::Answering;
    use super::*;

    #[tokio::test]
    async fn a_call_whose_time_is_up_says_so() {
        let mut request = http::Request::new(Body::empty());
        request.headers_mut().insert(TIMEOUT_HEADER, http::HeaderValue::from_static("1m"));
        let Ok(answer) = Deadline(Answering(pending)).call(request).await;
        let status = Status::from_header_map(answer.headers()).expect("a gRPC status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parse("3M"), Some(Duration::from_mins(3)));
        assert_eq!(parse("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse("500m"), Some(Duration::from_millis(500)));
        assert_eq!(parse("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(parse("7n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "5", "1.5S", "-1S", "123456789S", "5s", "5é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
