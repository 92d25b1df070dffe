//! What a client call failed with: the facts of `sagwan.v1.Error`, of a gRPC status, or of the connection, in one type.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::proto;
use crate::types::{InvalidGroupName, InvalidTopicName};

/// The domain of the broker's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "sagwan";

/// Reasons the client gives by itself; those of the broker are listed in `sagwan/v1/common.proto`.
pub mod reason {
    /// No connection could be made: nothing was sent.
    pub const UNREACHABLE: &str = "UNREACHABLE";
    /// The connection broke before the answer came.
    pub const CONNECTION_LOST: &str = "CONNECTION_LOST";
    /// No answer came in time.
    pub const TIMEOUT: &str = "TIMEOUT";
    /// The producer was dropped before the answer came.
    pub const ABANDONED: &str = "ABANDONED";
    /// The producer is closed: nothing was sent.
    pub const CLOSED: &str = "CLOSED";
    /// A record could not be sent within `delivery_timeout`: it was not appended.
    pub const DELIVERY_TIMEOUT: &str = "DELIVERY_TIMEOUT";
    /// The answer is not what the contract says.
    pub const UNEXPECTED_ANSWER: &str = "UNEXPECTED_ANSWER";
    /// The end of the partition's log is not lost: there is no loss to accept.
    pub const NO_LOSS: &str = "NO_LOSS";
    /// Some of a partition's records cannot be read; the facts tell which.
    pub const DATA_LOSS: &str = "DATA_LOSS";
    /// The partition takes neither reads nor writes until it is looked at.
    pub const PARTITION_FENCED: &str = "PARTITION_FENCED";
    /// The broker cannot read or write the partition's files.
    pub const STORAGE_ERROR: &str = "STORAGE_ERROR";
    /// A batch or record is larger than it may be.
    pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
    /// An argument or a setting that cannot be used.
    pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
    /// There is no such topic.
    pub const UNKNOWN_TOPIC: &str = "UNKNOWN_TOPIC";
    /// The topic has no such partition.
    pub const UNKNOWN_PARTITION: &str = "UNKNOWN_PARTITION";
    /// A batch before this one was not appended. With an idempotent producer nobody sees it: it sends both again.
    pub const OUT_OF_ORDER_SEQUENCE: &str = "OUT_OF_ORDER_SEQUENCE";
    /// The batch would not have got the offset that was expected; the metadata has the `next_offset`.
    pub const UNEXPECTED_OFFSET: &str = "UNEXPECTED_OFFSET";
    /// The broker's disk is full.
    pub const STORAGE_FULL: &str = "STORAGE_FULL";
    /// The broker is about to stop.
    pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
    /// The reader took nothing for too long.
    pub const STREAM_STALLED: &str = "STREAM_STALLED";
    /// The request came to a halt half way: nothing was done.
    pub const REQUEST_STALLED: &str = "REQUEST_STALLED";
    /// The broker has no memory for the request or its answer now: nothing was done.
    pub const BROKER_BUSY: &str = "BROKER_BUSY";
}

