//! `AdminService`: topics, and the broker itself.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Context;
use super::convert;
use super::error::Failure;
use super::fetch::MAX_PARTITIONS_PER_CALL;
use crate::broker::{TopicSpec, TopicUpdate};
use crate::proto;
use crate::proto::admin_service_server::AdminService;

/// Serves `sagwan.v1.AdminService`.
#[derive(Debug)]
pub(super) struct AdminApi(pub(super) Arc<Context>);

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn create_topic(
        &self,
        request: Request<proto::CreateTopicRequest>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let spec = TopicSpec {
            name: convert::topic(&request.name)?,
            partitions: request.partitions.map(i64::from),
            config: convert::settings(request.config),
            validate_only: request.validate_only,
        };
        let topic = self.0.broker.create_topic(spec).await.map_err(Failure::from)?;
        Ok(Response::new(proto::CreateTopicResponse { topic: Some(convert::topic_description(topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        let name = convert::topic(&request.into_inner().name)?;
        self.0.broker.delete_topic(&name).await.map_err(Failure::from)?;
        Ok(Response::new(proto::DeleteTopicResponse {}))
    }

    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let include_internal = request.into_inner().include_internal;
        let mut topics = self.0.broker.topics();
        topics.retain(|topic| include_internal || !topic.name.is_internal());
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let topics = topics.iter().map(convert::topic_listing).collect();
        Ok(Response::new(proto::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<proto::DescribeTopicRequest>,
    ) -> Result<Response<proto::DescribeTopicResponse>, Status> {
        let request = request.into_inner();
        let name = convert::topic(&request.name)?;
        if request.allow_auto_create {
            self.0.broker.ensure_topic(&name).await.map_err(Failure::from)?;
        }
        let topic = self.0.broker.describe_topic(&name).map_err(Failure::from)?;
        Ok(Response::new(proto::DescribeTopicResponse { topic: Some(convert::topic_description(topic)) }))
    }

    async fn update_topic(
        &self,
        request: Request<proto::UpdateTopicRequest>,
    ) -> Result<Response<proto::UpdateTopicResponse>, Status> {
        let request = request.into_inner();
        let update = TopicUpdate {
            name: convert::topic(&request.name)?,
            set: convert::settings(request.set),
            reset: request.reset,
            partitions: request.partitions.map(i64::from),
        };
        let topic = self.0.broker.update_topic(update).await.map_err(Failure::from)?;
        Ok(Response::new(proto::UpdateTopicResponse { topic: Some(convert::topic_description(topic)) }))
    }

    async fn delete_records(
        &self,
        request: Request<proto::DeleteRecordsRequest>,
    ) -> Result<Response<proto::DeleteRecordsResponse>, Status> {
        let request = request.into_inner();
        let topic = convert::topic(&request.topic)?;
        convert::count("partitions", request.partitions.len(), MAX_PARTITIONS_PER_CALL)?;
        let mut partitions = Vec::with_capacity(request.partitions.len());
        let mut first_failure = None;
        for asked in &request.partitions {
            let outcome = self.0.broker.delete_records(&topic, asked.partition, asked.before_offset).await;
            let mut deleted = proto::DeletedRecords { partition: asked.partition, ..Default::default() };
            match outcome {
                Ok(offset) => deleted.log_start_offset = offset.get(),
                Err(error) => {
                    let failure = Failure::from(error);
                    deleted.error = Some(failure.clone().into());
                    first_failure.get_or_insert(failure);
                }
            }
            partitions.push(deleted);
        }
        match first_failure {
            Some(failure) if partitions.iter().all(|deleted| deleted.error.is_some()) => Err(failure.into()),
            _ => Ok(Response::new(proto::DeleteRecordsResponse { partitions })),
        }
    }

    async fn accept_loss(
        &self,
        request: Request<proto::AcceptLossRequest>,
    ) -> Result<Response<proto::AcceptLossResponse>, Status> {
        let proto::AcceptLossRequest { topic, partition } = request.into_inner();
        let topic = convert::topic(&topic)?;
        let accepted = self.0.broker.accept_loss(&topic, partition).await.map_err(Failure::from)?;
        Ok(Response::new(proto::AcceptLossResponse {
            first_offset: accepted.first.get(),
            last_offset: accepted.next.get() - 1,
            next_offset: accepted.next.get(),
            leader_epoch: accepted.leader_epoch.0,
        }))
    }

    async fn describe_broker(
        &self,
        _: Request<proto::DescribeBrokerRequest>,
    ) -> Result<Response<proto::DescribeBrokerResponse>, Status> {
        Ok(Response::new(convert::broker_description(self.0.broker.status())))
    }
}
