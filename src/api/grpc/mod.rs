//! The gRPC edge: package `sagwan.v1` with its three services, health and reflection, on one listener.
//!
//! A call comes in through a [`listener`] connection, which has its place in one of two [`lanes`], and, guarded against
//! [`panics`] and held to its [`deadline`], reaches `log_service`, `admin_service` or `group_service`; one that cannot be
//! read is refused as [`unreadable`].
//! `convert` checks what it says and turns it into the broker's words; `error` turns what the broker refuses into a
//! status. `produce` and `produce_stream` own the way of a produce, `fetch` and `fetch_stream` (with `decode`) that of a
//! fetch. Their requests are read by [`receive`] (with [`weight`]), and what is fetched leaves through [`answer`] as a
//! [`message`] that knows what it has on [`loan`]; both count what they use against a [`memory`], and [`unread`] answers
//! are let go.
//!
//! # Limits
//! All of them are set here or in [`GrpcConfig`], none is left to the transport's defaults:
//! - An incoming message is refused on its declared length, before any memory is reserved for it. One within the limit
//!   is counted as it comes and for what it decodes to, and given up when it comes to a halt half way.
//! - Fetched data is counted until the transport has sent it. A reader that stands still is let go; nothing but a few
//!   pieces in the transport is left of what it was sent.
//! - Connections, calls on each, header lists, frames and flow-control windows are bounded; a connection that has died,
//!   or whose client does not read it any more, is found by keepalive pings, one that never speaks HTTP/2 is closed
//!   after the keepalive timeout.
//!
//! # Memory
//! Whatever clients do, the edge holds at most
//!
//! ```text
//! grpc.request_memory_bytes    requests being received, or decoded and not yet in the broker's queue      96 MiB
//! grpc.response_memory_bytes   fetched data, decoded records, their pieces in the transport               96 MiB
//! each connection              what its window lets a client send before it is read                      256 KiB
//! the first 64 of them         the same, in place of that                                                  1 MiB
//! each core                    broker.max_decompressed_bytes, while a batch is being unpacked            128 MiB
//! ```
//!
//! besides `storage.tail_cache_bytes` (256 MiB), which answers share, and `broker.queue_bytes` of what waits for the disk.
//! Slices of maps are counted with the answers although they are the page cache's.

mod admin_service;
mod answer;
mod convert;
mod deadline;
mod decode;
mod error;
mod fetch;
mod fetch_stream;
mod group_service;
mod lanes;
mod listener;
mod loan;
mod log_service;
mod memory;
mod message;
mod panics;
mod produce;
mod produce_stream;
mod receive;
#[cfg(test)]
mod testing;
mod unread;
mod unreadable;
mod weight;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server as Transport;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;

use self::admin_service::AdminApi;
use self::deadline::Deadline;
pub use self::error::ERROR_DOMAIN;
use self::group_service::GroupApi;
use self::listener::{ConnectionLimits, connections};
use self::log_service::LogApi;
use self::memory::Memory;
use self::panics::CatchPanic;
use self::unreadable::TellUnreadable;
use crate::broker::Broker;
use crate::config::GrpcConfig;
use crate::group::Groups;
use crate::proto::DESCRIPTORS;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::group_service_server::GroupServiceServer;

/// What a client may send on one call before the server has taken it: HTTP/2's own 64 KiB would have a fast producer
/// wait for every round trip. The transport keeps what nobody takes, as of a request that waits for memory or for room
/// in the broker's queue, so it must not be much either.
const STREAM_WINDOW_BYTES: u32 = 192 << 10;
/// The same for all calls of a connection together: one that is not read leaves some for the others. A thousand
/// connections that are sent full of what cannot be taken hold 250 MiB, and 48 MiB more as some have wide ones.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// The connections with wide windows at a time.
const WIDE_CONNECTIONS: usize = 64;
/// With three batches of 64 KiB on their way, a producer of such batches waits for the server's answer to each; with
/// fifteen it was measured to send a fifth more.
const WIDE_STREAM_WINDOW_BYTES: u32 = 960 << 10;
/// The same for all calls of a connection together.
const WIDE_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The largest HTTP/2 frame a client may send.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// The largest header list of a call.
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;
/// The largest message of the services whose messages are small.
const SMALL_MESSAGE_BYTES: usize = 1 << 20;
/// gRPC's own limit: a message's length is 32 bits. What an answer holds is bounded where it is made.
const MAX_ENCODED_BYTES: usize = u32::MAX as usize;
/// How long connections have to go after they have been cut.
const CUT_GRACE: Duration = Duration::from_secs(1);

