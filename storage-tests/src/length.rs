//! How long a torture goes on: the few cycles of its short form, or what the environment says.

use std::time::{Duration, Instant};

use crate::setting;

/// Counts the cycles of one test.
#[derive(Debug)]
pub struct Length {
    cycles: u64,
    end: End,
}

#[derive(Debug)]
enum End {
    Cycles(u64),
    Time(Instant),
}

impl Length {
    /// So many cycles, unless `SAGWAN_TEST_CYCLES` or `SAGWAN_TEST_MINUTES` says otherwise.
    ///
    /// # Panics
    /// If both are given, or one is no number.
    pub fn of(short: u64) -> Self {
        let end = match (setting("SAGWAN_TEST_CYCLES"), setting("SAGWAN_TEST_MINUTES")) {
            (None, None) => End::Cycles(short),
            (Some(cycles), None) => End::Cycles(cycles),
            (None, Some(minutes)) => End::Time(Instant::now() + Duration::from_secs(60 * minutes)),
            (Some(_), Some(_)) => panic!("SAGWAN_TEST_CYCLES and SAGWAN_TEST_MINUTES: one or the other"),
        };
        Self { cycles: 0, end }
    }

    /// Whether there is another cycle.
    pub fn goes_on(&self) -> bool {
        match self.end {
            End::Cycles(cycles) => self.cycles < cycles,
            End::Time(end) => Instant::now() < end,
        }
    }

    /// Cycles begun so far.
    pub const fn cycles(&self) -> u64 {
        self.cycles
    }
}

/// The cycles, from 0.
impl Iterator for Length {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let cycle = self.goes_on().then_some(self.cycles)?;
        self.cycles += 1;
        Some(cycle)
    }
}
