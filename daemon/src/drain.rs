//! How the daemon stops. First nothing more is published; when whoever had begun to publish is done, those who wait
//! get their last answers and leave, each told when to come back: not all at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// So many clients a second are asked back. Each costs the next daemon some ten microseconds, and a proxy that ends
/// TLS up to a millisecond.
const RATE: u64 = 2000;

/// Nobody is asked back sooner: the next daemon has to begin.
const SOONEST: Duration = Duration::from_millis(500);

/// Nobody is asked to stay away for longer than that on top, in milliseconds: history is kept for some minutes only.
const LONGEST: u64 = 60_000;

/// See the module. Shared by all threads.
#[derive(Clone, Default)]
pub struct Drain {
    /// Nothing more is published.
    pub stop: CancellationToken,
    /// Nobody publishes any more: who waits gets a last answer.
    pub leave: CancellationToken,
    publishers: TaskTracker,
    returns: Arc<Returns>,
}

/// Deals out when clients come back.
#[derive(Default)]
struct Returns {
    clients: AtomicU64,
    dealt: AtomicU64,
}

impl Drain {
    /// To be held by whoever publishes, and dropped after `stop` when the last of it is published.
    pub fn publisher(&self) -> TaskTrackerToken {
        self.publishers.token()
    }

    /// Stops publishing, waits for those who are at it (for `patience` at most), and has everybody leave. `clients`
    /// says how many they are.
    pub async fn run(&self, patience: Duration, clients: impl Fn() -> u64) {
        self.stop.cancel();
        self.publishers.close();
        let _ = timeout(patience, self.publishers.wait()).await;
        self.returns.clients.store(clients(), Ordering::Relaxed);
        self.leave.cancel();
    }

    /// When the next client that leaves should come back: evenly over a window that grows with their number.
    #[must_use]
    pub fn retry(&self) -> Duration {
        let clients = self.returns.clients.load(Ordering::Relaxed).max(1);
        let place = self.returns.dealt.fetch_add(1, Ordering::Relaxed) % clients;
        let window = (clients * 1000 / RATE).min(LONGEST);
        SOONEST + Duration::from_millis(window * place / clients)
    }
}

/// When a client should come back that has to leave before the daemon stops, the first of which is 0: 2,000 a second.
#[must_use]
pub fn retry_at(place: u64) -> Duration {
    SOONEST + Duration::from_millis(place * 1000 / RATE % LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after_a_stop(clients: u64) -> Vec<u128> {
        let drain = Drain::default();
        drain.run(Duration::ZERO, || clients).await;
        (0..clients).map(|_| drain.retry().as_millis()).collect()
    }

    #[tokio::test]
    async fn the_window_grows_with_the_clients_and_is_bounded() {
        assert_eq!(after_a_stop(1).await, [500]);
        let few = after_a_stop(100).await;
        assert!(few.iter().all(|retry| (500..550).contains(retry)));
        let many = after_a_stop(40_000).await;
        for second in 0..20 {
            let range: std::ops::Range<u128> = 500 + second * 1000..1500 + second * 1000;
            let come = many.iter().filter(|&retry| range.contains(retry)).count();
            assert_eq!(come, 2000, "in second {second}");
        }
        let crowd = after_a_stop(1_000_000).await;
        assert_eq!(crowd.iter().max(), Some(&60_499));
    }

    #[tokio::test]
    async fn nobody_leaves_while_somebody_publishes() {
        let drain = Drain::default();
        let publisher = drain.publisher();
        let of_task = drain.clone();
        let publishing = tokio::spawn(async move {
            of_task.stop.cancelled().await;
            assert!(!of_task.leave.is_cancelled());
            drop(publisher);
            of_task.leave.cancelled().await;
        });
        drain.run(Duration::from_secs(3600), || 1).await;
        publishing.await.unwrap();
    }
}
