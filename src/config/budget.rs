//! The settings that take descriptors and maps, held to what the machine allows.
//!
//! ```text
//! RLIMIT_NOFILE = reserve + storage.open_logs + grpc.max_connections
//! reserve       = 48, and an eighth of the limit up to 256 for checkpoints
//! ```
//! The reserve is for what must always go on: rolls, checkpoints, small files, opening segments for reading. A segment that
//! is open has maps and no descriptor: at most half of the maps that files may have, as readers may hold on to maps of
//! segments that have been let go.

use super::storage::LEAST_OPEN;
use super::{Config, ConfigError};

/// What the process has open besides logs and connections: its streams, the runtime's own, the lock, the data directory,
/// the durable slots, the listener; and what is open for a moment.
const RESERVE: u64 = 48;
/// More than an eighth of the limit, or this, checkpoints do not open.
const MOST_CHECKPOINT_FILES: u64 = 256;
/// Of one open segment: its log and its index.
const MAPS_PER_SEGMENT: u64 = 2;

impl Config {
    /// The same settings, reduced to `descriptors` open files and `maps` mapped files. Says what it reduces.
    ///
    /// # Errors
    /// [`ConfigError::TooFewDescriptors`].
    pub fn within(mut self, descriptors: u64, maps: u64) -> Result<Self, ConfigError> {
        let reserve = RESERVE + (descriptors / 8).min(MOST_CHECKPOINT_FILES);
        let free = usize::try_from(descriptors.saturating_sub(reserve)).unwrap_or(usize::MAX);
        let (logs, connections) = (self.storage.open_logs, self.grpc.max_connections);
        let logs_allowed = (free / 2).max(free.saturating_sub(connections));
        let connections_allowed = (free / 2).max(free.saturating_sub(logs));
        let least = LEAST_OPEN.max(self.storage.writer_threads);
        if logs_allowed < least.min(logs) || connections_allowed < LEAST_OPEN.min(connections) {
            let needed = (2 * least as u64 + RESERVE) * 8 / 7 + 1;
            return Err(ConfigError::TooFewDescriptors { descriptors, needed });
        }
        reduce("storage.open_logs", &mut self.storage.open_logs, logs_allowed, "RLIMIT_NOFILE", descriptors);
        let connections = &mut self.grpc.max_connections;
        reduce("grpc.max_connections", connections, connections_allowed, "RLIMIT_NOFILE", descriptors);
        let segments_allowed =
            usize::try_from(maps / 2 / MAPS_PER_SEGMENT).unwrap_or(usize::MAX).max(LEAST_OPEN);
        let segments = &mut self.storage.open_segments;
        reduce("storage.open_segments", segments, segments_allowed, "half of vm.max_map_count", maps);
        Ok(self)
    }
}

fn reduce(setting: &str, value: &mut usize, allowed: usize, limit: &str, limit_is: u64) {
    if *value > allowed {
        tracing::warn!(
            setting,
            configured = *value,
            reduced_to = allowed,
            "{limit} is {limit_is}: setting reduced"
        );
        *value = allowed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(open_logs: usize, max_connections: usize, open_segments: usize) -> Config {
        let mut config = Config::default();
        config.storage.open_logs = open_logs;
        config.storage.open_segments = open_segments;
        config.grpc.max_connections = max_connections;
        config
    }

    #[test]
    fn settings_that_fit_stay_as_they_are() {
        let config = asked(4_096, 4_096, 4_096);
        assert_eq!(config.clone().within(9_000, 16_384).expect("enough"), config);
    }

    #[test]
    fn what_is_too_much_is_shared_and_the_sum_fits() {
        for descriptors in [100, 128, 1_024, 4_096, 8_192] {
            for (logs, connections) in [(4_096, 4_096), (1_000_000, 20), (16, 1_000_000)] {
                let config = asked(logs, connections, 16).within(descriptors, 65_530).expect("enough");
                let (logs_left, connections_left) = (config.storage.open_logs, config.grpc.max_connections);
                let reserve = RESERVE + (descriptors / 8).min(MOST_CHECKPOINT_FILES);
                assert!(
                    (logs_left + connections_left) as u64 + reserve <= descriptors,
                    "{descriptors}: {config:?}"
                );
                assert!(logs_left >= logs.min(16) && connections_left >= connections.min(16), "{config:?}");
            }
        }
        // Who asks for little leaves the rest to the other.
        let config = asked(16, 1_000_000, 16).within(1_024, 65_530).expect("enough");
        assert_eq!((config.storage.open_logs, config.grpc.max_connections), (16, 1_024 - 48 - 128 - 16));
    }

    #[test]
    fn segments_leave_half_of_the_maps_to_slow_readers() {
        let config = asked(16, 16, 1_000_000).within(1_024, 32_765).expect("enough");
        assert_eq!(config.storage.open_segments, 8_191);
    }

    #[test]
    fn too_few_descriptors_are_refused_with_the_number_that_would_do() {
        let error = asked(4_096, 4_096, 16).within(64, 65_530).expect_err("too few");
        let ConfigError::TooFewDescriptors { descriptors: 64, needed } = error else { panic!("{error}") };
        assert!(error.to_string().contains("64"), "{error}");
        asked(4_096, 4_096, 16).within(needed, 65_530).expect("it said so");
    }
}
