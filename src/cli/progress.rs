//! A bar on standard error for what takes long, if there is a person to see it.

use std::fmt::Write;
use std::io::IsTerminal as _;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const BYTES_OF_TOTAL: &str = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const BYTES: &str = "{spinner} {bytes} {bytes_per_sec}";
const RECORDS: &str = "{bar:30} {human_pos}/{human_len} records {rate} {eta}";

/// Bytes of an input whose size may be unknown.
pub(super) fn bytes(total: Option<u64>) -> ProgressBar {
    let template = if total.is_some() { BYTES_OF_TOTAL } else { BYTES };
    bar(total, template, std::io::stderr().is_terminal())
}

/// Records up to a known end. Not while records themselves are written to the terminal.
pub(super) fn records(total: u64) -> ProgressBar {
    let visible = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    bar(Some(total), RECORDS, visible)
}

/// Steps of something, in a style of the caller's.
pub(super) fn steps(total: u64) -> ProgressBar {
    if std::io::stderr().is_terminal() {
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
    } else {
        none()
    }
}

/// No bar: for what has no end.
pub(super) fn none() -> ProgressBar {
    ProgressBar::hidden()
}

fn bar(total: Option<u64>, template: &str, visible: bool) -> ProgressBar {
    if !visible {
        return none();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // Without its template, a bar still has indicatif's own.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
            // Without a bar there is nothing to be done about it.
            let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
        })),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [BYTES_OF_TOTAL, BYTES, RECORDS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
