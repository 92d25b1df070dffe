//! The gRPC edge: package `sagwan.v1` with its three services, health and reflection, on one listener.
//!
//! A call comes in through a [`listener`] connection and, guarded against [`panics`] and held to its [`deadline`], reaches `log_service`,
//! `admin_service` or `group_service`; one that cannot be read is refused as [`unreadable`]. `convert` checks what it says and turns it into the broker's words; `error` turns
//! what the broker refuses into a status. `produce` and `produce_stream` own the way of a produce, `fetch` and
//! `fetch_stream` (with `decode`, `outbox` and `lent`) that of a fetch.
//!
//! # Limits
//! All of them are set here or in [`GrpcConfig`], none is left to the transport's defaults:
//! - An incoming message is refused on its declared length, before any memory is reserved for it. One that is within the limit and never completed costs what has come
//!   of it, as the rest of the reserved memory is never touched, for as long as its connection lives.
//! - Connections, calls on each, header lists, frames and flow-control windows are bounded; a connection that has died
//!   is found by keepalive pings, one that never speaks HTTP/2 is closed after the keepalive timeout.
//! - A response stream whose reader stands still is ended; see `outbox`.

mod admin_service;
mod convert;
mod deadline;
mod decode;
mod error;
mod fetch;
mod fetch_stream;
mod group_service;
mod lent;
mod listener;
mod log_service;
mod outbox;
mod panics;
mod produce;
mod produce_stream;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;

use self::admin_service::AdminApi;
use self::deadline::Deadline;
pub use self::error::ERROR_DOMAIN;
use self::group_service::GroupApi;
use self::lent::CheckLent;
use self::listener::{ConnectionLimits, connections};
use self::log_service::LogApi;
use self::panics::CatchPanic;
use self::unreadable::TellUnreadable;
use crate::broker::Broker;
use crate::config::GrpcConfig;
use crate::group::Groups;
use crate::proto::DESCRIPTORS;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::group_service_server::GroupServiceServer;
use crate::proto::log_service_server::LogServiceServer;

/// What a client may send on one call before the server has taken it: HTTP/2's own 64 KiB would have a fast producer
/// wait for every round trip.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all calls of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest HTTP/2 frame a client may send.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// The largest header list of a call.
const MAX_HEADER_LIST_BYTES: u32 = 16 << 10;
/// gRPC's own limit: a message's length is 32 bits. What an answer holds is bounded where it is made.
const MAX_ENCODED_BYTES: usize = u32::MAX as usize;
/// How long connections have to go after they have been cut.
const CUT_GRACE: Duration = Duration::from_secs(1);

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);

/// What every service works with.
#[derive(Debug)]
struct Context {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
    config: GrpcConfig,
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
        let context =
            Arc::new(Context { broker, groups, config: config.clone(), shutdown: shutdown.clone() });
        let health = HealthReporter::new();
        set_all(&health, ServingStatus::Serving).await;
        let services = Deadline(CatchPanic(TellUnreadable(CheckLent(routes(&context, &health)?.prepare()))));
        let limits = ConnectionLimits {
            max_connections: config.max_connections,
            preface_timeout: Duration::from_millis(config.keepalive_timeout_ms),
            cut: cut.clone(),
        };
        let serving = transport(config).serve_with_incoming_shutdown(
            services,
            connections(listener, limits),
            shutdown.clone().cancelled_owned(),
        );
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

/// A transport with the limits of this edge and no services. Benches give it others, to measure what it costs by itself.
pub fn transport(config: &GrpcConfig) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(config.max_concurrent_streams)
        .http2_keepalive_interval(Some(Duration::from_millis(config.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(config.keepalive_timeout_ms)))
}

fn routes(context: &Arc<Context>, health: &HealthReporter) -> Result<Routes, GrpcError> {
    let max_message_bytes = context.config.max_message_bytes as usize;
    let log = LogServiceServer::new(LogApi(Arc::clone(context)))
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(MAX_ENCODED_BYTES);
    let admin = AdminServiceServer::new(AdminApi(Arc::clone(context)))
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(MAX_ENCODED_BYTES);
    let group = GroupServiceServer::new(GroupApi(Arc::clone(context)))
        .max_decoding_message_size(max_message_bytes)
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
    [
        "",
        LogServiceServer::<LogApi>::NAME,
        AdminServiceServer::<AdminApi>::NAME,
        GroupServiceServer::<GroupApi>::NAME,
    ]
}

async fn set_all(health: &HealthReporter, status: ServingStatus) {
    for service in services() {
        health.set_service_status(service, status).await;
    }
}
