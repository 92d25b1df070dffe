//! Sagwan: a Kafka-style partitioned commit-log server.

pub mod clock;
pub mod config;
pub mod proto;
pub mod types;
pub mod storage;
pub mod record; pub mod broker; pub mod group;
