//! How the daemon stops. First no new publish is accepted. When all publishes that had begun are finished, waiting clients
//! get their last answers and leave. Each answer says when to come back, so that they do not all come at once.

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

/// The number of clients that are asked back per second. Each costs the next daemon some ten microseconds, and a proxy that
/// ends TLS up to a millisecond.
const RATE: u64 = 2000;

/// The earliest time to come back: the next daemon needs time to start.
const SOONEST: Duration = Duration::from_millis(500);

/// The longest window after [`SOONEST`], in milliseconds, because history is kept only for some minutes.
const LONGEST: u64 = 60_000;

/// See the module. Shared by all threads.
#[derive(Clone, Default)]
pub struct Drain {
    /// Cancelled when no new publish is accepted any more.
    pub stop: CancellationToken,
    /// Cancelled when the last publish is finished: waiting clients get their last answers.
    pub leave: CancellationToken,
    publishers: TaskTracker,
    returns: Arc<Retries>,
}

/// Distributes the times at which clients come back.
#[derive(Default)]
struct Retries {
    clients: AtomicU64,
    dealt: AtomicU64,
}

impl Drain {
    /// A token that each publisher holds. It drops the token after `stop`, when its last message is published.
    pub fn publisher(&self) -> TaskTrackerToken {
        self.publishers.token()
    }

    /// Stops publishing, waits for publishers (for `patience` at most), and lets all clients leave. `clients`
    /// returns their number.
    pub async fn run(&self, patience: Duration, clients: impl Fn() -> u64) {
        self.stop.cancel();
        self.publishers.close();
        let _ = timeout(patience, self.publishers.wait()).await;
        self.returns.clients.store(clients(), Ordering::Relaxed);
        self.leave.cancel();
    }

    /// The time after which the next client that leaves should come back, evenly spread over a window that grows with the number of clients.
    #[must_use]
    pub fn retry(&self) -> Duration {
        let clients = self.returns.clients.load(Ordering::Relaxed).max(1);
        let place = self.returns.dealt.fetch_add(1, Ordering::Relaxed) % clients;
        let window = (clients * 1000 / RATE).min(LONGEST);
        SOONEST + Duration::from_millis(window * place / clients)
    }
}

/// The time after which the client with this number (from 0) should come back, when clients leave without a stop: 2,000 a second.
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
