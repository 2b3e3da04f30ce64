//! Limits how often the spool's directory is read. Other users may fill it, and the more entries it has, the longer a
//! reading takes.

use std::time::Duration;

use tokio::time::Instant;

/// A pause is this many times as long as the last reading: after a change, and without one.
const BUSY: u32 = 3;
const IDLE: u32 = 50;

/// How often a condition that lasts is logged again.
const LOG_EVERY: Duration = Duration::from_secs(3600);

/// The pauses between readings.
#[derive(Default)]
pub(super) struct Pace {
    /// When the last reading ended, and how long it took.
    last: Option<(Instant, Duration)>,
    /// There is more work, so that the short pause applies.
    has_more: bool,
    logged: Option<Instant>,
}

impl Pace {
    pub(super) fn finished(&mut self, begun: Instant, has_more: bool) {
        let now = Instant::now();
        self.last = Some((now, now - begun));
        self.has_more = has_more;
    }

    /// The earliest moment of the next reading after a change.
    pub(super) fn next(&self) -> Instant {
        self.after(BUSY)
    }

    /// Whether it is time to read the directory without a change.
    pub(super) fn is_due_when_idle(&self) -> bool {
        let pause = if self.has_more { BUSY } else { IDLE };
        self.after(pause) <= Instant::now()
    }

    /// Whether to log again a state that has lasted for a while.
    pub(super) fn may_log_again(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.logged.is_none_or(|logged| now >= logged + LOG_EVERY);
        if is_due {
            self.logged = Some(now);
        }
        is_due
    }

    fn after(&self, pause: u32) -> Instant {
        let now = Instant::now;
        self.last
            .map_or_else(now, |(ended, took)| ended + took * pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_duration_of_a_reading() {
        let mut pace = Pace::default();
        assert!(pace.is_due_when_idle());
        let (ended, took) = (Instant::now(), Duration::from_secs(600));
        pace.last = Some((ended, took));
        assert_eq!(pace.next(), ended + took * BUSY);
        assert!(!pace.is_due_when_idle());
        pace.last = ended.checked_sub(took * 4).map(|ended| (ended, took));
        assert!(pace.next() <= Instant::now() && !pace.is_due_when_idle());
        pace.has_more = true;
        assert!(pace.is_due_when_idle());
    }
}
