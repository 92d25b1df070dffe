//! The budget of segments that are open for reading at a time, in all logs together.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::segment::Segment;

/// Lets the segment go that was opened longest ago when there are more than allowed.
#[derive(Debug)]
pub(super) struct OpenSegments {
    max: usize,
    opened: Mutex<VecDeque<Weak<Segment>>>,
}

impl OpenSegments {
    /// At most `max` at a time.
    pub(super) fn new(max: usize) -> Self {
        Self { max, opened: Mutex::new(VecDeque::new()) }
    }

    /// Called by a segment that has just been opened, without any of its locks.
    pub(super) fn opened(&self, segment: &Arc<Segment>) {
        let oldest = {
            let mut opened = self.opened.lock();
            opened.push_back(Arc::downgrade(segment));
            if opened.len() > self.max { opened.pop_front() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade())
            && !Arc::ptr_eq(&oldest, segment)
        {
            oldest.close();
        }
    }
}
