//! What messages take in memory at the edge, counted against one limit for the whole broker: one [`Memory`] for
//! requests on their way in, one for answers on their way out.
//!
//! A message takes memory before it uses any. What it has taken is held by a [`Taken`] until the memory is free again,
//! so the sum never passes the limit. Clients decide how long that lasts, and some stand still. So each message can be
//! asked since when its client has not moved ([`Holder`]), and
//! - when memory is short, whoever has stood still longest makes room for those who move, after [`GRACE`];
//! - whoever has stood still for the stall timeout is let go in any case.
//!
//! A client that goes on is therefore not kept waiting for long by those that do not, however many there are of them:
//! who waits is served in turn, and all waiting ends with a refusal after [`PATIENCE`].

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A client may stand still for so long even when memory is short: a round trip around the world, and some of its own.
const GRACE: Duration = Duration::from_millis(500);
/// How long to wait for memory before the call is refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look again where nothing says when.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Memory that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMemory {
    /// More than there is in all.
    TooMuch { bytes: u64, limit_bytes: u64 },
    /// Others have it, and go on using it.
    Busy,
}

/// How a client stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stall {
    /// It has been let go already, and what is left of it cannot be freed gently.
    pub(super) let_go: bool,
    /// When it last moved.
    pub(super) since: Instant,
    /// What it holds for certain; an answer, what the transport has of it.
    pub(super) bytes: u64,
}

/// Something that holds memory for as long as its client likes.
pub(super) trait Holder: Send + Sync {
    /// `None` while the client is not what it waits for, or there is nothing to free.
    fn stall(&self) -> Option<Stall>;
    /// Frees memory, now or soon; returns how much. After it has been let go gently, it may take the connection with
    /// it.
    fn let_go(&self) -> u64;
}

/// A limit, and what is taken of it. Clones share it.
#[derive(Clone)]
pub(super) struct Memory(Arc<Shared>);

struct Shared {
    limit_bytes: u64,
    stall_timeout: Duration,
    state: Mutex<State>,
    /// Held by the one whose turn it is; first come, first served.
    turn: tokio::sync::Mutex<()>,
    given_back: Notify,
}

#[derive(Default)]
struct State {
    taken_bytes: u64,
    waiting: usize,
    next_id: u64,
    holders: HashMap<u64, Weak<dyn Holder>>,
}

/// Memory taken; dropping it gives it back.
pub(super) struct Taken {
    shared: Arc<Shared>,
    bytes: AtomicU64,
}

/// Keeps a holder known.
pub(super) struct Known {
    shared: Arc<Shared>,
    id: u64,
}

impl Memory {
    pub(super) fn new(limit_bytes: u64, stall_timeout: Duration) -> Self {
        Self(Arc::new(Shared {
            limit_bytes,
            stall_timeout,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            given_back: Notify::new(),
        }))
    }

    /// After how long without a move a client is let go.
    pub(super) fn stall_timeout(&self) -> Duration {
        self.0.stall_timeout
    }

