//! `GroupService`: how far consumer groups have come.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Context;
use super::convert;
use super::error::Failure;
use crate::group::AllCommitted;
use crate::proto;
use crate::proto::group_service_server::GroupService;

/// Serves `sagwan.v1.GroupService`.
#[derive(Debug)]
pub(super) struct GroupApi(pub(super) Arc<Context>);

#[tonic::async_trait]
impl GroupService for GroupApi {
    async fn commit_offsets(
        &self,
        request: Request<proto::CommitOffsetsRequest>,
    ) -> Result<Response<proto::CommitOffsetsResponse>, Status> {
        let request = request.into_inner();
        let group = convert::group(&request.group)?;
        let commits = request.offsets.into_iter().map(convert::commit).collect::<Result<_, _>>()?;
        self.0.groups.commit(&group, commits).await.map_err(Failure::from)?;
        Ok(Response::new(proto::CommitOffsetsResponse {}))
    }

    async fn fetch_offsets(
        &self,
        request: Request<proto::FetchOffsetsRequest>,
    ) -> Result<Response<proto::FetchOffsetsResponse>, Status> {
        let request = request.into_inner();
        let group = convert::group(&request.group)?;
        let asked = request
            .partitions
            .iter()
            .map(|asked| Ok((convert::topic(&asked.topic)?, asked.partition)))
            .collect::<Result<Vec<_>, Failure>>()?;
        let (committed, loss) = if asked.is_empty() {
            let AllCommitted { offsets, loss } =
                self.0.groups.all_committed(&group).map_err(Failure::from)?;
            (offsets, loss)
        } else {
            (self.0.groups.committed(&group, &asked).map_err(Failure::from)?, None)
        };
        let offsets = committed.into_iter().map(convert::committed).collect();
        let error = loss.map(|loss| Failure::from(loss).into());
        Ok(Response::new(proto::FetchOffsetsResponse { offsets, error }))
    }

    async fn list_groups(
        &self,
        _: Request<proto::ListGroupsRequest>,
    ) -> Result<Response<proto::ListGroupsResponse>, Status> {
        let groups = self.0.groups.list();
        let groups = groups
            .into_iter()
            .map(|(group, partitions)| proto::GroupListing {
                group: group.to_string(),
                partitions: partitions as i32,
            })
            .collect();
        Ok(Response::new(proto::ListGroupsResponse { groups }))
    }
}
