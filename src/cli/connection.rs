//! How a subcommand reaches the broker.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::failure::Failure;
use crate::client::{Client, ConnectionConfig};

/// Where a broker is looked for unless another place is named.
const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// People wait for less long than programs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The name of [`ServerArgs::server`].
pub(super) const SERVER: &str = "server";

/// Which broker to talk to.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The broker's address; http:// may be left out [default: http://127.0.0.1:50051]
    #[arg(
        id = SERVER,
        long = SERVER,
        global = true,
        env = "SAGWAN_SERVER",
        value_name = "URL",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = "Connection"
    )]
    pub(super) server: Option<String>,
}

impl ServerArgs {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        connect(self.server.as_deref().unwrap_or(DEFAULT_SERVER)).await
    }
}

/// A connection to the broker at `url`.
pub(super) async fn connect(url: &str) -> Result<Client, Failure> {
    let config = ConnectionConfig { connect_timeout: CONNECT_TIMEOUT, ..ConnectionConfig::default() };
    Ok(Client::connect_with(url, &config).await?)
}

/// Runs a subcommand to its end on a runtime of its own.
pub(super) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start", error))?;
    let done = runtime.block_on(command);
    // A read of standard input may never return.
    runtime.shutdown_background();
    done
}
