//! The outcome as a page.

use super::outcome::Outcome;

/// The outcome as a page.
pub(super) fn render(_outcome: &Outcome) -> String {
    String::new()
}
