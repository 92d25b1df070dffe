//! Waiting for a moment more finely than the runtime's timers, which count milliseconds: on Linux with a timer of the
//! kernel, elsewhere with the runtime's.

#[cfg(target_os = "linux")]
mod timer {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// One waiter's timer.
    #[derive(Debug)]
    pub(in super::super) struct Pacer {
        timer: AsyncFd<OwnedFd>,
        /// What it is set to, so that waiting again for the same moment costs nothing.
        set_to_ns: Option<u64>,
    }

    impl Pacer {
        pub(in super::super) fn new() -> io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "what replaces it is unsafe, for types that are not as sound as `OwnedFd`"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Self { timer, set_to_ns: None })
        }

        /// Returns at `due_ns`, where it is `now_ns` now. Dropping the future loses nothing.
        pub(in super::super) async fn wait(&mut self, now_ns: u64, due_ns: u64) -> io::Result<()> {
            if self.set_to_ns != Some(due_ns) {
                // Zero would disarm it.
                let wait = Duration::from_nanos(due_ns.saturating_sub(now_ns).max(1));
                let value = Timespec {
                    tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(wait.subsec_nanos()),
                };
                let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
                timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                self.set_to_ns = Some(due_ns);
            }
            loop {
                let mut ready = self.timer.readable().await?;
                let mut expirations = [0; 8];
                // An error of `try_io` itself: not ready after all.
                if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)) {
                    read?;
                    self.set_to_ns = None;
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod timer {
    use std::io;
    use std::time::Duration;

    /// The runtime's timer.
    #[derive(Debug)]
    pub(in super::super) struct Pacer;

    impl Pacer {
        #[expect(clippy::unnecessary_wraps, reason = "the one of Linux can fail")]
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Returns at `due_ns`, where it is `now_ns` now.
        pub(in super::super) async fn wait(&mut self, now_ns: u64, due_ns: u64) -> io::Result<()> {
            tokio::time::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns))).await;
            Ok(())
        }
    }
}

pub(super) use timer::Pacer;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_returns_no_earlier_than_asked() {
        let mut pacer = Pacer::new().expect("a timer");
        let began = std::time::Instant::now();
        // Given up once, as where an answer comes first.
        tokio::select! {
            biased;
            waited = pacer.wait(0, 3_000_000) => panic!("too early: {waited:?}"),
            () = std::future::ready(()) => {}
        }
        pacer.wait(0, 3_000_000).await.expect("a wait");
        assert!(began.elapsed() >= std::time::Duration::from_millis(3));
        pacer.wait(5, 4).await.expect("what is past is due");
    }
}
