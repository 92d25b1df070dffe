//! A whole broker in one process: what `sagwan serve` runs, and what tests run on port 0.
//!
//! It wires the layers from the bottom up (store, broker, groups, listener) and takes them down in an order that loses
//! nothing: tell (health), refuse new work, let calls under way finish, sync, write the clean mark.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::api::grpc::{GrpcError, GrpcServer};
use crate::broker::{Broker, BrokerStatus, CloseBrokerError, OpenBrokerError};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::group::{GroupError, Groups};
use crate::storage::{OpenError, Store, limits};

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 1_024;

/// Why a broker did not start. The data directory is as it was, but for what recovery did.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process listens there.
    #[error("{addr} is in use by another process: stop it, or choose another address with --grpc-addr")]
    AddressInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Topics cannot be opened.
    #[error(transparent)]
    Broker(#[from] OpenBrokerError),
    /// The offsets of consumer groups cannot be read.
    #[error("cannot read the offsets of consumer groups: {0}")]
    Groups(#[from] GroupError),
    /// The listener cannot be served.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The thread that opened the data directory panicked.
    #[error("opening the data directory panicked; please report what the log says")]
    Panicked,
}

/// What went wrong while a broker ran or ended. Nothing that was acknowledged as durable is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The listener had failed.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The data could not be synced, or the clean mark not be written: the next start recovers.
    #[error("the shutdown was not clean: {0}")]
    Close(#[from] CloseBrokerError),
}

/// A running broker. Dropping it without [`Server::shutdown`] is like a crash. Where files may not grow beyond a limit
/// (RLIMIT_FSIZE), the program has to handle or ignore SIGXFSZ, as `sagwan serve` does.
#[derive(Debug)]
pub struct Server {
    grpc_addr: SocketAddr,
    broker: Arc<Broker>,
    grpc: GrpcServer,
    shutdown_grace: Duration,
    start_time: Duration,
}

impl Server {
    /// Starts a broker and returns once it serves.
    ///
    /// The address is taken first, so that a port in use fails at once; clients are refused until all logs are open.
    ///
    /// # Errors
    /// [`StartError`] names what cannot be used and what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let begun = Instant::now();
        config.validate()?;
        limits::raise_descriptor_limit();
        let config = config.within(limits::descriptors(), limits::file_maps())?;
        let socket = bind(config.grpc.addr)?;

        let Config { data_dir, storage, broker, grpc } = config;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let open_clock = Arc::clone(&clock);
        let broker = tokio::task::spawn_blocking(move || {
            let store = Store::open(&data_dir, &storage, Arc::clone(&open_clock))?;
            Ok::<_, StartError>(Broker::open(store, broker, open_clock)?)
        })
        .await
        .map_err(|_| StartError::Panicked)??;

        match Self::serve(&broker, clock, socket, &grpc).await {
            Ok((grpc_addr, server)) => Ok(Self {
                grpc_addr,
                broker,
                grpc: server,
                shutdown_grace: Duration::from_millis(grpc.shutdown_grace_ms),
                start_time: begun.elapsed(),
            }),
            Err(error) => {
                // What was recovered need not be recovered again.
                broker.begin_shutdown();
                if let Err(error) = broker.close().await {
                    tracing::warn!(%error, "cannot close the data directory cleanly");
                }
                Err(error)
            }
        }
    }

    async fn serve(
        broker: &Arc<Broker>,
        clock: Arc<dyn Clock>,
        socket: Socket,
        config: &crate::config::GrpcConfig,
    ) -> Result<(SocketAddr, GrpcServer), StartError> {
        let groups = Groups::open(Arc::clone(broker), clock).await?;
        let listen = || {
            socket.listen(LISTEN_BACKLOG)?;
            let listener = TcpListener::from_std(socket.into())?;
            Ok((listener.local_addr()?, listener))
        };
        let (addr, listener) = listen().map_err(|source| listen_error(config.addr, source))?;
        Ok((addr, GrpcServer::start(listener, Arc::clone(broker), groups, config).await?))
    }

    /// Where it listens: the port that was picked, if the settings said 0.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// What the broker has and does now.
    pub fn status(&self) -> BrokerStatus {
        self.broker.status()
    }

    /// How long the start took, recovery included.
    pub fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Serves until `signal` comes or the listener fails, then ends in an orderly way.
    ///
    /// # Errors
    /// [`StopError`] if the listener failed or the end was not clean.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), StopError> {
        let failure = tokio::select! {
            () = signal => None,
            failure = self.grpc.failed() => Some(failure),
        };
        match failure {
            None => self.shutdown().await,
            Some(failure) => {
                tracing::error!(error = %failure, "shutting down");
                self.broker.begin_shutdown();
                self.broker.close().await?;
                Err(failure.into())
            }
        }
    }

    /// Ends in an orderly way: refuses new work, lets calls under way finish for `grpc.shutdown_grace_ms` at most, syncs
    /// and writes the clean mark.
    ///
    /// # Errors
    /// [`StopError`] if the end was not clean.
    pub async fn shutdown(mut self) -> Result<(), StopError> {
        let begun = Instant::now();
        tracing::info!("shutting down");
        self.grpc.begin_shutdown().await;
        self.broker.begin_shutdown();
        let served = self.grpc.finish(self.shutdown_grace).await;
        self.broker.close().await?;
        served?;
        tracing::info!(took_ms = begun.elapsed().as_millis(), "shut down cleanly");
        Ok(())
    }
}

/// Takes the address without listening yet: a connection is refused until [`Socket::listen`].
fn bind(addr: SocketAddr) -> Result<Socket, StartError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the old connections' TIME_WAIT. On Windows it would mean something else.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    bind().map_err(|source| listen_error(addr, source))
}

fn listen_error(addr: SocketAddr, source: io::Error) -> StartError {
    if source.kind() == io::ErrorKind::AddrInUse {
        StartError::AddressInUse { addr }
    } else {
        StartError::Listen { addr, source }
    }
}
