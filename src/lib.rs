//! Sagwan: a Kafka-style partitioned commit-log server.

pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod group;
pub mod proto;
pub mod record;
pub mod server;
pub mod storage;
pub mod types;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
pub struct Readme;