const _: () = assert!(STREAM_WINDOW_BYTES + MAX_FRAME_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(WIDE_STREAM_WINDOW_BYTES + MAX_FRAME_BYTES <= WIDE_CONNECTION_WINDOW_BYTES);

/// What every service works with.
#[derive(Debug)]
struct Context {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    config: GrpcConfig,
    /// For requests on their way in.
    requests: Memory,
    /// For fetched data on its way out.
    answers: Memory,
    /// One for each batch, or few small ones, that may be unpacked at a time.
    cores: Arc<Semaphore>,
    /// Cancelled when streams are to end.
    shutdown: CancellationToken,
}

/// The edge's error: the transport failed as a whole, or its task died.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The compiled descriptors cannot be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport ended by itself.
    #[error("the gRPC listener failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The task that serves it panicked.
    #[error("the gRPC listener's task died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A gRPC listener that is being served. Dropping it cuts all connections.
#[derive(Debug)]
pub struct GrpcServer {
    health: HealthReporter,
    shutdown: CancellationToken,
    cut: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl GrpcServer {
    /// Serves `listener` in a task of its own. Everything is SERVING from the start.
    ///
    /// # Errors
    /// [`GrpcError::Reflection`] if the compiled descriptors are not valid.
    pub async fn start(
        listener: TcpListener,
        broker: Arc<Broker>,
        groups: Arc<Groups>,
        config: &GrpcConfig,
    ) -> Result<Self, GrpcError> {
        let (shutdown, cut) = (CancellationToken::new(), CancellationToken::new());
        let memory = |bytes, stall_ms| {
            let memory = Memory::new(bytes, Duration::from_millis(stall_ms));
            let watch = memory.clone().watch();
            let ended = cut.clone().cancelled_owned();
            tokio::spawn(async move {
                tokio::select! {
                    () = watch => {}
                    () = ended => {}
                }
            });
            memory
        };
        let context = Arc::new(Context {
            broker,
            groups,
            requests: memory(config.request_memory_bytes, config.request_stall_timeout_ms),
            answers: memory(config.response_memory_bytes, config.stall_timeout_ms),
            cores: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            config: config.clone(),
            shutdown: shutdown.clone(),
        });
        let health = HealthReporter::new();
        set_all(&health, ServingStatus::Serving).await;
        let services = Deadline(CatchPanic(TellUnreadable(routes(&context, &health)?.prepare())));
        let limits = ConnectionLimits {
            max_connections: config.max_connections,
            preface_timeout: Duration::from_millis(config.keepalive_timeout_ms),
            cut: cut.clone(),
        };
        let (wide, narrow, fill) =
            lanes::lanes(connections(listener, limits), WIDE_CONNECTIONS, shutdown.clone());
        let serve = |transport: Transport, lane: lanes::Lane| {
            let ended = shutdown.clone().cancelled_owned();
            transport.serve_with_incoming_shutdown(services.clone(), lane, ended)
        };
        let (wide, narrow) = (serve(transport(config), wide), serve(narrowed(transport(config)), narrow));
        let serving = async move {
            let fill = async {
                fill.await;
                Ok(())
            };
            tokio::try_join!(wide, narrow, fill)?;
            Ok(())
        };
        Ok(Self { health, shutdown, cut, task: tokio::spawn(serving) })
    }

    /// Returns when the listener has failed: it does not end by itself otherwise.
    pub async fn failed(&mut self) -> GrpcError {
        match (&mut self.task).await {
            Ok(Ok(())) => std::future::pending().await,
            Ok(Err(error)) => error.into(),
            Err(error) => error.into(),
        }
    }

    /// Health says NOT_SERVING, no connection is accepted any more, and streams begin to end. Calls under way go on.
    pub async fn begin_shutdown(&mut self) {
        set_all(&self.health, ServingStatus::NotServing).await;
        for service in services() {
            // Ends those who watch it, after they have heard; nobody else would.
            self.health.clear_service_status(service).await;
        }
        self.shutdown.cancel();
    }

    /// Waits until all calls have ended; after `grace`, cuts those that have not.
    ///
    /// # Errors
    /// [`GrpcError`] if the listener had failed.
    pub async fn finish(mut self, grace: Duration) -> Result<(), GrpcError> {
        self.shutdown.cancel();
        let mut ended = tokio::time::timeout(grace, &mut self.task).await;
        if ended.is_err() {
            tracing::warn!(
                grace_ms = grace.as_millis(),
                "calls are still under way; closing their connections"
            );
            self.cut.cancel();
            ended = tokio::time::timeout(CUT_GRACE, &mut self.task).await;
        }
        if let Ok(outcome) = ended {
            return Ok(outcome??);
        }
        tracing::warn!("some connections could not be closed; leaving them behind");
        self.task.abort();
        Ok(())
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.cut.cancel();
    }
}

/// A transport with the limits of this edge for the first connections, and no services. Benches give it others, to
/// measure what it costs by itself.
pub fn transport(config: &GrpcConfig) -> Transport {
    Transport::builder()
        .initial_stream_window_size(WIDE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WIDE_CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(config.max_concurrent_streams)
        .http2_keepalive_interval(Some(Duration::from_millis(config.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(config.keepalive_timeout_ms)))
}

/// The same for any number of connections.
fn narrowed(transport: Transport) -> Transport {
    transport
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

fn routes(context: &Arc<Context>, health: &HealthReporter) -> Result<Routes, GrpcError> {
    let log = LogApi(Arc::clone(context));
    let admin = AdminServiceServer::new(AdminApi(Arc::clone(context)))
        .max_decoding_message_size(SMALL_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ENCODED_BYTES);
    let group = GroupServiceServer::new(GroupApi(Arc::clone(context)))
        .max_decoding_message_size(SMALL_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_ENCODED_BYTES);
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health.clone()),
    );
    let reflection = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            // So that generic clients can show what an error carries.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(log)
        .add_service(admin)
        .add_service(group)
        .add_service(health)
        // grpcurl asks for either version.
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// What has a health: the server as a whole, by the empty name, and each of its services.
fn services() -> [&'static str; 4] {
    ["", LogApi::NAME, AdminServiceServer::<AdminApi>::NAME, GroupServiceServer::<GroupApi>::NAME]
}

async fn set_all(health: &HealthReporter, status: ServingStatus) {
    for service in services() {
        health.set_service_status(service, status).await;
    }
}
