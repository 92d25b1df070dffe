//! The budget of segments that are open for reading at a time, in all logs together. An open one has its maps, and no
//! descriptor; those that are being opened have one each, so only a few may be.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use super::segment::Segment;

/// Lets the segment go that was opened longest ago when there are more than allowed.
#[derive(Debug)]
pub(super) struct OpenSegments {
    max: usize,
    opened: Mutex<VecDeque<Weak<Segment>>>,
    opening: Mutex<usize>,
    has_opened: Condvar,
}

/// Files that readers may have open at a time; they wait for each other, as for the disk.
const OPENING: usize = 8;

/// The right to have one file open, as long as it is kept.
pub(super) struct OpenPermit<'a>(&'a OpenSegments);

impl Drop for OpenPermit<'_> {
    fn drop(&mut self) {
        *self.0.opening.lock() -= 1;
        self.0.has_opened.notify_one();
    }
}

impl OpenSegments {
    /// At most `max` at a time.
    pub(super) fn new(max: usize) -> Self {
        Self { max, opened: Mutex::default(), opening: Mutex::new(0), has_opened: Condvar::new() }
    }

    /// Waits until one file more may be open for reading. Whoever has this right must not ask for another.
    pub(super) fn permit(&self) -> OpenPermit<'_> {
        let mut opening = self.opening.lock();
        while *opening >= OPENING {
            self.has_opened.wait(&mut opening);
        }
        *opening += 1;
        OpenPermit(self)
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
