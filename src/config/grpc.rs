//! The gRPC listener.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{ConfigError, in_range, require};

/// Settings of the gRPC edge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// Where to listen: an IP address or a host name, and a port. Port 0 picks a free one. Default: `127.0.0.1:50051`.
    #[serde(deserialize_with = "address")]
    pub addr: SocketAddr,
    /// Threads that serve connections. 0 to 1,024; 0: half as many as there are processors, rounded up, since appending
    /// and syncing have threads of their own; who has many clients on other machines, and processors idle, sets more. Heeded by `sagwan serve`; a [`Server`](crate::server::Server) within a
    /// program runs on that program's. Default: 0.
    pub threads: usize,
    /// The largest message a client may send; refused on its declared length. 64 KiB to 1 GiB. Default: 32 MiB.
    pub max_message_bytes: u64,
    /// Memory for requests that are being received and decoded, in all. 16 MiB to 1 TiB, and at least twice
    /// `max_message_bytes`. Default: 96 MiB.
    pub request_memory_bytes: u64,
    /// Memory for answers to fetches that clients have not taken yet, in all. 16 MiB to 1 TiB, and at least the larger of
    /// `broker.fetch_max_bytes` and `broker.max_message_bytes_limit`, and 32 MiB more. Default: 96 MiB.
    pub response_memory_bytes: u64,
    /// Calls under way on one connection. 1 to 1,000,000. Default: 1,024.
    pub max_concurrent_streams: u32,
    /// Connections in all; further ones wait to be accepted. 1 to 1,000,000; reduced to what the limit of open files
    /// allows. Default: 4,096.
    pub max_connections: usize,
    /// Requests of one ProduceStream that are worked on at a time; beyond it the stream waits. 1 to 65,536.
    /// Default: 256.
    pub produce_stream_in_flight: usize,
    /// A quiet connection is asked for a sign of life this often, in ms. 1,000 to 86,400,000. Default: 60,000.
    pub keepalive_interval_ms: u64,
    /// How long to wait for that sign before the connection is closed, in ms. 1,000 to 3,600,000. Default: 20,000.
    pub keepalive_timeout_ms: u64,
    /// An answer of which the reader takes nothing for so long is ended, in ms. 1,000 to 86,400,000. Default: 60,000.
    pub stall_timeout_ms: u64,
    /// A request of which nothing more comes for so long, after its beginning, is refused, in ms. 1,000 to 86,400,000.
    /// Default: 30,000.
    pub request_stall_timeout_ms: u64,
    /// At shutdown, how long calls under way may take to finish, in ms. 0 to 3,600,000. Default: 10,000.
    pub shutdown_grace_ms: u64,
}

impl GrpcConfig {
    /// Room for what a message holds besides a record batch.
    pub const ENVELOPE_BYTES: u64 = 16 << 10;
    /// What one answer holds of decoded records at most, in memory, however well they were compressed; the last one may
    /// go beyond it.
    pub const MAX_DECODED_BYTES: u64 = 16 << 20;

    /// The first address that `HOST:PORT` stands for; asks the resolver, which may take a while.
    ///
    /// # Errors
    /// Says what is wrong with it, and what would be right.
    pub fn resolve(addr: &str) -> Result<SocketAddr, String> {
        let none = || "it has no address".to_owned();
        let found = addr.to_socket_addrs().map_err(|error| error.to_string());
        found.and_then(|mut addrs| addrs.next().ok_or_else(none)).map_err(|detail| {
            format!(
                "cannot listen on {addr:?}: {detail}; use HOST:PORT, such as 127.0.0.1:50051 or localhost:50051"
            )
        })
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    GrpcConfig::resolve(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_051)),
            threads: 0,
            max_message_bytes: 32 << 20,
            request_memory_bytes: 96 << 20,
            response_memory_bytes: 96 << 20,
            max_concurrent_streams: 1_024,
            max_connections: 4_096,
            produce_stream_in_flight: 256,
            keepalive_interval_ms: 60_000,
            keepalive_timeout_ms: 20_000,
            stall_timeout_ms: 60_000,
            request_stall_timeout_ms: 30_000,
            shutdown_grace_ms: 10_000,
        }
    }
}

impl GrpcConfig {
    /// The threads that serve connections on this machine: 1 or more. As many as processors leave none to those that
    /// append, and wake and wait for each other: with two on two, beside a client, one stream carried a sixth less.
    pub(crate) fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2)),
            threads => threads,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range("grpc.threads", self.threads, 0..=1_024)?;
        in_range("grpc.max_message_bytes", self.max_message_bytes, 64 << 10..=1 << 30)?;
        in_range("grpc.request_memory_bytes", self.request_memory_bytes, 16 << 20..=1 << 40)?;
        in_range("grpc.response_memory_bytes", self.response_memory_bytes, 16 << 20..=1 << 40)?;
        require(
            self.request_memory_bytes >= 2 * self.max_message_bytes,
            "grpc.request_memory_bytes",
            self.request_memory_bytes,
            || format!("must be at least twice grpc.max_message_bytes = {}", 2 * self.max_message_bytes),
        )?;
        in_range("grpc.max_concurrent_streams", self.max_concurrent_streams, 1..=1_000_000)?;
        in_range("grpc.max_connections", self.max_connections, 1..=1_000_000)?;
        in_range("grpc.produce_stream_in_flight", self.produce_stream_in_flight, 1..=65_536)?;
        in_range("grpc.keepalive_interval_ms", self.keepalive_interval_ms, 1_000..=86_400_000)?;
        in_range("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms, 1_000..=3_600_000)?;
        in_range("grpc.stall_timeout_ms", self.stall_timeout_ms, 1_000..=86_400_000)?;
        in_range("grpc.request_stall_timeout_ms", self.request_stall_timeout_ms, 1_000..=86_400_000)?;
        in_range("grpc.shutdown_grace_ms", self.shutdown_grace_ms, 0..=3_600_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_threads_serve_connections_unless_the_settings_say_how_many() {
        assert!(GrpcConfig::default().threads() >= 1);
        assert_eq!(GrpcConfig { threads: 5, ..GrpcConfig::default() }.threads(), 5);
    }

    #[test]
    fn an_address_may_be_a_host_name() {
        let config: GrpcConfig = toml::from_str("addr = \"localhost:50051\"").expect("localhost");
        assert!(config.addr.ip().is_loopback());
        assert_eq!(config.addr.port(), 50_051);
    }

    #[test]
    fn an_address_without_a_port_is_refused_by_name() {
        let error = toml::from_str::<GrpcConfig>("addr = \"localhost\"").expect_err("no port");
        assert!(
            error.to_string().contains("\"localhost\"") && error.to_string().contains("HOST:PORT"),
            "{error}"
        );
    }
}
