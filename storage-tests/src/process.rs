//! A real server as a child process, on a free port and a data directory that outlives it.
//!
//! Only the child started here is ever signalled, and none outlives its [`ServerProcess`].

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a start or an orderly end may take, even in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
/// What comes before the address in the log line that says that the server is ready.
const READY: &str = "grpc=http://";

/// A server that can be killed, stopped and started again on the same data directory.
#[derive(Debug)]
pub struct ServerProcess {
    program: PathBuf,
    data_dir: PathBuf,
    config: Option<PathBuf>,
    child: Child,
    address: String,
    /// Disconnected as soon as the child has closed its standard error, that is, has ended.
    alive: Receiver<String>,
}

impl ServerProcess {
    /// Starts `program serve` on a free port and waits until it is ready.
    ///
    /// `program` is `env!("CARGO_BIN_EXE_sagwan-under-test")`, which only a test itself can name.
    ///
    /// # Panics
    /// If it ends or is not ready within a minute.
    pub fn start(program: impl AsRef<Path>, data_dir: impl AsRef<Path>) -> Self {
        Self::start_with(program.as_ref(), data_dir.as_ref(), None)
    }

    /// As [`start`](Self::start), with a configuration file.
    ///
    /// # Panics
    /// If it ends or is not ready within a minute.
    pub fn start_configured(
        program: impl AsRef<Path>,
        data_dir: impl AsRef<Path>,
        config: impl Into<PathBuf>,
    ) -> Self {
        Self::start_with(program.as_ref(), data_dir.as_ref(), Some(config.into()))
    }

    fn start_with(program: &Path, data_dir: &Path, config: Option<PathBuf>) -> Self {
        let (child, address, alive) = spawn(program, data_dir, config.as_deref());
        Self { program: program.into(), data_dir: data_dir.into(), config, child, address, alive }
    }

    /// `host:port` of the gRPC listener; another one after each start.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://host:port` of the gRPC listener.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the server keeps everything.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The memory it takes: by name as in `/proc/PID/status`, such as `VmHWM`, in bytes.
    ///
    /// # Panics
    /// If it does not run, or there is no such line.
    pub fn memory_bytes(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no {name} in {status}")) << 10
    }

    /// The files it maps.
    ///
    /// # Panics
    /// If it does not run.
    pub fn maps(&self) -> String {
        self.proc("maps")
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    /// A command of the command line that talks to this server; its standard input is empty.
    pub fn cli<I>(&self, arguments: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("SAGWAN_SERVER", self.url()).stdin(Stdio::null());
        command
    }

    /// Kills it as a crash would: no handler runs, nothing is flushed.
    ///
    /// # Panics
    /// If there is no such process.
    pub fn kill9(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.unwrap_or_else(|error| panic!("cannot kill the server: {error}"));
    }

    /// Asks it to end in an orderly way (SIGTERM), and waits until it has.
    ///
    /// # Panics
    /// If it is still there after a minute.
    pub fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .unwrap_or_else(|error| panic!("cannot signal the server: {error}"));
        match self.alive.recv_timeout(LIMIT) {
            Err(RecvTimeoutError::Disconnected) => {}
            other => panic!("the server did not end within {LIMIT:?} of SIGTERM: {other:?}"),
        }
        self.child.wait().unwrap_or_else(|error| panic!("cannot wait for the server: {error}"))
    }

    /// Starts it again on the same data directory and another port, after [`kill9`](Self::kill9) or
    /// [`terminate`](Self::terminate).
    ///
    /// # Panics
    /// If it is still running, or is not ready within a minute.
    pub fn restart(&mut self) {
        let ended = self.child.try_wait();
        assert!(
            matches!(ended, Ok(Some(_))),
            "the server is to be ended before it is started again: {ended:?}"
        );
        (self.child, self.address, self.alive) = spawn(&self.program, &self.data_dir, self.config.as_deref());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the server and waits for the address in its log.
fn spawn(program: &Path, data_dir: &Path, config: Option<&Path>) -> (Child, String, Receiver<String>) {
    let mut command = Command::new(program);
    command.arg("serve").arg("--data-dir").arg(data_dir).args(["--grpc-addr", "127.0.0.1:0"]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    // The settings are those given here, and the log line that says "ready" must be there.
    for name in ["SAGWAN_CONFIG", "SAGWAN_DATA_DIR", "SAGWAN_GRPC_ADDR", "SAGWAN_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let Some(log) = child.stderr.take() else { unreachable!("standard error is piped") };

    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || follow(BufReader::new(log), &sender));
    match receiver.recv_timeout(LIMIT) {
        Ok(address) => (child, address, receiver),
        Err(error) => {
            let ended = child.kill().and_then(|()| child.wait());
            panic!("{command:?} did not become ready ({error}); it ended: {ended:?}");
        }
    }
}

/// Repeats the server's log among the test's output, and sends the address once. The sender lives as long as the log.
fn follow(log: impl BufRead, address: &Sender<String>) {
    for line in log.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        eprintln!("server: {line}");
        if let Some((_, rest)) = line.split_once(READY) {
            let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
            // Nobody listens any more once the time limit has passed.
            let _ = address.send(rest[..end].to_owned());
        }
    }
}
