//! State that all threads of a run share: whether connections are disturbed now, and whether the run is over.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// What a run does to its own connections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Connections end at random moments, by FIN or RST.
    pub cuts: bool,
    /// Clients read little at a time, with pauses.
    pub slow: bool,
}

#[derive(Debug, Default)]
pub struct Stage {
    pub habits: Habits,
    disturbed: AtomicBool,
    stopped: AtomicBool,
    /// Connections that this program cut.
    pub cuts: AtomicU64,
    /// Connections that replaced an earlier one of the same client.
    pub reconnects: AtomicU64,
}

impl Stage {
    #[must_use]
    pub fn new(habits: Habits) -> Self {
        Self {
            habits,
            ..Self::default()
        }
    }

    pub fn disturb(&self, on: bool) {
        self.disturbed.store(on, Relaxed);
    }

    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    #[must_use]
    pub fn cuts_now(&self) -> bool {
        self.habits.cuts && self.disturbed.load(Relaxed)
    }

    #[must_use]
    pub fn slow_now(&self) -> bool {
        self.habits.slow && self.disturbed.load(Relaxed)
    }

    /// Sleeps for `time`, or until the run ends.
    pub fn pause(&self, time: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        let end = Instant::now() + time;
        while !self.stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(STEP));
        }
    }
}
