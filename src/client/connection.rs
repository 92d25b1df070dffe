//! The connection to one broker: its settings, and stubs with explicit limits over one shared HTTP/2 channel.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::error::Error;
use crate::proto::admin_service_client::AdminServiceClient;
use crate::proto::group_service_client::GroupServiceClient;
use crate::proto::log_service_client::LogServiceClient;

/// Bytes of one stream that may be under way unread: what a slow consumer holds at most, besides what it decodes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of all streams together that may be under way unread.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame that is taken: fewer, larger frames cost less each.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// How a client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// How long making a connection may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long the broker may take to begin its answer to a call. Default: 60 s.
    pub call_timeout: Duration,
    /// The largest message that is taken from the broker. It must have room for the largest batch of any topic
    /// that is read. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// A connection with calls under way is asked for a sign of life this often. Default: 20 s.
    pub keepalive_interval: Duration,
    /// How long to wait for that sign before the connection counts as broken. Default: 10 s.
    pub keepalive_timeout: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_mins(1),
            max_message_bytes: 64 << 20,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// A shared channel; cheap to clone. It connects again by itself when a call finds the connection broken.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    channel: Channel,
    url: Arc<str>,
    max_message_bytes: usize,
}

impl Connection {
    /// Connects, and fails if no broker answers.
    pub(super) async fn open(url: &str, config: &ConnectionConfig) -> Result<Self, Error> {
        let (url, endpoint) = endpoint(url, config)?;
        let channel = endpoint.connect().await.map_err(|error| Error::unreachable(&url, &error))?;
        Ok(Self { channel, url: url.into(), max_message_bytes: config.max_message_bytes })
    }

    /// Connects with the first call.
    pub(super) fn lazy(url: &str, config: &ConnectionConfig) -> Result<Self, Error> {
        let (url, endpoint) = endpoint(url, config)?;
        let channel = endpoint.connect_lazy();
        Ok(Self { channel, url: url.into(), max_message_bytes: config.max_message_bytes })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn log(&self) -> LogServiceClient<Channel> {
        LogServiceClient::new(self.channel.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(usize::MAX)
    }

    pub(super) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(self.max_message_bytes)
    }

    pub(super) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone()).max_decoding_message_size(self.max_message_bytes)
    }

    /// The answer of a call, or its failure with all its facts.
    pub(super) fn answer<T>(&self, result: Result<Response<T>, Status>) -> Result<T, Error> {
        result.map(Response::into_inner).map_err(|status| self.error(&status))
    }

    pub(super) fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.url)
    }
}

/// The address with its scheme, and what to connect to.
fn endpoint(url: &str, config: &ConnectionConfig) -> Result<(String, Endpoint), Error> {
    let given = url;
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let invalid = |detail: &dyn std::fmt::Display| {
        Error::invalid(format!("invalid server address {given:?}: {detail}; use http://HOST:PORT"))
    };
    let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| invalid(&error))?;
    match endpoint.uri().scheme_str() {
        Some("http") if endpoint.uri().host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err(invalid(&"not an http address")),
    }
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .timeout(config.call_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    Ok((url, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_scheme_but_must_be_http() {
        let config = ConnectionConfig::default();
        for good in ["localhost:50051", "http://127.0.0.1:1", "[::1]:50051"] {
            let (url, _) = endpoint(good, &config).expect(good);
            assert!(url.starts_with("http://"), "{url}");
        }
        for bad in ["", "http://", "ftp://x:1", "https://x:1", "a b"] {
            let error = endpoint(bad, &config).expect_err(bad);
            assert_eq!(error.reason(), crate::client::reason::INVALID_REQUEST, "{bad}");
        }
    }
}
