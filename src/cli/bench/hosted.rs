//! What `sagwan bench` runs in processes of their own: a broker, and the bare service. Each ends in an orderly way when its
//! standard input does, so that none outlives the benchmark, however that ends.

use std::ffi::OsString;
use std::io::{self, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Subcommand;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::oneshot;

use super::bare;
use crate::cli::failure::Failure;
use crate::cli::{connection, serve};

/// How long a start may take; a recovery is not part of it.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long an orderly end may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const STOP_LOOK: Duration = Duration::from_millis(5);
/// What comes before the address in the line that says that it is ready.
pub(super) const READY: &str = "grpc=http://";
/// The broker's line that has it, and what goes wrong.
const BROKER_LOG: &str = "warn,sagwan::cli::serve=info";
/// Settings come from the command line alone.
const VARIABLES: [&str; 4] = ["SAGWAN_CONFIG", "SAGWAN_DATA_DIR", "SAGWAN_GRPC_ADDR", "SAGWAN_LOG"];

/// What the other process does. Not for people.
#[derive(Debug, Subcommand)]
pub(crate) enum HostedCommand {
    /// `sagwan serve`, until standard input ends
    Broker(serve::ServeArgs),
    /// The bare service, until standard input ends
    Bare,
}

/// The other process's side.
pub(crate) fn run(command: HostedCommand) -> Result<(), Failure> {
    match command {
        HostedCommand::Broker(args) => {
            at_end_of_input(|| {
                if kill_process(getpid(), Signal::TERM).is_err() {
                    std::process::abort();
                }
            });
            serve::run(args).map_err(|error| Failure::Failed(error.to_string()))
        }
        HostedCommand::Bare => {
            let (ended, end) = oneshot::channel();
            at_end_of_input(|| {
                let _ = ended.send(());
            });
            connection::block_on(bare::run(end))
        }
    }
}

/// Calls `end` once nobody can write to standard input any more. Nothing is ever written to it.
fn at_end_of_input(end: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read(&mut [0; 1]);
        end();
    });
}

/// A process that runs; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Hosted {
    child: Child,
    /// Its end asks the process to end.
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub(super) url: String,
}

impl Hosted {
    /// A broker with its data in `data_dir`.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn broker(
        data_dir: &std::path::Path,
        config: Option<&std::path::Path>,
    ) -> Result<Self, Failure> {
        let mut arguments: Vec<OsString> = vec!["broker".into(), "--data-dir".into(), data_dir.into()];
        for argument in ["--grpc-addr", "127.0.0.1:0", "--log", BROKER_LOG] {
            arguments.push(argument.into());
        }
        if let Some(config) = config {
            arguments.extend(["--config".into(), config.into()]);
        }
        Self::start(arguments).await
    }

    /// The bare service.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn bare() -> Result<Self, Failure> {
        Self::start(vec!["bare".into()]).await
    }

    async fn start(arguments: Vec<OsString>) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::io("cannot find myself", error))?;
        let mut command = Command::new(program);
        command.arg("bench-hosted").args(arguments);
        for name in VARIABLES {
            command.env_remove(name);
        }
        // A Ctrl-C of the terminal is this side's to handle.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let cannot = |error| Failure::io("cannot start another process", error);
        let mut child = command.spawn().map_err(cannot)?;
        let (stdin, log) = (child.stdin.take(), child.stderr.take());
        let mut hosted = Self { child, stdin, url: String::new() };
        let (told, address) = oneshot::channel();
        if let Some(log) = log {
            std::thread::spawn(move || follow(BufReader::new(log), told));
        }
        match tokio::time::timeout(START_LIMIT, address).await {
            Ok(Ok(address)) => {
                hosted.url = format!("http://{address}");
                Ok(hosted)
            }
            Ok(Err(_)) => Err(Failure::Failed("what is to be measured did not start".to_owned())),
            Err(_) => {
                Err(Failure::Failed(format!("what is to be measured did not start in {START_LIMIT:?}")))
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it end in an orderly way.
    ///
    /// # Errors
    /// When it failed.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        self.stdin = None;
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::Failed(format!("the measured process ended with {status}")));
                }
                Ok(None) => tokio::time::sleep(STOP_LOOK).await,
                Err(error) => return Err(Failure::io("cannot wait for the measured process", error)),
            }
        }
        Err(Failure::Failed(format!("the measured process did not end in {STOP_LIMIT:?}")))
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the address once, and repeats what else the process says.
fn follow(log: impl io::BufRead, told: oneshot::Sender<String>) {
    let mut told = Some(told);
    for line in log.lines().map_while(Result::ok) {
        match line.split_once(READY) {
            Some((_, rest)) => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
                if let (Some(told), Some(address)) = (told.take(), rest.get(..end)) {
                    // Nobody listens any more once the time limit has passed.
                    let _ = told.send(address.to_owned());
                }
            }
            // Of its own accord it only says what went wrong.
            None if !line.contains(" INFO ") => eprintln!("broker: {line}"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log() {
        let (told, mut address) = oneshot::channel();
        let log = " INFO sagwan: starting\n INFO sagwan: ready grpc=http://127.0.0.1:5 data_dir=x\n";
        follow(log.as_bytes(), told);
        assert_eq!(address.try_recv().as_deref(), Ok("127.0.0.1:5"));
        let (told, mut address) = oneshot::channel();
        follow(&b" INFO sagwan: starting\n"[..], told);
        address.try_recv().expect_err("never ready");
    }
}
