//! Why a subcommand failed: one line for people, an exit code for scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::client::{Error, reason};

/// The operation failed.
const FAILED: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// No broker answers.
const UNREACHABLE: u8 = 3;

/// The end of a subcommand that did not do all it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// The broker refused, or was not there.
    Client(Error),
    /// A file or a stream of this process.
    Io { what: String, source: io::Error },
    /// Anything else, in words.
    Failed(String),
    /// It could not even begin: what the command line names is not there, in use, or something else.
    CannotRun(String),
    /// Told already, by [`Failure::tell`].
    Told,
}

impl Failure {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Standard output cannot be written.
    pub(super) fn stdout(source: io::Error) -> Self {
        Self::io("cannot write to standard output", source)
    }

    /// Tells it before the subcommand goes on with the rest; [`Told`](Self::Told) is then how it ends.
    pub(super) fn tell(&self) {
        eprintln!("error: {self}");
    }

    /// Tells it, and what it means for a script. A reader that has seen enough (`| head`) is no failure.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            Self::Told => {}
            failure => failure.tell(),
        }
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_unreachable() => UNREACHABLE,
            Self::CannotRun(_) => USAGE,
            _ => FAILED,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => match advice(error) {
                Some(advice) => write!(f, "{}: {advice}", one_line(&error.to_string())),
                None => f.write_str(&one_line(&error.to_string())),
            },
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Failed(message) | Self::CannotRun(message) => f.write_str(message),
            Self::Told => f.write_str("told already"),
        }
    }
}

/// What to do about it, where the command line knows better than the broker.
fn advice(error: &Error) -> Option<String> {
    match error.reason() {
        reason::UNREACHABLE => Some("is `sagwan serve` running?".to_owned()),
        reason::UNKNOWN_TOPIC => Some("see `sagwan topic list`".to_owned()),
        reason::DATA_LOSS => {
            let last: i64 = error.metadata().get("last_offset")?.parse().ok()?;
            let partition = error.metadata().get("partition")?;
            Some(format!("go on behind the damage with --partition {partition} --from {}", last + 1))
        }
        _ => None,
    }
}

/// Scripts read errors by the line.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(one_line("a\n  b\r\nc"), "a b c");
    }
}
