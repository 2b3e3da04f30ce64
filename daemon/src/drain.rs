//! How the daemon stops. First it accepts no new publish. When all publishes that had begun are finished, waiting clients
//! get their last answers. Each answer says when to reconnect, so that not all clients reconnect at once.

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

/// How many clients reconnect in one second. One client costs the next daemon some ten microseconds, and a proxy that ends
/// TLS up to a millisecond.
const CLIENTS_PER_SECOND: u64 = 2000;

/// The shortest time after which a client reconnects: the next daemon needs time to start.
const MIN_RETRY: Duration = Duration::from_millis(500);

/// The reconnects are spread over at most this many milliseconds after [`MIN_RETRY`]. With more, the history could expire
/// before a client is back.
const MAX_WINDOW: u64 = 60_000;

/// The state of a stop, shared by all threads.
#[derive(Clone, Default)]
pub struct Drain {
    /// Cancelled when no new publish is accepted any more.
    pub stop: CancellationToken,
    /// Cancelled when the last publish is finished: waiting clients get their last answers.
    pub leave: CancellationToken,
    publishers: TaskTracker,
    retries: Arc<Retries>,
}

/// Spreads the times after which clients reconnect.
#[derive(Default)]
struct Retries {
    /// The number of clients when the daemon stopped.
    clients: AtomicU64,
    /// The number of times that were given out.
    given: AtomicU64,
}

impl Drain {
    /// A token that each publisher holds. It drops the token after `stop`, when its last message is published.
    pub fn publisher(&self) -> TaskTrackerToken {
        self.publishers.token()
    }

    /// Stops publishing, waits until the publishers are done, `patience` at most, and then cancels `leave`. `clients`
    /// returns the number of clients.
    pub async fn run(&self, patience: Duration, clients: impl Fn() -> u64) {
        self.stop.cancel();
        self.publishers.close();
        let _ = timeout(patience, self.publishers.wait()).await;
        self.retries.clients.store(clients(), Ordering::Relaxed);
        self.leave.cancel();
    }

    /// The time after which the next client should reconnect. The times are spread evenly over a window that grows with
    /// the number of clients.
    #[must_use]
    pub fn retry(&self) -> Duration {
        let clients = self.retries.clients.load(Ordering::Relaxed).max(1);
        let number = self.retries.given.fetch_add(1, Ordering::Relaxed) % clients;
        let window = (clients * 1000 / CLIENTS_PER_SECOND).min(MAX_WINDOW);
        MIN_RETRY + Duration::from_millis(window * number / clients)
    }
}

/// The time after which the client with this number, from 0, should reconnect when its subscription ends while the daemon
/// goes on.
#[must_use]
pub fn retry_at(number: u64) -> Duration {
    MIN_RETRY + Duration::from_millis(number * 1000 / CLIENTS_PER_SECOND % MAX_WINDOW)
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
    async fn clients_get_their_last_answers_after_the_last_publish() {
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
