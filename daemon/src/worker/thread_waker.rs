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
const AWAKE: u8 = 0;
/// A wake-up is pending. The thread sees it before it sleeps.
const WOKEN: u8 = 1;
/// The thread sleeps or is about to sleep. A wake-up must write to `event`.
const ASLEEP: u8 = 2;

/// The wake-up of one thread. Any thread may call [`ThreadWaker::wake_thread`].
pub(super) struct ThreadWaker {
    state: AtomicU8,
    /// Watched edge-triggered and never read: each write gives one event.
    event: EventFd,
}

impl ThreadWaker {
    /// A waker with a pending wake-up, so that the thread's tasks run once at the start.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            state: AtomicU8::new(WOKEN),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Whether there was a wake-up since the last call. Everything that the waking thread wrote before the wake-up is then
    /// visible to this thread.
    pub(super) fn take_wake_up(&self) -> bool {
        self.state.swap(AWAKE, Ordering::AcqRel) == WOKEN
    }

    /// Wakes the thread if it sleeps. If not, the thread sees the wake-up before it sleeps the next time.
    pub(super) fn wake_thread(&self) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // Fails only if the counter is full, after almost 2^64 writes.
            let _ = self.event.write(1);
        }
    }

    /// Calls `sleep`. If its argument is false, a wake-up is pending and `sleep` must not wait for events.
    pub(super) fn sleep<T>(&self, sleep: impl FnOnce(bool) -> T) -> T {
        let order = Ordering::AcqRel;
        let fell_asleep = self
            .state
            .compare_exchange(AWAKE, ASLEEP, order, Ordering::Acquire);
        let slept = sleep(fell_asleep.is_ok());
        // Has no effect if a wake-up came in the meantime.
        let _ = self
            .state
            .compare_exchange(ASLEEP, AWAKE, order, Ordering::Acquire);
        slept
    }
}

/// The descriptor for epoll, to be watched edge-triggered.
impl AsFd for ThreadWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_thread();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_thread();
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

    fn fixture() -> (Epoll, Arc<ThreadWaker>) {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let waker = ThreadWaker::new().unwrap();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        epoll.add(&waker, event).unwrap();
        (epoll, Arc::new(waker))
    }

    #[test]
    fn a_pending_wake_up_prevents_sleep() {
        let (_epoll, waker) = fixture();
        waker.sleep(|may_wait| assert!(!may_wait, "a wake-up is pending at the start"));
        assert!(waker.take_wake_up());
        assert!(!waker.take_wake_up());
        waker.sleep(|may_wait| assert!(may_wait));
        waker.wake_by_ref();
        waker.sleep(|may_wait| assert!(!may_wait));
        assert!(waker.take_wake_up());
    }

    /// The thread sees each number that another thread stores before the wake-up, and sleeps in between.
    #[test]
    fn no_wake_up_is_missed() {
        const WAKE_UPS: u64 = 20_000;
        const DEADLINE: Duration = Duration::from_secs(60);
        let (epoll, waker) = fixture();
        let (stored, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let waking = scope.spawn(|| {
                let start = Instant::now();
                for n in 1..=WAKE_UPS {
                    stored.store(n, Ordering::Relaxed);
                    waker.wake_by_ref();
                    while seen.load(Ordering::Relaxed) < n {
                        assert!(start.elapsed() < DEADLINE, "wake-up {n} was missed");
                        thread::yield_now();
                    }
                }
            });
            let deadline = EpollTimeout::try_from(DEADLINE).unwrap();
            let mut events = [EpollEvent::empty()];
            while seen.load(Ordering::Relaxed) < WAKE_UPS && !waking.is_finished() {
                waker.sleep(|may_wait| {
                    let time = if may_wait {
                        deadline
                    } else {
                        EpollTimeout::ZERO
                    };
                    epoll.wait(&mut events, time).unwrap();
                });
                if waker.take_wake_up() {
                    seen.store(stored.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        });
    }
}
