//! The worker threads, which serve browsers.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    manager::TickCounts,
    settings::ServedSettings,
    thread::{self as worker_thread, ThreadParts},
};
use crate::{
    compat::port::Port,
    config::Config,
    drain::Drain,
    hub::{Hub, MAX_WORKERS, subscriber::Audience},
    source::files::{EventsRead, Watcher},
    worker::{EventHandler, Handled, SharedParts},
};

/// The advice when the system cannot start a thread.
pub(super) const NO_THREAD: &str = "cannot start a thread; raise the limit of processes (ulimit -u, LimitNPROC= and TasksMax= of the \
                         service, pids.max of its control group)";

/// How often a running daemon looks for workers that have failed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How often a daemon that stops looks for workers that have ended.
const JOIN_EVERY: Duration = Duration::from_millis(5);

/// The number of worker threads.
pub(super) fn number(config: &Config) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // The control thread has subscribers, too, so it counts as one more worker.
    config.workers.unwrap_or(cores).clamp(1, MAX_WORKERS - 1)
}

/// What each worker thread needs.
pub(super) struct WorkerParts {
    pub(super) shared: SharedParts,
    pub(super) ports: Arc<[Arc<dyn Port>]>,
    /// The listeners stay open after this daemon ([`HttpListeners`](super::listeners::HttpListeners)).
    pub(super) outlives: bool,
    pub(super) served: watch::Receiver<ServedSettings>,
    pub(super) hub: Arc<Hub>,
    pub(super) drain: Drain,
    pub(super) tick_counts: Arc<TickCounts>,
}

impl WorkerParts {
    /// Starts this number of threads.
    pub(super) fn start(self, workers: usize) -> io::Result<WorkerThreads> {
        let threads = (0..workers).map(|number| self.start_one(number));
        Ok(WorkerThreads(threads.collect::<io::Result<_>>()?))
    }

    fn start_one(&self, number: usize) -> io::Result<JoinHandle<io::Result<()>>> {
        let parts = ThreadParts {
            shared: self.shared.clone(),
            ports: self.ports.clone(),
            outlives: self.outlives,
            served: self.served.clone(),
            publisher: self.drain.publisher(),
        };
        let (hub, tick_counts) = (self.hub.clone(), self.tick_counts.clone());
        let thread = thread::Builder::new().name(format!("http-{number}"));
        thread.spawn(move || {
            let audience = Audience::new(hub, number);
            let count_tick = || tick_counts.count(number);
            worker_thread::serve(parts, audience, count_tick)
        })
    }
}

/// The running worker threads.
pub(super) struct WorkerThreads(Vec<JoinHandle<io::Result<()>>>);

impl WorkerThreads {
    /// Waits until a thread has ended. A thread that ends before the daemon stops has failed.
    pub(super) async fn one_has_ended(&self) {
        while !self.0.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Waits until all threads have ended.
    pub(super) async fn all_have_ended(&self) {
        while self.0.iter().any(|thread| !thread.is_finished()) {
            tokio::time::sleep(JOIN_EVERY).await;
        }
    }
}

/// The workers read the events of the watched directory.
impl EventHandler for Watcher {
    fn run(&self) -> Handled {
        let EventsRead { more, woken } = self.read_events();
        Handled { more, woken }
    }
}
