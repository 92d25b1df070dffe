//! The bound on what has been accepted and not yet acknowledged. Whoever wants to append waits here for room,
//! first come first served; the room is given back when the store says what became of the append.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Semaphores count in 32 bits at a time; so that 64 GiB fit, room is counted in units of this many bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// Room for accepted bytes, for the whole broker.
#[derive(Debug)]
pub(super) struct Queue {
    room: Arc<Semaphore>,
    units: u32,
}

/// Room taken; dropping it gives it back.
pub(super) type QueueRoom = OwnedSemaphorePermit;

/// The queue takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueClosed;

impl Queue {
    /// A queue of at most `queue_bytes`.
    pub(super) fn new(queue_bytes: u64) -> Self {
        let units = u32::try_from(queue_bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { room: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for room for `bytes`; something larger than the queue waits for all of it.
    pub(super) async fn enter(&self, bytes: usize) -> Result<QueueRoom, QueueClosed> {
        let units = u32::try_from((bytes as u64).div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| QueueClosed)
    }

    /// Waits until all that entered before has left, and lets nobody in any more.
    pub(super) async fn close(&self) -> Result<(), QueueClosed> {
        let all = self.room.acquire_many(self.units).await.map_err(|_| QueueClosed)?;
        self.room.close();
        drop(all);
        Ok(())
    }

    /// The bytes taken now, in whole units.
    pub(super) fn used_bytes(&self) -> u64 {
        u64::from(self.units).saturating_sub(self.room.available_permits() as u64) * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn a_full_queue_makes_the_next_wait() {
        let queue = Queue::new(4 << 10);
        let first = queue.enter(3 << 10).await.expect("room");
        assert_eq!(queue.used_bytes(), 3 << 10);
        let mut second = pin!(queue.enter(1025));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        drop(second.await.expect("room again"));
    }

    #[tokio::test]
    async fn something_larger_than_the_queue_gets_all_of_it() {
        let queue = Queue::new(4 << 10);
        let all = queue.enter(1 << 20).await.expect("room");
        assert_eq!(queue.used_bytes(), 4 << 10);
        drop(all);
        assert_eq!(queue.used_bytes(), 0);
    }

    #[tokio::test]
    async fn closing_waits_for_what_has_entered() {
        let queue = Queue::new(4 << 10);
        let inside = queue.enter(1).await.expect("room");
        let mut closing = pin!(queue.close());
        assert!(poll!(&mut closing).is_pending());
        drop(inside);
        assert_eq!(closing.await, Ok(()));
        assert_eq!(queue.enter(1).await.err(), Some(QueueClosed));
        assert_eq!(queue.close().await, Err(QueueClosed));
    }
}
