//! The machine that a run is on.

use std::num::NonZero;

use serde::Serialize;

/// What is known of it; what cannot be told is absent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) cpu: Option<String>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) kernel: Option<String>,
}

impl Machine {
    /// This one.
    pub(super) fn own() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let value = |text: Option<String>, name: &str| {
            let line = text?.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))?;
            Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
        };
        let memory = value(read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|memory| memory.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            cpu: value(read("/proc/cpuinfo"), "model name"),
            memory_bytes: kib.map(|kib| kib << 10),
            kernel: read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {}", release.trim())),
        }
    }

    /// In one line.
    pub(super) fn describe(&self) -> String {
        let kernel = self.kernel.as_deref().unwrap_or("kernel not known");
        let cpu = self.cpu.as_deref().unwrap_or("processor not known");
        format!("{} cores ({cpu}), {kernel}", self.cores)
    }
}
