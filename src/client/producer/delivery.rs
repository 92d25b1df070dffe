//! What became of a record: a future the sender of the record may await, or drop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::sync::oneshot;
use tonic::Code;

use crate::client::error::{Error, reason};
use crate::types::{Offset, PartitionId};

/// What became of a batch.
pub(super) type Outcome = Result<Appended, Error>;

/// One cell for all the records of a batch.
pub(super) type Settlement = Shared<oneshot::Receiver<Outcome>>;

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) base_offset: Offset,
    pub(super) log_append_time_ms: Option<i64>,
}

/// Where a batch's outcome is put, and where its records look for it.
pub(super) fn settlement() -> (oneshot::Sender<Outcome>, Settlement) {
    let (sender, receiver) = oneshot::channel();
    (sender, receiver.shared())
}

/// A record that was accepted; resolves when the broker has acknowledged it, or it is given up. Dropping it does not
/// take the record back.
#[derive(Debug)]
#[must_use = "a record is appended only when its delivery says so"]
pub struct Delivery {
    pub(super) settlement: Settlement,
    pub(super) partition: PartitionId,
    /// The record's place in its batch.
    pub(super) index: u32,
    pub(super) timestamp_ms: i64,
}

/// A record that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: PartitionId,
    /// Its place there.
    pub offset: Offset,
    /// Its timestamp: the broker's, if the topic keeps log-append time.
    pub timestamp_ms: i64,
}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let settled = std::task::ready!(self.settlement.poll_unpin(context));
        Poll::Ready(flatten(settled).map(|appended| Delivered {
            partition: self.partition,
            offset: appended.base_offset.plus(self.index),
            timestamp_ms: appended.log_append_time_ms.unwrap_or(self.timestamp_ms),
        }))
    }
}

/// The outcome, or that there will be none.
pub(super) fn flatten(settled: Result<Outcome, oneshot::error::RecvError>) -> Outcome {
    settled.unwrap_or_else(|_| {
        let message =
            "the producer was dropped before the broker answered: the record may or may not be appended";
        Err(Error::new(Code::Cancelled, reason::ABANDONED, message))
    })
}
