//! Limits how often a directory is read that others may fill. The more entries the directory has, the longer a reading
//! takes, and the processor has other work.

use std::time::Duration;

use tokio::time::Instant;

/// A pause is this many times as long as the last reading: after a change, and without one.
const BUSY: u32 = 3;
const IDLE: u32 = 50;

/// How often a state that does not change is logged again.
const SAID: Duration = Duration::from_secs(3600);

/// The pauses between readings.
#[derive(Default)]
pub(super) struct Pace {
    /// When the last reading ended, and how long it took.
    last: Option<(Instant, Duration)>,
    /// There is more work, so that the short pause applies.
    goes_on: bool,
    said: Option<Instant>,
}

impl Pace {
    pub(super) fn took(&mut self, begun: Instant, goes_on: bool) {
        let now = Instant::now();
        self.last = Some((now, now - begun));
        self.goes_on = goes_on;
    }

    /// The earliest moment of the next reading after a change.
    pub(super) fn next(&self) -> Instant {
        self.after(BUSY)
    }

    /// Whether it is time to read the directory without a change.
    pub(super) fn is_due_when_idle(&self) -> bool {
        let pause = if self.goes_on { BUSY } else { IDLE };
        self.after(pause) <= Instant::now()
    }

    /// Whether to log again a state that has lasted for a while.
    pub(super) fn says_so(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.said.is_none_or(|said| now >= said + SAID);
        if is_due {
            self.said = Some(now);
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
    fn pauses_grow_with_what_a_reading_takes() {
        let mut pace = Pace::default();
        assert!(pace.is_due_when_idle());
        let (ended, took) = (Instant::now(), Duration::from_secs(600));
        pace.last = Some((ended, took));
        assert_eq!(pace.next(), ended + took * BUSY);
        assert!(!pace.is_due_when_idle());
        pace.last = ended.checked_sub(took * 4).map(|ended| (ended, took));
        assert!(pace.next() <= Instant::now() && !pace.is_due_when_idle());
        pace.goes_on = true;
        assert!(pace.is_due_when_idle());
    }
}
