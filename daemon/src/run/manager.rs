//! Notifies a service manager such as systemd of the daemon's state (sd_notify(3)), and of a stuck thread through its watchdog.

use std::{
    env, io,
    os::{linux::net::SocketAddrExt, unix::net::SocketAddr, unix::net::UnixDatagram},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, interval};
use tracing::{info, warn};

use crate::drain::Drain;

/// Time limit for a write, in case the manager does not read its socket.
const PATIENCE: Duration = Duration::from_millis(100);

/// The service manager, if there is one.
#[derive(Clone, Default)]
pub(super) struct Manager(Option<Arc<UnixDatagram>>);

impl Manager {
    /// Connects to the manager that the environment names.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        match connect(name.as_encoded_bytes()) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(error) => {
                warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
                Self(None)
            }
        }
    }

    pub(super) fn ready(&self, status: &str) {
        self.notify(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn stopping(&self) {
        self.notify("STOPPING=1\nSTATUS=stopping");
    }

    /// The caller must call `ready` when the reload is finished.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    fn notify(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            warn!(%error, "cannot notify the service manager of {text:?}");
        }
    }

    /// Sends the watchdog's notifications. This runs on the control thread, and sends only if each worker has counted a tick
    /// since the last time. So the notifications stop when any thread is stuck.
    pub(super) async fn notify_watchdog(&self, tick_counts: Arc<TickCounts>, drain: Drain) {
        let Some(limit) = watchdog() else {
            return std::future::pending().await;
        };
        let mut ticks = interval((limit / 4).max(Duration::from_millis(1)));
        let (mut last, mut at, mut stuck) = (tick_counts.current(), Instant::now(), false);
        loop {
            ticks.tick().await;
            let counts = tick_counts.current();
            let stuck_threads: Vec<String> = (0..counts.len())
                .filter(|&worker| counts[worker] == last[worker])
                .map(|worker| format!("http-{worker}"))
                .collect();
            // During a stop workers end one by one, and the stop has its own time limit.
            if stuck_threads.is_empty() || drain.stop.is_cancelled() {
                self.notify("WATCHDOG=1");
                (last, at) = (counts, Instant::now());
                if std::mem::take(&mut stuck) {
                    self.notify("STATUS=all threads run again");
                    info!("all threads run again");
                }
            } else if !stuck && at.elapsed() > limit / 2 {
                stuck = true;
                let stuck_threads = stuck_threads.join(", ");
                self.notify(&format!("STATUS=stuck: {stuck_threads}"));
                warn!("threads are stuck: {stuck_threads}; the watchdog is not notified");
            }
        }
    }
}

/// Connects to a socket. A name that begins with `@` stands for an abstract socket.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    use std::os::unix::ffi::OsStrExt;
    let addr = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&addr)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The time within which the manager expects a notification.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let limit = number("WATCHDOG_USEC").filter(|&limit| limit > 0 && is_ours);
    limit.map(Duration::from_micros)
}

/// The number of ticks of each worker. A number that does not grow belongs to a stuck worker.
#[derive(Debug)]
pub(super) struct TickCounts(Box<[AtomicU64]>);

impl TickCounts {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Counts a tick of this worker.
    pub(super) fn count(&self, worker: usize) {
        self.0[worker].fetch_add(1, Ordering::Relaxed);
    }

    fn current(&self) -> Vec<u64> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        counts.collect()
    }
}
