//! A line on the terminal, while something runs: what it is, how far it has come, how fast it goes.

use indicatif::{ProgressBar, ProgressStyle};

use super::course::Course;
use super::sample::{Sample, Samples};
use super::units::megabytes;
use crate::cli::progress;

const TEMPLATE: &str = "{prefix} {bar:24} {msg}";
/// Steps of the bar.
const STEPS: u64 = 1_000;

/// The line; none, if nobody sees it.
#[derive(Debug)]
pub(super) struct Live(ProgressBar);

impl Live {
    pub(super) fn new() -> Self {
        let bar = progress::steps(STEPS);
        // Without its template, a bar still has indicatif's own.
        Self(match ProgressStyle::with_template(TEMPLATE) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// What begins now.
    pub(super) fn begin(&self, what: &str) {
        self.0.set_prefix(what.to_owned());
        self.0.set_message("starting");
        self.0.set_position(0);
    }

    /// How it goes.
    pub(super) fn show(&self, course: &Course, samples: &Samples, total_records: Option<u64>) {
        let Some((before, last)) = samples.last_two() else { return };
        let progress = course.progress(last.at_ns, total_records);
        self.0.set_position(progress.map_or(0, |done| (done * STEPS as f64) as u64));
        let phase = match progress {
            None => "warming up",
            Some(done) if done >= 1.0 => "finishing",
            Some(_) => "measuring",
        };
        self.0.set_message(format!("{phase}{}", rates(before, last)));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What flows, by name.
fn rates(before: &Sample, last: &Sample) -> String {
    let seconds = (last.at_ns.saturating_sub(before.at_ns)).max(1) as f64 / 1e9;
    let flows = [
        ("produced", before.produced, last.produced),
        ("followed", before.followed, last.followed),
        ("caught up", before.caught_up, last.caught_up),
    ];
    let rate = |(name, before, last): (&str, super::meter::Count, super::meter::Count)| {
        (last.bytes > 0).then(|| {
            let per_s = |before: u64, last: u64| (last - before) as f64 / seconds;
            let records = per_s(before.records, last.records);
            let bytes = megabytes(per_s(before.bytes, last.bytes));
            format!("  {name} {bytes} MB/s, {records:.0} records/s")
        })
    };
    flows.into_iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
