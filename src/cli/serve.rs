//! `sagwan serve`: settings from flags, environment and file into one [`Config`], and a [`Server`] that runs until it is
//! told to stop.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tokio::runtime;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::signals::Signals;
use crate::config::{Config, ConfigError, GrpcConfig};
use crate::server::{Server, StartError, StopError};

/// What a shell reports of a process that was interrupted: 128 and SIGINT's number.
const EXIT_INTERRUPTED: i32 = 130;

const EXAMPLES: &str = "\
Examples:
  sagwan serve
  sagwan serve --data-dir /var/lib/sagwan --grpc-addr 0.0.0.0:50051
  sagwan serve --config /etc/sagwan/sagwan.toml --log info,sagwan::storage=debug
  SAGWAN_DATA_DIR=/tmp/sagwan sagwan serve --grpc-addr localhost:0

A flag prevails over its environment variable, that over the configuration file, that
over the default; an empty variable counts as none. SIGTERM and SIGINT shut the broker
down in an orderly way; a second one ends it at once, which is safe, but the next start
has to recover.";

/// Run a broker.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Where everything is kept; created if it is not there [default: ./data]
    #[arg(long, value_name = "DIR", env = "SAGWAN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on, with an IP address or a host name; port 0 picks a free one [default: 127.0.0.1:50051]
    #[arg(long, value_name = "HOST:PORT", env = "SAGWAN_GRPC_ADDR", value_parser = NonEmptyStringValueParser::new())]
    pub grpc_addr: Option<String>,
    /// Configuration file (TOML); deploy/sagwan.toml has all settings with their defaults
    #[arg(long, value_name = "FILE", env = "SAGWAN_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to log to standard error: a level (error, warn, info, debug, trace), or a list of target=level
    #[arg(long, value_name = "FILTER", env = "SAGWAN_LOG", default_value = "info", value_parser = NonEmptyStringValueParser::new())]
    pub log: String,
}

/// Why `sagwan serve` failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--log` cannot be understood.
    #[error("invalid log filter {filter:?}: {source}")]
    LogFilter {
        /// What was given.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--grpc-addr` names no address.
    #[error("--grpc-addr: {0}")]
    Address(String),
    /// The runtime cannot be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    /// Signals cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The broker did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The broker did not end well.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// Runs a broker until SIGTERM or SIGINT, on a runtime of its own.
///
/// # Errors
/// [`ServeError`] if it cannot start, or did not end well.
pub fn run(args: ServeArgs) -> Result<(), ServeError> {
    start_logging(&args.log)?;
    let config = args.settings()?;
    let threads = config.grpc.threads();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let done = runtime.block_on(serve(config));
    // What has been left behind is not waited for.
    runtime.shutdown_background();
    done
}

async fn serve(config: Config) -> Result<(), ServeError> {
    let data_dir = config.data_dir.clone();
    // Before anything is opened, so that a signal during a long recovery is not lost.
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    tracing::info!(data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "starting");
    let server = tokio::select! {
        server = Server::start(config) => server?,
        name = signals.next() => {
            // Nothing has been accepted yet, so there is nothing to finish; recovery can be broken off at any point.
            tracing::info!("{name} during the start: exiting");
            process::exit(EXIT_INTERRUPTED);
        }
    };
    let status = server.status();
    tracing::info!(
        grpc = %format_args!("http://{}", server.grpc_addr()),
        data_dir = %data_dir.display(),
        durability = "fsync unless a topic says otherwise",
        topics = status.topics,
        partitions = status.partitions,
        recovered_partitions = status.storage.recovered_logs,
        took_ms = server.start_time().as_millis(),
        "ready"
    );
    let stop = async {
        let name = signals.next().await;
        tracing::info!("{name} received");
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::warn!("{name} received again: exiting at once, without the clean mark");
            process::exit(EXIT_INTERRUPTED);
        });
    };
    Ok(server.run_until(stop).await?)
}

impl ServeArgs {
    /// The file's settings with what flags and environment say on top.
    fn settings(self) -> Result<Config, ServeError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(data_dir) = self.data_dir {
            config.data_dir = data_dir;
        }
        if let Some(addr) = self.grpc_addr {
            config.grpc.addr = GrpcConfig::resolve(&addr).map_err(ServeError::Address)?;
        }
        Ok(config)
    }
}

pub(super) fn start_logging(filter: &str) -> Result<(), ServeError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| ServeError::LogFilter { filter: filter.to_owned(), source })?;
    // Whoever embeds this may have a subscriber already; then that one counts.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_flag_prevails_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("sagwan.toml");
        fs::write(&file, "data_dir = \"/from/file\"\n[grpc]\naddr = \"127.0.0.1:7\"\nmax_connections = 5\n")
            .expect("written");
        let args = ServeArgs {
            grpc_addr: Some("127.0.0.1:8".to_owned()),
            config: Some(file),
            ..ServeArgs::default()
        };
        let config = args.settings().expect("valid");
        assert_eq!(config.data_dir, PathBuf::from("/from/file"));
        assert_eq!(config.grpc.addr.port(), 8);
        assert_eq!(config.grpc.max_connections, 5);
        assert_eq!(config.grpc.stall_timeout_ms, Config::default().grpc.stall_timeout_ms);
    }
}
