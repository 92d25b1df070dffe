//! A client that does not try again.

use std::collections::BTreeMap;

use bytes::Bytes;
use sagwan::proto::admin_service_client::AdminServiceClient;
use sagwan::proto::group_service_client::GroupServiceClient;
use sagwan::proto::log_service_client::LogServiceClient;
use sagwan::proto::{
    BrokerCounters, CommitOffsetsRequest, CreateTopicRequest, DeleteRecordsPartition, DeleteRecordsRequest,
    DeleteTopicRequest, DescribeBrokerRequest, DescribeTopicRequest, FetchOffsetsRequest, FetchPartition,
    FetchRequest, OffsetCommit, PartitionDescription, Position, ProduceRequest, Record, position,
};
use storage_tests::load::connect;
use storage_tests::process::ServerProcess;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) struct Client(Channel);

/// A large record.
pub(crate) fn large() -> Vec<u8> {
    vec![7; 64 << 10]
}

impl Client {
    pub(crate) async fn new(server: &ServerProcess) -> Self {
        Self(connect(server).await)
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.0.clone())
    }

    pub(crate) async fn create(
        &self,
        topic: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> Result<(), Status> {
        let config: BTreeMap<_, _> =
            config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = CreateTopicRequest {
            name: topic.to_owned(),
            partitions: Some(partitions),
            config: config.into_iter().collect(),
            validate_only: false,
        };
        self.admin().create_topic(request).await.map(drop)
    }

    pub(crate) async fn delete(&self, topic: &str) -> Result<(), Status> {
        self.admin().delete_topic(DeleteTopicRequest { name: topic.to_owned() }).await.map(drop)
    }

    /// Everything below the end of partition 0.
    pub(crate) async fn delete_records(&self, topic: &str) {
        let partitions = vec![DeleteRecordsPartition { partition: 0, before_offset: -1 }];
        let request = DeleteRecordsRequest { topic: topic.to_owned(), partitions };
        let answer = self.admin().delete_records(request).await.expect("an answer");
        assert_eq!(answer.into_inner().partitions[0].error, None);
    }

    /// One record; its offset.
    pub(crate) async fn produce(&self, topic: &str, partition: i32, value: &[u8]) -> Result<i64, Status> {
        let record = Record { value: Some(Bytes::copy_from_slice(value)), ..Record::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records: vec![record],
            ..ProduceRequest::default()
        };
        let mut log = LogServiceClient::new(self.0.clone());
        log.produce(request).await.map(|answer| answer.into_inner().results[0].base_offset)
    }

    /// Large records until one is refused; how many were not.
    pub(crate) async fn fill(&self, topic: &str) -> (usize, Status) {
        let value = large();
        for count in 0.. {
            if let Err(status) = self.produce(topic, 0, &value).await {
                return (count, status);
            }
        }
        unreachable!("a disk has an end")
    }

    /// The values there are, with their offsets.
    pub(crate) async fn read(&self, topic: &str, partition: i32) -> Vec<(i64, Bytes)> {
        let mut log = LogServiceClient::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        let (mut next, mut records) = (0, Vec::new());
        loop {
            let partition = FetchPartition {
                topic: topic.to_owned(),
                partition,
                position: Some(Position { at: Some(position::At::Offset(next)) }),
            };
            let request = FetchRequest { partitions: vec![partition], ..FetchRequest::default() };
            let data = log.fetch(request).await.expect("readable").into_inner().partitions.remove(0);
            assert_eq!(data.error, None);
            records.extend(
                data.records.into_iter().map(|record| (record.offset, record.value.expect("a value"))),
            );
            if data.next_offset >= data.high_watermark {
                return records;
            }
            next = data.next_offset;
        }
    }

    pub(crate) async fn commit(&self, topic: &str, offset: i64, metadata: &str) -> Result<(), Status> {
        let commit = OffsetCommit {
            topic: topic.to_owned(),
            offset,
            metadata: metadata.to_owned(),
            ..OffsetCommit::default()
        };
        let request = CommitOffsetsRequest { group: "group".to_owned(), offsets: vec![commit] };
        GroupServiceClient::new(self.0.clone()).commit_offsets(request).await.map(drop)
    }

    pub(crate) async fn committed(&self, topic: &str) -> i64 {
        let request = FetchOffsetsRequest { group: "group".to_owned(), partitions: Vec::new() };
        let answer = GroupServiceClient::new(self.0.clone()).fetch_offsets(request).await.expect("an answer");
        let offsets = answer.into_inner().offsets;
        offsets.iter().find(|offset| offset.topic == topic).expect("committed").offset
    }

    pub(crate) async fn partition(&self, topic: &str, partition: usize) -> PartitionDescription {
        let request = DescribeTopicRequest { name: topic.to_owned(), allow_auto_create: false };
        let answer = self.admin().describe_topic(request).await.expect("a topic");
        answer.into_inner().topic.expect("described").partitions.remove(partition)
    }

    pub(crate) async fn counters(&self) -> BrokerCounters {
        let answer = self.admin().describe_broker(DescribeBrokerRequest {}).await.expect("a broker");
        answer.into_inner().counters.expect("counters")
    }
}

/// The reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().expect("a reason").reason.clone()
}

/// It is refused for want of room, and may be tried again.
pub(crate) fn assert_no_room(status: &Status) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::ResourceExhausted, "STORAGE_FULL"),
        "{status}"
    );
    assert!(status.get_error_details().retry_info().is_some());
}
