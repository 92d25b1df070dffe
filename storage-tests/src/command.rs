//! A program run to its end within a time limit: the command line under test, Python, a shell.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longer than any command here takes, even in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(5);

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: String,
}

/// Runs a program to its end. Its standard input is empty unless the command says otherwise.
///
/// # Panics
/// If it cannot be started, or has not ended after five minutes; it is then killed.
pub fn run(command: &mut Command) -> Finished {
    finish(command).unwrap_or_else(|error| panic!("{error}"))
}

fn finish(command: &mut Command) -> Result<Finished, String> {
    let shown = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start {shown}: {error}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let outputs = stdout.recv_timeout(LIMIT).and_then(|stdout| Ok((stdout, stderr.recv_timeout(LIMIT)?)));
    let Ok((stdout, stderr)) = outputs else {
        // Kill what never ends, or it outlives the test.
        let killed = child.kill().and_then(|()| child.wait());
        return Err(format!("{shown} did not end within {LIMIT:?} ({killed:?})"));
    };
    let status = child.wait().map_err(|error| format!("cannot wait for {shown}: {error}"))?;
    Ok(Finished { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

/// Runs a program that has to succeed, and returns its standard output.
///
/// # Panics
/// As [`run`], and if it fails.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    attempt(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a program that may fail, and returns its standard output.
///
/// # Errors
/// Why it could not be started, did not end in time, or failed, in words.
pub fn attempt(command: &mut Command) -> Result<Vec<u8>, String> {
    let finished = finish(command)?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    let stdout = String::from_utf8_lossy(&finished.stdout);
    Err(format!("{command:?} ended with {}:\n{stdout}{}", finished.status, finished.stderr))
}

/// Reads a pipe to its end on a thread of its own, so that neither pipe of a program can block the other.
fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe
            && pipe.read_to_end(&mut bytes).is_ok()
        {
            // Nobody listens any more once the time limit has passed.
            let _ = sender.send(bytes);
        }
    });
    receiver
}
