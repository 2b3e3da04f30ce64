//! Wakes a thread that sleeps in `epoll_wait`. While the thread is awake, a wake-up needs no system call.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Wake,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// No wake-up since the thread last checked. The thread is awake.
const QUIET: u8 = 0;
/// A wake-up is pending. The thread sees it before it sleeps.
const RUNG: u8 = 1;
/// The thread sleeps or is about to sleep. A wake-up must write to `event`.
const ASLEEP: u8 = 2;

/// The wake-up of one thread. Any thread may call [`Bell::ring`].
pub(super) struct Bell {
    state: AtomicU8,
    /// Watched edge-triggered and never read: each write gives one event.
    event: EventFd,
}

impl Bell {
    /// A bell with a pending wake-up, so that the thread's tasks run once at the start.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            state: AtomicU8::new(RUNG),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Whether there was a wake-up since the last call, which this call takes. Everything that the waking thread wrote
    /// before is visible then.
    pub(super) fn has_rung(&self) -> bool {
        self.state.swap(QUIET, Ordering::AcqRel) == RUNG
    }

    /// Wakes the thread if it sleeps. Otherwise the thread checks once more before it sleeps.
    pub(super) fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // Fails only if the counter is full, after almost 2^64 writes.
            let _ = self.event.write(1);
        }
    }

    /// Calls `sleep`. If its argument is false, a wake-up is pending and `sleep` must not wait for events.
    pub(super) fn sleep<T>(&self, sleep: impl FnOnce(bool) -> T) -> T {
        let order = Ordering::AcqRel;
        let fell_asleep = self
            .state
            .compare_exchange(QUIET, ASLEEP, order, Ordering::Acquire);
        let slept = sleep(fell_asleep.is_ok());
        // Has no effect if there was a wake-up meanwhile.
        let _ = self
            .state
            .compare_exchange(ASLEEP, QUIET, order, Ordering::Acquire);
        slept
    }
}

/// The descriptor for epoll, to be watched edge-triggered.
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicU64,
        thread,
        time::{Duration, Instant},
    };

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

    use super::*;

    fn fixture() -> (Epoll, Arc<Bell>) {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let bell = Bell::new().unwrap();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        epoll.add(&bell, event).unwrap();
        (epoll, Arc::new(bell))
    }

    #[test]
    fn one_that_has_rung_is_not_slept_through() {
        let (_epoll, bell) = fixture();
        bell.sleep(|may_wait| assert!(!may_wait, "it was rung at the start"));
        assert!(bell.has_rung());
        assert!(!bell.has_rung());
        bell.sleep(|may_wait| assert!(may_wait));
        bell.wake_by_ref();
        bell.sleep(|may_wait| assert!(!may_wait));
        assert!(bell.has_rung());
    }

    /// The thread sees each number that another thread stores before the wake-up, and sleeps in between.
    #[test]
    fn no_ring_is_missed() {
        const RINGS: u64 = 20_000;
        const DEADLINE: Duration = Duration::from_secs(60);
        let (epoll, bell) = fixture();
        let (said, heard) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let ringing = scope.spawn(|| {
                let start = Instant::now();
                for n in 1..=RINGS {
                    said.store(n, Ordering::Relaxed);
                    bell.wake_by_ref();
                    while heard.load(Ordering::Relaxed) < n {
                        assert!(start.elapsed() < DEADLINE, "ring {n} was missed");
                        thread::yield_now();
                    }
                }
            });
            let deadline = EpollTimeout::try_from(DEADLINE).unwrap();
            let mut events = [EpollEvent::empty()];
            while heard.load(Ordering::Relaxed) < RINGS && !ringing.is_finished() {
                bell.sleep(|may_wait| {
                    let time = if may_wait {
                        deadline
                    } else {
                        EpollTimeout::ZERO
                    };
                    epoll.wait(&mut events, time).unwrap();
                });
                if bell.has_rung() {
                    heard.store(said.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        });
    }
}