    /// Waits for `bytes`, and lets clients go that stand still if that is what it takes.
    ///
    /// # Errors
    /// [`NoMemory`]; nothing is taken then.
    pub(super) async fn take(&self, bytes: u64) -> Result<Taken, NoMemory> {
        if let Some(taken) = self.try_take(bytes) {
            return Ok(taken);
        }
        let limit_bytes = self.0.limit_bytes;
        if bytes > limit_bytes {
            return Err(NoMemory::TooMuch { bytes, limit_bytes });
        }
        let deadline = Instant::now() + PATIENCE;
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.0.turn.lock()).await else {
            return Err(NoMemory::Busy);
        };
        self.wait_for(bytes, deadline).await
    }

    /// As [`Memory::take`], for who holds some already and would keep others waiting: not in turn, and not for longer than
    /// it takes to let go who stands still.
    ///
    /// # Errors
    /// [`NoMemory`]; the caller then gives up what it holds.
    pub(super) async fn take_more(&self, bytes: u64, held_bytes: u64) -> Result<Taken, NoMemory> {
        let (bytes_in_all, limit_bytes) = (held_bytes.saturating_add(bytes), self.0.limit_bytes);
        if bytes_in_all > limit_bytes {
            return Err(NoMemory::TooMuch { bytes: bytes_in_all, limit_bytes });
        }
        self.wait_for(bytes, Instant::now() + 2 * GRACE).await
    }

    async fn wait_for(&self, bytes: u64, deadline: Instant) -> Result<Taken, NoMemory> {
        let _waiting = Waiting::new(&self.0);
        loop {
            let mut given_back = pin!(self.0.given_back.notified());
            given_back.as_mut().enable();
            if let Some(taken) = self.try_take(bytes) {
                return Ok(taken);
            }
            if Instant::now() >= deadline {
                return Err(NoMemory::Busy);
            }
            self.make_room(bytes);
            // Looking again also covers what comes to stand still meanwhile.
            let _ = tokio::time::timeout(LOOK_AGAIN, given_back).await;
        }
    }

    /// Takes `bytes` if they are there.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Taken> {
        let mut state = self.0.state.lock();
        let sum = state.taken_bytes.checked_add(bytes).filter(|&sum| sum <= self.0.limit_bytes)?;
        state.taken_bytes = sum;
        Some(Taken { shared: Arc::clone(&self.0), bytes: AtomicU64::new(bytes) })
    }

    /// Lets clients go that have stood still longest, until `bytes` will fit or none is left.
    fn make_room(&self, bytes: u64) {
        let mut stalled = self.stalled(GRACE);
        stalled.sort_by_key(|&(stall, _)| stall);
        let free = self.0.limit_bytes - self.0.state.lock().taken_bytes;
        let mut missing = bytes.saturating_sub(free);
        // Connections are worth something too: they go only where what is left on them is what memory is short of.
        let left: u64 = stalled.iter().filter(|(stall, _)| stall.let_go).map(|(stall, _)| stall.bytes).sum();
        let may_cut = left > self.0.limit_bytes / 2;
        for (stall, holder) in stalled {
            if missing == 0 || stall.let_go && !may_cut {
                break;
            }
            missing = missing.saturating_sub(holder.let_go());
        }
        // Waiters for what was given back are woken by its `Taken`.
    }

    fn stalled(&self, for_at_least: Duration) -> Vec<(Stall, Arc<dyn Holder>)> {
        // Asked without the lock: a holder that is asked may just be giving something back.
        let holders: Vec<_> = self.0.state.lock().holders.values().filter_map(Weak::upgrade).collect();
        let now = Instant::now();
        holders
            .into_iter()
            .filter_map(|holder| Some((holder.stall()?, holder)))
            .filter(|(stall, _)| now.saturating_duration_since(stall.since) >= for_at_least)
            .collect()
    }

    /// Makes `holder` one of those that are asked.
    pub(super) fn know(&self, holder: Weak<dyn Holder>) -> Known {
        let mut state = self.0.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.holders.insert(id, holder);
        Known { shared: Arc::clone(&self.0), id }
    }

    /// Lets go whoever has stood still for the stall timeout. Never returns.
    pub(super) async fn watch(self) {
        let timeout = self.0.stall_timeout;
        let mut ticks = tokio::time::interval((timeout / 4).max(LOOK_AGAIN));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for (stall, holder) in self.stalled(timeout) {
                if !stall.let_go {
                    holder.let_go();
                }
            }
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("limit_bytes", &self.0.limit_bytes).finish_non_exhaustive()
    }
}

impl Taken {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives back all but `bytes`. Never takes more.
    pub(super) fn shrink_to(&self, bytes: u64) {
        let before = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        self.shared.give_back(before.saturating_sub(bytes));
    }

