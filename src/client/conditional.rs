//! An append with a condition: one batch, that is appended only if it gets just the offset that the caller expects.

use super::error::Error;
use super::{Client, Offset, ProducerRecord, TopicPartition};
use crate::proto;

impl Client {
    /// Appends `records` to `partition` as one batch, whole or not at all, and only if the first of them gets the offset
    /// `expected`. Their own topics and partitions are not looked at.
    ///
    /// A log with a single writer so learns of any other one; a counter, or any compare-and-set, reads to the end, decides,
    /// and appends with that end as `expected`: of those who do so at a time, one succeeds.
    ///
    /// # Errors
    /// `UNEXPECTED_OFFSET` ([`reason`](super::reason)), with `next_offset` in its metadata; the broker's others, or the
    /// connection's. Where [`Error::is_outcome_unknown`], what is at `expected` tells.
    pub async fn append_at(
        &self,
        partition: &TopicPartition,
        expected: Offset,
        records: &[ProducerRecord],
    ) -> Result<(), Error> {
        let request = proto::ProduceRequest {
            topic: partition.topic.as_str().to_owned(),
            partition: Some(partition.partition.get()),
            records: records.iter().map(ProducerRecord::to_proto).collect(),
            expected_offset: Some(expected.get()),
            ..proto::ProduceRequest::default()
        };
        let answer = self.connection.answer(self.connection.log().produce(request).await)?;
        let refused = answer.results.into_iter().find_map(|result| result.error);
        refused.map_or(Ok(()), |error| Err(Error::from_proto(error)))
    }
}