/// Why a call failed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Error(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    code: Code,
    reason: Cow<'static, str>,
    message: String,
    metadata: BTreeMap<String, String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// The gRPC status code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What went wrong, for programs: a reason of `sagwan/v1/common.proto`, one of [`reason`], or empty when the
    /// answer came from something that is not a Sagwan broker.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What went wrong, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The facts that come with the reason, such as `topic` and `log_start_offset`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// How long to wait at least before another attempt, where the broker says so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same call may succeed later. Look at [`is_outcome_unknown`](Self::is_outcome_unknown) too before
    /// something is done a second time that must not be done twice.
    pub fn is_retriable(&self) -> bool {
        self.0.retry_after.is_some()
            || matches!(
                self.reason(),
                reason::UNREACHABLE
                    | reason::CONNECTION_LOST
                    | reason::TIMEOUT
                    | reason::STORAGE_FULL
                    | reason::SHUTTING_DOWN
                    | reason::STREAM_STALLED
                    | reason::REQUEST_STALLED
                    | reason::BROKER_BUSY
            )
    }

    /// Whether the broker may have done what was asked, or may not have.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self.reason(), reason::CONNECTION_LOST | reason::TIMEOUT | reason::ABANDONED)
    }

    /// Whether no broker answers at the address: then nothing was done.
    pub fn is_unreachable(&self) -> bool {
        self.reason() == reason::UNREACHABLE
    }

    /// Whether the trouble is one partition's own, and neither the caller's nor the connection's.
    pub(super) fn is_of_partition(&self) -> bool {
        matches!(self.reason(), reason::PARTITION_FENCED | reason::DATA_LOSS | reason::STORAGE_ERROR)
    }

    /// Whether it is certain that nothing was done and worth trying again.
    pub(super) fn is_safe_to_retry(&self) -> bool {
        self.is_retriable() && !self.is_outcome_unknown()
    }

    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self::with_metadata(code, reason, message, [])
    }

    pub(super) fn with_metadata<const N: usize>(
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
        metadata: [(&str, String); N],
    ) -> Self {
        Self(Arc::new(Facts {
            code,
            reason: Cow::Borrowed(reason),
            message: message.into(),
            metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            retry_after: None,
        }))
    }

    /// Of something that was sent several times: of one attempt the outcome is unknown (`unanswered`), the last one
    /// failed. So the outcome is unknown.
    pub(super) fn undecided(unanswered: &Self, last: &Self) -> Self {
        Self(Arc::new(Facts {
            code: unanswered.0.code,
            reason: unanswered.0.reason.clone(),
            message: format!("{unanswered}; sent again: {last}"),
            metadata: last.0.metadata.clone(),
            retry_after: None,
        }))
    }

    /// An argument or a setting that cannot be used.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason::INVALID_REQUEST, message)
    }

    /// An answer outside the contract.
    pub(super) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, reason::UNEXPECTED_ANSWER, message)
    }

    /// From a call to the broker at `url` that failed as a whole.
    pub(super) fn from_status(status: &Status, url: &str) -> Self {
        if let Some(info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) {
            return Self(Arc::new(Facts {
                code: status.code(),
                reason: Cow::Owned(info.reason),
                message: status.message().to_owned(),
                metadata: info.metadata.into_iter().collect(),
                retry_after: status.get_details_retry_info().and_then(|retry| retry.retry_delay),
            }));
        }
        // A status with a source was made on this side, of what happened to the connection.
        let Some(source) = std::error::Error::source(status) else {
            return match status.code() {
                Code::Unavailable => Self::lost(url, status.message()),
                code => Self::new(code, "", status.message()),
            };
        };
        if has_cause::<ConnectError>(source) {
            Self::unreachable(url, source)
        } else if has_cause::<TimeoutExpired>(source) {
            Self::new(
                Code::DeadlineExceeded,
                reason::TIMEOUT,
                format!("the broker at {url} did not answer in time"),
            )
        } else {
            Self::lost(url, &root_cause(source))
        }
    }

    /// From the part of an answer that tells of a failure.
    pub(crate) fn from_proto(error: proto::Error) -> Self {
        Self(Arc::new(Facts {
            code: Code::from_i32(error.code),
            reason: Cow::Owned(error.reason),
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
            retry_after: error
                .retry_after_ms
                .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default())),
        }))
    }

    /// No connection to `url`.
    pub(super) fn unreachable(url: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        let message = format!("no broker answers at {url}: {}", root_cause(cause));
        Self::new(Code::Unavailable, reason::UNREACHABLE, message)
    }

    /// The connection to `url` broke.
    pub(super) fn lost(url: &str, detail: &str) -> Self {
        let message = format!("the connection to the broker at {url} broke: {detail}");
        Self::new(Code::Unavailable, reason::CONNECTION_LOST, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message(), self.reason()) {
            ("", "") => write!(f, "the broker answered {:?}", self.code()),
            ("", reason) => f.write_str(reason),
            (message, _) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<InvalidTopicName> for Error {
    fn from(error: InvalidTopicName) -> Self {
        let message = error.to_string();
        Self::with_metadata(Code::InvalidArgument, "INVALID_TOPIC_NAME", message, [("topic", error.name)])
    }
}

impl From<InvalidGroupName> for Error {
    fn from(error: InvalidGroupName) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_GROUP", error.to_string())
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn has_cause<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<E>)
}

/// The innermost error: the layers above it only say "transport error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_status_with_error_info_keeps_all_its_facts() {
        let mut details = ErrorDetails::new();
        details.set_error_info("STORAGE_FULL", DOMAIN, [("topic".to_owned(), "t".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(250)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let error = Error::from_status(&status, "http://x");
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.reason(), "STORAGE_FULL");
        assert_eq!(error.to_string(), "full");
        assert_eq!(error.metadata().get("topic").map(String::as_str), Some("t"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert!(error.is_retriable() && error.is_safe_to_retry());
    }

    #[test]
    fn error_info_of_another_domain_is_not_taken_for_the_brokers() {
        let details = ErrorDetails::with_error_info("STORAGE_FULL", "example.org", []);
        let status = Status::with_error_details(Code::PermissionDenied, "no", details);
        let error = Error::from_status(&status, "http://x");
        assert_eq!(error.reason(), "");
        assert!(!error.is_retriable());
    }

    #[test]
    fn a_refused_connection_is_unreachable_and_a_broken_one_of_unknown_outcome() {
        let refused = ConnectError(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        let error = Error::from_status(&Status::from_error(Box::new(refused)), "http://x");
        assert!(error.is_unreachable() && error.is_safe_to_retry(), "{error:?}");
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let error = Error::from_status(&Status::from_error(Box::new(broken)), "http://x");
        assert!(error.is_retriable() && error.is_outcome_unknown() && !error.is_safe_to_retry(), "{error:?}");
    }

    #[test]
    fn a_fenced_partition_is_unavailable_but_not_worth_a_retry() {
        let error = Error::from_proto(proto::Error {
            code: Code::Unavailable as i32,
            reason: "PARTITION_FENCED".to_owned(),
            ..proto::Error::default()
        });
        assert!(!error.is_retriable());
    }
}