    /// Parts with `bytes` of it, or with all if it is less.
    pub(super) fn split(&self, bytes: u64) -> Self {
        let mut parted = 0;
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
            parted = bytes.min(all);
            Some(all - parted)
        });
        Self { shared: Arc::clone(&self.shared), bytes: AtomicU64::new(parted) }
    }

    /// Makes one of two.
    pub(super) fn absorb(&self, mut other: Self) {
        self.bytes.fetch_add(std::mem::take(other.bytes.get_mut()), Ordering::Relaxed);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shared.give_back(*self.bytes.get_mut());
    }
}

impl Shared {
    fn give_back(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.taken_bytes = state.taken_bytes.saturating_sub(bytes);
        let awaited = state.waiting > 0;
        drop(state);
        if awaited {
            self.given_back.notify_waiters();
        }
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.shared.state.lock().holders.remove(&self.id);
    }
}

struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().waiting += 1;
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

#[cfg(test)]
impl Memory {
    /// Any of those that are known.
    pub(super) fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.0.state.lock().holders.values().find_map(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    /// Holds what it was given until it is let go.
    struct Idler {
        since: Instant,
        held: Mutex<Option<Taken>>,
    }

    impl Holder for Idler {
        fn stall(&self) -> Option<Stall> {
            let held = self.held.lock();
            held.as_ref().map(|taken| Stall { let_go: false, since: self.since, bytes: taken.bytes() })
        }

        fn let_go(&self) -> u64 {
            self.held.lock().take().map_or(0, |taken| taken.bytes())
        }
    }

    async fn idler(memory: &Memory, bytes: u64) -> (Arc<Idler>, Known) {
        let held = memory.take(bytes).await.expect("memory");
        let idler = Arc::new(Idler { since: Instant::now(), held: Mutex::new(Some(held)) });
        let known = memory.know(Arc::downgrade(&idler) as Weak<dyn Holder>);
        (idler, known)
    }

    fn taken(memory: &Memory) -> u64 {
        memory.0.state.lock().taken_bytes
    }

    #[tokio::test]
    async fn the_limit_is_never_passed() {
        let memory = Memory::new(10, LONG);
        let first = memory.take(6).await.expect("memory");
        let more = memory.take(4).await.expect("memory");
        assert!(futures_util::poll!(Box::pin(memory.take(1))).is_pending());
        assert_eq!(memory.take(11).await.err(), Some(NoMemory::TooMuch { bytes: 11, limit_bytes: 10 }));
        first.absorb(more);
        assert_eq!((first.bytes(), taken(&memory)), (10, 10));
        first.shrink_to(3);
        first.shrink_to(8);
        assert_eq!((first.bytes(), taken(&memory)), (3, 3));
        drop(first);
        assert_eq!(taken(&memory), 0);
    }

    #[tokio::test]
    async fn what_is_given_back_goes_to_who_waits() {
        let memory = Memory::new(10, LONG);
        let all = memory.take(10).await.expect("memory");
        let mut waiting = Box::pin(memory.take(1));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(all);
        waiting.await.expect("memory");
    }

    #[tokio::test]
    async fn who_has_stood_still_longest_makes_room() {
        let memory = Memory::new(10, LONG);
        let (oldest, _known) = idler(&memory, 4).await;
        let (younger, _known) = idler(&memory, 6).await;
        let mut waiting = Box::pin(memory.take(3));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(oldest.held.lock().is_some(), "it has its grace");
        let _taken = waiting.await.expect("room is made");
        assert!(oldest.held.lock().is_none());
        assert!(younger.held.lock().is_some(), "no more are let go than needed");
    }

    #[tokio::test]
    async fn who_stands_still_for_too_long_is_let_go_without_need() {
        let memory = Memory::new(10, Duration::from_millis(1));
        let (idler, _known) = idler(&memory, 1).await;
        let watch = tokio::spawn(memory.clone().watch());
        while idler.held.lock().is_some() {
            tokio::task::yield_now().await;
        }
        watch.abort();
    }
}
