//! `LogService`: each call handed to the module that owns its work.

use std::sync::Arc;

use futures_util::stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::Failure;
use super::lent::Lent;
use super::panics::guarded;
use super::{Context, fetch, fetch_stream, produce, produce_stream};
use crate::proto;
use crate::proto::log_service_server::LogService;

/// Serves `sagwan.v1.LogService`.
#[derive(Debug)]
pub(super) struct LogApi(pub(super) Arc<Context>);

#[tonic::async_trait]
impl LogService for LogApi {
    type ProduceStreamStream = BoxStream<proto::ProduceStreamResponse>;
    type FetchStreamStream = BoxStream<proto::FetchStreamResponse>;

    async fn produce(
        &self,
        request: Request<proto::ProduceRequest>,
    ) -> Result<Response<proto::ProduceResponse>, Status> {
        let started = produce::start(&self.0.broker, request.into_inner()).await?;
        Ok(Response::new(started.finish().await?))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<proto::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let answers = produce_stream::answers(
            Arc::clone(&self.0.broker),
            request.into_inner(),
            self.0.config.produce_stream_in_flight,
            self.0.shutdown.child_token(),
        );
        Ok(Response::new(Box::pin(guarded(answers))))
    }

    async fn fetch(
        &self,
        request: Request<proto::FetchRequest>,
    ) -> Result<Response<proto::FetchResponse>, Status> {
        let lent = Lent::default();
        let answer = fetch::fetch(&self.0, request.into_inner(), &lent).await?;
        Ok(lent.respond(answer))
    }

    async fn fetch_stream(
        &self,
        request: Request<proto::FetchStreamRequest>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let lent = Lent::default();
        let messages = fetch_stream::open(Arc::clone(&self.0), request.into_inner()).await?;
        let loans = lent.clone();
        let messages = messages.map(move |message| {
            let (message, loan) = message?;
            loans.put(loan);
            Ok(message)
        });
        Ok(lent.respond(Box::pin(messages)))
    }

    async fn list_offsets(
        &self,
        request: Request<proto::ListOffsetsRequest>,
    ) -> Result<Response<proto::ListOffsetsResponse>, Status> {
        Ok(Response::new(fetch::list_offsets(&self.0, request.into_inner()).await?))
    }

    async fn init_producer(
        &self,
        _: Request<proto::InitProducerRequest>,
    ) -> Result<Response<proto::InitProducerResponse>, Status> {
        let producer_id = self.0.broker.init_producer().await.map_err(Failure::from)?;
        Ok(Response::new(proto::InitProducerResponse { producer_id: producer_id.get(), producer_epoch: 0 }))
    }
}
