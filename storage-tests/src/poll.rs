//! Waiting for what nobody tells of: the state of another process or of the kernel, or a counter. Where there is an event
//! to await, await that; whoever polls says why there is none.

use std::thread;
use std::time::{Duration, Instant};

/// How long it may take: far longer than it does, on a busy machine too.
const LIMIT: Duration = Duration::from_mins(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until it holds.
///
/// # Panics
/// If it does not within three minutes.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert_in_time(what, begun);
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same on a thread of its own.
///
/// # Panics
/// As [`until`].
pub fn block_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert_in_time(what, begun);
        thread::sleep(PAUSE);
    }
}

fn assert_in_time(what: &str, begun: Instant) {
    assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
}
