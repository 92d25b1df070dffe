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

/// How to start it.
#[derive(Debug)]
struct Start {
    /// A program and its arguments that run the server, as `prlimit` does, in the process they were started in.
    under: Vec<String>,
    program: PathBuf,
    data_dir: PathBuf,
    config: Option<PathBuf>,
}

/// A server that can be killed, stopped and started again on the same data directory.
#[derive(Debug)]
pub struct ServerProcess {
    start: Start,
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
        Self::start_under(&[], program, data_dir, None)
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
        Self::start_under(&[], program, data_dir, Some(config.into()))
    }

    /// As [`start`](Self::start), with the command line run by another program, in the process that was started.
    ///
    /// # Panics
    /// If it ends or is not ready within a minute.
    pub fn start_under(
        under: &[&str],
        program: impl AsRef<Path>,
        data_dir: impl AsRef<Path>,
        config: Option<PathBuf>,
    ) -> Self {
        let start = Start {
            under: under.iter().map(|word| (*word).to_owned()).collect(),
            program: program.as_ref().into(),
            data_dir: data_dir.as_ref().into(),
            config,
        };
        let (child, address, alive) = spawn(&start);
        Self { start, child, address, alive }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What its descriptors stand for: paths, and names such as `socket:[1]`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let dir = format!("/proc/{}/fd", self.child.id());
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
        // One that has been closed meanwhile is not open.
        entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
    }

    /// The files that it has mapped, once for each map; the name of a deleted one ends with ` (deleted)`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn mapped_files(&self) -> Vec<String> {
        let path = format!("/proc/{}/maps", self.child.id());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.lines().filter_map(|line| line.find('/').map(|begin| line[begin..].to_owned())).collect()
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
        &self.start.data_dir
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

    /// How many threads it has.
    ///
    /// # Panics
    /// If it does not run.
    pub fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        threads.count()
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
        let mut command = Command::new(&self.start.program);
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
        kill_process(self.pid(), Signal::TERM)
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
        (self.child, self.address, self.alive) = spawn(&self.start);
    }

    /// As [`restart`](Self::restart), under another program than before.
    ///
    /// # Panics
    /// As [`restart`](Self::restart).
    pub fn restart_under(&mut self, under: &[&str]) {
        self.start.under = under.iter().map(|word| (*word).to_owned()).collect();
        self.restart();
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
fn spawn(start: &Start) -> (Child, String, Receiver<String>) {
    let Start { under, program, data_dir, config } = start;
    let mut command = match under.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
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
