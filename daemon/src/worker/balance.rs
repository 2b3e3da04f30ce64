//! Decides which workers accept new connections. All workers share the listeners, but not all of them accept all the
//! time. The first connections all go to the first worker, so that messages between these clients need no wake-up of a
//! second thread. A worker with [`AHEAD`] more connections than another worker stops accepting until the other workers
//! have caught up.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::thread_waker::ThreadWaker;

/// Difference at which a worker stops accepting. A worker delivers a message to this number of connections within half a
/// millisecond.
const AHEAD: usize = 128;

/// The number of connections of each worker, and which workers accept new connections.
pub struct Balance {
    threads: Vec<ThreadLoad>,
}

#[derive(Default)]
struct ThreadLoad {
    /// Number of connections at the last count.
    open: AtomicUsize,
    rests: AtomicBool,
    /// Set by another worker: this worker must accept again, and must check for connections that already wait.
    called: AtomicBool,
    waker: OnceLock<Arc<ThreadWaker>>,
}

impl Balance {
    /// A balance between `workers` threads.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            threads: (0..workers).map(|_| ThreadLoad::default()).collect(),
        }
    }

    /// Registers the waker of the worker. Each worker calls this once.
    pub(super) fn join(&self, worker: usize, waker: &Arc<ThreadWaker>) {
        let _ = self.threads[worker].waker.set(waker.clone());
    }

    /// Reports the number of connections of `worker`, and wakes the workers that may accept again because of this number.
    /// Returns whether `worker` must stop accepting, until another worker calls it or until this returns false.
    pub(super) fn count(&self, worker: usize, open: usize) -> bool {
        let this = &self.threads[worker];
        this.open.store(open, Ordering::SeqCst);
        let least = self.threads.iter().map(ThreadLoad::open).min().unwrap_or(0);
        let rests = self.is_to_rest(worker, least + AHEAD);
        let rested = this.rests.swap(rests, Ordering::SeqCst);
        for (number, other) in self.threads.iter().enumerate() {
            // When this worker stops accepting, it also wakes the others: they may have slept while connections arrived.
            let takes_over = rests && !rested;
            if number != worker
                && (takes_over || other.rests.load(Ordering::SeqCst))
                && !self.is_to_rest(number, least + AHEAD / 2)
            {
                other.call();
            }
        }
        rests
    }

    fn is_to_rest(&self, worker: usize, most: usize) -> bool {
        let are_few = worker > 0 && self.threads[0].open() < AHEAD;
        are_few || self.threads[worker].open() >= most
    }

    /// Whether the worker was called since the last call of this function.
    pub(super) fn is_called(&self, worker: usize) -> bool {
        let called = &self.threads[worker].called;
        called.load(Ordering::Relaxed) && called.swap(false, Ordering::SeqCst)
    }
}

impl ThreadLoad {
    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn call(&self) {
        self.rests.store(false, Ordering::SeqCst);
        self.called.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.get() {
            waker.wake_thread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_worker_takes_the_first_connections() {
        let balance = Balance::new(3);
        assert!(balance.count(1, 0) && balance.count(2, 0));
        for open in 1..AHEAD {
            assert!(!balance.count(0, open), "{open}");
            assert!(!balance.is_called(1) && !balance.is_called(2), "{open}");
        }
        assert!(balance.count(0, AHEAD));
        assert!(balance.is_called(1) && balance.is_called(2));
        assert!(!balance.is_called(1), "once");
    }

    #[test]
    fn a_worker_that_is_ahead_rests_until_the_others_have_caught_up() {
        let balance = Balance::new(2);
        balance.count(0, AHEAD);
        for open in 1..=AHEAD / 2 {
            assert!(!balance.is_called(0), "{open}");
            assert!(!balance.count(1, open), "{open}");
        }
        assert!(!balance.count(1, AHEAD / 2 + 1));
        assert!(balance.is_called(0));
        assert!(!balance.count(0, AHEAD));

        assert!(balance.count(1, 2 * AHEAD));
        assert!(
            balance.is_called(0),
            "connections may wait that worker 1 has not accepted"
        );
        assert!(balance.count(1, 2 * AHEAD));
        assert!(!balance.is_called(0), "once");
    }

    #[test]
    fn a_worker_that_has_lost_connections_accepts_again() {
        let balance = Balance::new(2);
        assert!(balance.count(0, AHEAD));
        assert!(!balance.count(0, AHEAD - 1));
        assert!(
            balance.count(1, 1),
            "the first worker takes all connections again"
        );
    }

    #[test]
    fn a_single_worker_always_accepts() {
        let balance = Balance::new(1);
        assert!(!balance.count(0, 1_000_000));
    }

    /// At least one worker always accepts, and a worker that is far ahead after accepting does not.
    #[test]
    fn at_least_one_worker_always_accepts() {
        let balance = Balance::new(3);
        let (mut open, mut rests) = ([0_usize; 3], [false; 3]);
        let mut random = 1_u64;
        for step in 0..100_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let (worker, many) = ((random >> 33) as usize % 3, (random >> 40) as usize % 50);
            for (worker, rests) in rests.iter_mut().enumerate() {
                *rests &= !balance.is_called(worker);
            }
            match random >> 62 {
                0 => open[worker] = open[worker].saturating_sub(many * 4),
                _ if rests[worker] => continue,
                _ => open[worker] += many,
            }
            rests[worker] = balance.count(worker, open[worker]);
            for (worker, rests) in rests.iter_mut().enumerate() {
                *rests &= !balance.is_called(worker);
            }
            assert!(rests.contains(&false), "step {step}: {open:?}");
            let least = open.iter().min().unwrap();
            let is_ahead = open[worker] >= least + AHEAD;
            assert!(rests[worker] || !is_ahead, "step {step}: {open:?}");
        }
    }
}
