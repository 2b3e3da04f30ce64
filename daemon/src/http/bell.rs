//! Wakes a thread that sleeps in `epoll_wait`, and costs no system call while it does not sleep.

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

/// Nothing has happened since the thread looked, and it goes on by itself.
const QUIET: u8 = 0;
/// Something has happened. The thread sees that before it sleeps.
const RUNG: u8 = 1;
/// The thread sleeps, or is about to: an event has to wake it.
const ASLEEP: u8 = 2;

/// See the module. One thread sleeps; any may ring.
pub(super) struct Bell {
    state: AtomicU8,
    /// Nobody reads it: each write is an edge.
    event: EventFd,
}

impl Bell {
    /// Rung: there is a beginning to be made.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            state: AtomicU8::new(RUNG),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Whether it was rung since the last call. What the ringer did before is seen.
    pub(super) fn has_rung(&self) -> bool {
        self.state.swap(QUIET, Ordering::AcqRel) == RUNG
    }

    /// Wakes the thread, or has it look once more before it sleeps.
    pub(super) fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // Fails only when it was written to 2^64 times.
            let _ = self.event.write(1);
        }
    }

    /// Calls `sleep`, which may wait for events only when told so: else the bell has rung.
    pub(super) fn sleep<T>(&self, sleep: impl FnOnce(bool) -> T) -> T {
        let order = Ordering::AcqRel;
        let fell_asleep = self
            .state
            .compare_exchange(QUIET, ASLEEP, order, Ordering::Acquire);
        let slept = sleep(fell_asleep.is_ok());
        // Unless it has rung.
        let _ = self
            .state
            .compare_exchange(ASLEEP, QUIET, order, Ordering::Acquire);
        slept
    }
}

/// What can be read when it wakes the thread; for edges.
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

    /// Each number that another thread leaves word of is heard of, and the thread sleeps in between.
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
