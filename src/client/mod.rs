//! The Rust client: produce, consume, administer, over one connection.
//!
//! [`Client`] is the way in; it is cheap to clone, and all that is made of it shares its connection. A [`Producer`]
//! batches records and appends them; a [`Consumer`] reads partitions from where it is told; [`Admin`] looks after
//! topics and [`Groups`] after committed offsets. Every failure is an [`Error`]. The client knows the contract (`proto/`)
//! and the batch format, and nothing of the server.
//!
//! ```no_run
//! use sagwan::client::{
//!     Client, ConsumerConfig, Error, Position, ProducerConfig, ProducerRecord, TopicName,
//! };
//!
//! # async fn run() -> Result<(), Error> {
//! let client = Client::connect("http://127.0.0.1:50051").await?;
//! let orders = TopicName::parse("orders")?;
//!
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send(ProducerRecord::new(orders.clone()).key("customer-7").value("12 eggs")).await?;
//! let delivered = delivery.await?;
//! println!("durable at {}, offset {}", delivered.partition, delivered.offset);
//!
//! let mut consumer = client.consumer(ConsumerConfig::default().topic(orders, Position::Earliest)).await?;
//! while let Some(record) = consumer.next().await {
//!     let record = record?;
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(()) }
//! ```

mod admin;
mod backoff;
mod conditional;
mod connection;
mod consumer;
mod description;
mod error;
mod groups;
mod position;
mod producer;
mod record;

pub use admin::{AcceptedLoss, Admin, NewTopic, TopicUpdate};
pub use connection::ConnectionConfig;
pub use consumer::{Consumer, ConsumerConfig};
pub use description::{
    BrokerCounters, BrokerInfo, ConfigEntry, ListedOffset, PartitionInfo, PartitionState, TopicInfo,
    TopicListing,
};
pub use error::{Error, reason};
pub use groups::{CommittedOffset, CommittedOffsets, GroupListing, Groups, OffsetCommit};
pub use position::{Position, Start, TopicPartition};
pub use producer::{Delivered, Delivery, Producer, ProducerConfig, Trouble};
pub use record::{ConsumedRecord, Header, ProducerRecord};
pub use tonic::Code;

pub use crate::record::Codec;
pub use crate::types::{GroupName, LeaderEpoch, Offset, PartitionId, TopicName};

use tonic::Status;
use tonic::transport::Channel;

use crate::proto::log_service_client::LogServiceClient;
use connection::Connection;

/// A connection to a broker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to `http://HOST:PORT`; the scheme may be left out. A connection that breaks is made anew by the next
    /// call that needs it.
    ///
    /// # Errors
    /// When the address is none, or no broker answers there.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, &ConnectionConfig::default()).await
    }

    /// Connects with settings of one's own.
    ///
    /// # Errors
    /// When the address is none, or no broker answers there.
    pub async fn connect_with(url: &str, config: &ConnectionConfig) -> Result<Self, Error> {
        Ok(Self { connection: Connection::open(url, config).await? })
    }

    /// As [`connect_with`](Self::connect_with), but the connection is made by the first call. Call it within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// When the address is none.
    pub fn connect_lazy(url: &str, config: &ConnectionConfig) -> Result<Self, Error> {
        Ok(Self { connection: Connection::lazy(url, config)? })
    }

    /// The broker's address.
    pub fn url(&self) -> &str {
        self.connection.url()
    }

    /// A producer: it has a buffer and a task of its own, so one is enough for many topics. Call it within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        Producer::start(self.connection.clone(), config)
    }

    /// A consumer of the partitions the configuration names; their starts are turned into offsets before this
    /// returns.
    ///
    /// # Errors
    /// When a topic, a partition or an offset asked for is not there, or the broker does not answer. A partition that
    /// cannot be read is the [`Consumer`]'s to tell.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::start(self.connection.clone(), config).await
    }

    /// The generated stub over this connection, for who measures what the client would hide.
    pub(crate) fn log_service(&self) -> LogServiceClient<Channel> {
        self.connection.log()
    }

    /// The facts of a call that was made on [`log_service`](Self::log_service) and failed.
    pub(crate) fn error_of(&self, status: &Status) -> Error {
        self.connection.error(status)
    }

    /// Topics, and the broker itself.
    pub fn admin(&self) -> Admin {
        Admin::new(self.connection.clone())
    }

    /// Committed offsets of consumer groups.
    pub fn groups(&self) -> Groups {
        Groups::new(self.connection.clone())
    }
}
