//! `LogService`: each call handed to the module that owns its work.
//!
//! The other services use the glue that is generated for them. This one's messages are large and many, and the glue
//! keeps what it reads and writes in buffers that it neither counts nor lets go of; so it is served from the request's
//! body to the answer's.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, Stream};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{EncodeBody, SingleMessageCompressionOverride};
use tonic::codegen::{Service, http};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic_prost::ProstEncoder;

use super::error::Failure;
use super::listener::Cut;
use super::panics::guarded;
use super::receive::{Received, Requests};
use super::unread::let_go_unread;
use super::weight::Weigh;
use super::{Context, fetch, fetch_stream, produce, produce_stream};
use crate::proto;

/// Serves `sagwan.v1.LogService`.
#[derive(Debug, Clone)]
pub(super) struct LogApi(pub(super) Arc<Context>);

impl NamedService for LogApi {
    const NAME: &'static str = proto::log_service_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for LogApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let context = Arc::clone(&self.0);
        async move {
            let answer = serve(context, request).await;
            Ok(answer.unwrap_or_else(|failure| Status::from(failure).into_http()))
        }
        .boxed()
    }
}

async fn serve(context: Arc<Context>, request: http::Request<Body>) -> Result<http::Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    let Cut(cut) = head.extensions.get::<Cut>().cloned().unwrap_or_default();
    let method = head.uri.path().rsplit_once('/').map(|(_, method)| method);
    match method {
        Some("Produce") => {
            let Received { message, wire_bytes, taken } = requests(&context, body).only().await?;
            let started = produce::start(&context.broker, message, wire_bytes).await?;
            // From here on the broker's queue counts it.
            drop(taken);
            Ok(one(started.finish().await?))
        }
        Some("ProduceStream") => {
            let answers = produce_stream::answers(
                Arc::clone(&context.broker),
                requests(&context, body),
                context.config.produce_stream_in_flight,
                context.shutdown.child_token(),
            );
            Ok(many(let_go_unread(guarded(answers), &context.requests)))
        }
        Some("Fetch") => {
            let Received { message, .. } = requests(&context, body).only().await?;
            Ok(response(Body::new(fetch::fetch(&context, message, cut).await?)))
        }
        Some("FetchStream") => {
            let Received { message, .. } = requests(&context, body).only().await?;
            Ok(response(Body::new(fetch_stream::open(context, message, cut).await?)))
        }
        Some("ListOffsets") => {
            let Received { message, .. } = requests(&context, body).only().await?;
            Ok(one(fetch::list_offsets(&context, message).await?))
        }
        Some("InitProducer") => {
            let Received { message: proto::InitProducerRequest {}, .. } =
                requests(&context, body).only().await?;
            let producer_id = context.broker.init_producer().await?.get();
            Ok(one(proto::InitProducerResponse { producer_id, producer_epoch: 0 }))
        }
        _ => Ok(Status::unimplemented("sagwan.v1.LogService has no such method").into_http()),
    }
}

fn requests<T: Message + Default + Weigh>(context: &Context, body: Body) -> Requests<T> {
    Requests::new(body, &context.requests, context.config.max_message_bytes)
}

fn one<T: Message + 'static>(message: T) -> http::Response<Body> {
    many(stream::iter([Ok(message)]))
}

fn many<T: Message + 'static>(
    messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> http::Response<Body> {
    let encoder = ProstEncoder::<T>::default();
    let no_override = SingleMessageCompressionOverride::default();
    response(Body::new(EncodeBody::new_server(encoder, messages, None, no_override, None)))
}

fn response(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}
