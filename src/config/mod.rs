//! The settings: one struct a layer, each with its defaults, its ranges and the check of one against another.
//!
//! A configuration file is TOML with one table for each struct here; unknown keys are refused. `deploy/sagwan.toml`
//! spells out all of them with their defaults, and a test keeps it so.

mod broker;
mod budget;
mod grpc;
mod storage;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use broker::{BatchValidation, BrokerConfig};
pub use grpc::GrpcConfig;
pub use storage::{PageCache, StorageConfig, SyncMethod};

/// All settings of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept. Created if it is not there. Default: `./data`.
    pub data_dir: PathBuf,
    /// How the log is written and read.
    pub storage: StorageConfig,
    /// Topics, produce and fetch.
    pub broker: BrokerConfig,
    /// The gRPC listener.
    pub grpc: GrpcConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            storage: StorageConfig::default(),
            broker: BrokerConfig::default(),
            grpc: GrpcConfig::default(),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value outside its range, or one that does not go with another.
    #[error("setting {name} = {value}: {requirement}")]
    Invalid {
        /// The setting, with its table.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What is allowed.
        requirement: String,
    },
    /// The process may not open as many files as it needs at least.
    #[error(
        "at most {descriptors} files may be open at a time (RLIMIT_NOFILE), at least {needed} are needed: raise the limit, \
         as with ulimit -n or LimitNOFILE="
    )]
    TooFewDescriptors {
        /// How many may be open.
        descriptors: u64,
        /// How many would do, with the fewest logs and connections.
        needed: u64,
    },
}

impl Config {
    /// Reads a configuration file; what it leaves out has its default.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read, is not valid, or has a value out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every value against its range and its relatives.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first one that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let named = !self.data_dir.as_os_str().is_empty();
        require(named, "data_dir", "\"\"", || "must name a directory".to_owned())?;
        self.storage.validate()?;
        self.broker.validate()?;
        self.grpc.validate()?;
        // A batch that the broker takes must fit into a message, a queue and a group.
        let largest = self.broker.max_message_bytes_limit;
        require(
            self.grpc.max_message_bytes >= largest + GrpcConfig::ENVELOPE_BYTES,
            "grpc.max_message_bytes",
            self.grpc.max_message_bytes,
            || {
                format!(
                    "must be at least broker.max_message_bytes_limit + {} = {}",
                    GrpcConfig::ENVELOPE_BYTES,
                    largest + GrpcConfig::ENVELOPE_BYTES
                )
            },
        )?;
        // One answer always fits: what is read for it, and decoded records twice, in memory and on their way out.
        let answer = largest.max(u64::from(self.broker.fetch_max_bytes)) + 2 * GrpcConfig::MAX_DECODED_BYTES;
        require(
            self.grpc.response_memory_bytes >= answer,
            "grpc.response_memory_bytes",
            self.grpc.response_memory_bytes,
            || {
                format!(
                    "must be at least broker.fetch_max_bytes or broker.max_message_bytes_limit, whichever is larger, and \
                     {} more: {answer}",
                    2 * GrpcConfig::MAX_DECODED_BYTES
                )
            },
        )?;
        for (name, value) in [
            ("storage.max_group_bytes", self.storage.max_group_bytes),
            ("broker.queue_bytes", self.broker.queue_bytes),
        ] {
            require(value >= largest, name, value, || {
                format!("must be at least broker.max_message_bytes_limit = {largest}")
            })?;
        }
        Ok(())
    }
}

/// `value`, if it is `fine`; otherwise the error that says what is required.
fn require(
    fine: bool,
    name: &'static str,
    value: impl std::fmt::Display,
    requirement: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if fine {
        Ok(())
    } else {
        Err(ConfigError::Invalid { name, value: value.to_string(), requirement: requirement() })
    }
}

/// Checks that `value` lies in `range`.
fn in_range<T: PartialOrd + std::fmt::Display + Copy>(
    name: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    require(range.contains(&value), name, value, || {
        format!("must be from {} to {}", range.start(), range.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().expect("defaults");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("[storage]\nwriter_treads = 2\n").expect_err("a typo");
        assert!(error.to_string().contains("writer_treads"), "{error}");
    }

    #[test]
    fn an_empty_data_directory_is_refused_by_name() {
        let config: Config = toml::from_str("data_dir = \"\"").expect("TOML");
        let error = config.validate().expect_err("no directory").to_string();
        assert!(error.contains("data_dir = \"\""), "{error}");
    }

    #[test]
    fn related_limits_are_checked_against_each_other() {
        let mut config = Config::default();
        config.storage.max_group_bytes = 1 << 20;
        let error = config.validate().expect_err("a group smaller than a message");
        assert!(error.to_string().contains("storage.max_group_bytes"), "{error}");

        let mut config = Config::default();
        config.grpc.request_memory_bytes = 2 * config.grpc.max_message_bytes - 1;
        let error = config.validate().expect_err("no room for a message and what it decodes to").to_string();
        assert!(error.contains("grpc.request_memory_bytes"), "{error}");

        let mut config = Config::default();
        config.broker.fetch_max_bytes =
            u32::try_from(config.grpc.response_memory_bytes).expect("less than 4 GiB");
        let error = config.validate().expect_err("no room for the largest answer").to_string();
        assert!(error.contains("grpc.response_memory_bytes"), "{error}");
    }
}
