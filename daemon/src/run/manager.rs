//! Tells a service manager such as systemd how the daemon is (sd_notify(3)), and lets it notice a part that is stuck.

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

/// A manager that takes nothing holds up the daemon for no longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// The service manager, if there is one.
#[derive(Clone, Default)]
pub(super) struct Manager(Option<Arc<UnixDatagram>>);

impl Manager {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        match connect(name.as_encoded_bytes()) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(error) => {
                warn!(%error, "cannot tell the service manager anything (NOTIFY_SOCKET)");
                Self(None)
            }
        }
    }

    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// `ready` says when that is over.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            warn!(%error, "the service manager was not told {text:?}");
        }
    }

    /// Says again and again that the daemon lives, as often as the manager wants to hear it. This runs on the control
    /// thread, and only when each worker has moved since the last time: so silence tells that any of them is stuck.
    pub(super) async fn keep_alive(&self, pulse: Arc<Pulse>, drain: Drain) {
        let Some(limit) = watchdog() else {
            return std::future::pending().await;
        };
        let mut ticks = interval((limit / 4).max(Duration::from_millis(1)));
        let (mut last, mut at, mut stuck) = (pulse.beats(), Instant::now(), false);
        loop {
            ticks.tick().await;
            let beats = pulse.beats();
            let still: Vec<String> = (0..beats.len())
                .filter(|&worker| beats[worker] == last[worker])
                .map(|worker| format!("http-{worker}"))
                .collect();
            // Workers end one by one then, and the time for that has a limit of its own.
            if still.is_empty() || drain.stop.is_cancelled() {
                self.tell("WATCHDOG=1");
                (last, at) = (beats, Instant::now());
                if std::mem::take(&mut stuck) {
                    self.tell("STATUS=all threads move again");
                    info!("all threads move again");
                }
            } else if !stuck && at.elapsed() > limit / 2 {
                stuck = true;
                let still = still.join(", ");
                self.tell(&format!("STATUS=stuck: {still}"));
                warn!("threads that do not move: {still}; the watchdog is not told that we live");
            }
        }
    }
}

/// A name with `@` is not one of a file.
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

/// How often at least the manager wants to hear that we live.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let limit = number("WATCHDOG_USEC").filter(|&limit| limit > 0 && is_ours);
    limit.map(Duration::from_micros)
}

/// Shows that the workers move: each counts the ticks of its clock.
#[derive(Debug)]
pub struct Pulse(Box<[AtomicU64]>);

impl Pulse {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| AtomicU64::new(0)).collect()))
    }

    /// This worker moves.
    pub fn beat(&self, worker: usize) {
        self.0[worker].fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> Vec<u64> {
        let beats = self.0.iter().map(|beats| beats.load(Ordering::Relaxed));
        beats.collect()
    }
}
