//! The clock of the hub: a time that never goes back and never stands still.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::micros;

/// Microseconds since the Unix epoch.
pub type Clock = fn() -> u64;

/// Follows the system's clock until the system's clock is set back. From then on the hub's clock continues at the speed of the
/// monotonic clock. If it stopped instead, no message would expire until the system's clock has caught up.
#[derive(Debug)]
pub(super) struct HubClock {
    wall: Clock,
    /// The moment of the start by the monotonic clock. `None`: `wall` alone gives the time.
    start: Option<Instant>,
    /// The time at the start. A step forward of the system's clock raises it, and a step back does not change it.
    offset: AtomicU64,
}

impl HubClock {
    /// A clock that never shows a time before `last`, the last time of an earlier run.
    pub(super) fn system(last: u64) -> Self {
        let wall: Clock = system_clock;
        Self {
            wall,
            start: Some(Instant::now()),
            offset: AtomicU64::new(wall().max(last)),
        }
    }

    pub(super) fn of(wall: Clock) -> Self {
        Self {
            wall,
            start: None,
            offset: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> u64 {
        match self.start {
            None => (self.wall)(),
            Some(start) => self.at((self.wall)(), micros(start.elapsed())),
        }
    }

    /// The time, when the system's clock shows `wall` and `elapsed` has passed since the start by the monotonic clock.
    fn at(&self, wall: u64, elapsed: u64) -> u64 {
        let known = self.offset.load(Ordering::Relaxed);
        let seen = wall.saturating_sub(elapsed);
        if seen > known {
            self.offset.fetch_max(seen, Ordering::Relaxed);
        }
        known.max(seen).saturating_add(elapsed)
    }

    /// How far this time is ahead of the system's clock.
    pub(super) fn ahead(&self) -> Duration {
        Duration::from_micros(self.now().saturating_sub((self.wall)()))
    }
}

pub(super) fn system_clock() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    micros(since_epoch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(offset: u64) -> HubClock {
        HubClock {
            wall: || 0,
            start: None,
            offset: AtomicU64::new(offset),
        }
    }

    #[test]
    fn follows_a_step_forward_and_goes_on_after_one_back() {
        let time = time(1000);
        assert_eq!(time.at(1005, 5), 1005);
        assert_eq!(time.at(9010, 10), 9010, "forward");
        assert_eq!(time.at(1020, 20), 9020, "back");
        assert_eq!(time.at(9035, 30), 9035, "caught up");
    }

    #[test]
    fn begins_where_an_earlier_daemon_was() {
        assert_eq!(time(5000).at(1000, 7), 5007);
    }

    proptest! {
        #[test]
        fn never_goes_back_or_stands_still(steps: Vec<(u32, u16)>) {
            let (time, mut elapsed, mut last) = (time(0), 0, 0);
            for (wall, more) in steps {
                elapsed += u64::from(more) + 1;
                let now = time.at(u64::from(wall), elapsed);
                prop_assert!(now > last && now >= u64::from(wall));
                last = now;
            }
        }
    }
}
