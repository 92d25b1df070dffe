//! What a process takes: CPU time and memory, as Linux tells it in `/proc`.

use std::fs;

use serde::Serialize;

/// Of a process, from its start on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Usage {
    /// CPU time of all its threads, in user and kernel mode.
    pub(super) cpu_s: f64,
    /// Memory of its own now: not of files.
    pub(super) anonymous_bytes: u64,
    /// Resident now, mapped files included.
    pub(super) resident_bytes: u64,
    /// The most that was resident.
    pub(super) peak_resident_bytes: u64,
}

/// Whose figures to read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Process {
    /// This one.
    Own,
    /// The one with that id.
    Id(u32),
}

impl Process {
    /// The most that is resident counts from now on. Where that is refused, it counts from the start of the process.
    pub(super) fn forget_peak(self) {
        let path = match self {
            Self::Own => "/proc/self/clear_refs".to_owned(),
            Self::Id(id) => format!("/proc/{id}/clear_refs"),
        };
        let _ = fs::write(path, "5");
    }

    /// `None` where there is no `/proc`, or no such process.
    pub(super) fn usage(self) -> Option<Usage> {
        let read = |file: &str| match self {
            Self::Own => fs::read_to_string(format!("/proc/self/{file}")).ok(),
            Self::Id(id) => fs::read_to_string(format!("/proc/{id}/{file}")).ok(),
        };
        usage(&read("stat")?, &read("status")?, rustix::param::clock_ticks_per_second())
    }
}

/// From the texts of `stat` and `status` (proc(5)).
fn usage(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name, in parentheses, may hold anything; what follows begins with field 3.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let cpu_ticks = ticks()? + ticks()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    Some(Usage {
        cpu_s: cpu_ticks as f64 / ticks_per_second as f64,
        anonymous_bytes: bytes("RssAnon")?,
        resident_bytes: bytes("VmRSS")?,
        peak_resident_bytes: bytes("VmHWM")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_proc_are_understood() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1 2 3";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1536 kB\nRssAnon:\t    1024 kB\n";
        let expected = Usage {
            cpu_s: 2.0,
            anonymous_bytes: 1 << 20,
            resident_bytes: 3 << 19,
            peak_resident_bytes: 2 << 20,
        };
        assert_eq!(usage(stat, status, 100), Some(expected));
        assert_eq!(usage(stat, "VmHWM: 1 kB", 100), None);
        assert_eq!(usage("", status, 100), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_figures() {
        let usage = Process::Own.usage().expect("Linux has /proc");
        assert!(usage.peak_resident_bytes >= usage.anonymous_bytes && usage.anonymous_bytes > 0);
        assert_eq!(Process::Id(0).usage(), None);
    }
}
