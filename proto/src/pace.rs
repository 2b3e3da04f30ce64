//! Decides whether to wait actively (busy-wait) for a peer that answers quickly. This module reads no clock.

use std::time::Duration;

/// To sleep and wake up takes some microseconds on a real processor, and about 50 µs on a virtual one. That can be longer
/// than the peer needs to answer. So after a quick answer, wait actively for up to 50 µs. If that was in vain, sleep at once
/// for the next 32 waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    quick: bool,
    /// The number of waits until active waiting is tried again.
    skip: u8,
}

impl Pace {
    /// The longest time to wait actively.
    pub const AWAKE: Duration = Duration::from_micros(50);

    /// A shorter wait, including the wake-up, counts as quick.
    const QUICK: Duration = Duration::from_micros(150);

    /// The number of waits that sleep at once after active waiting was in vain.
    const PENALTY: u8 = 32;

    /// Whether to wait actively next time.
    #[must_use]
    pub fn stays_awake(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.quick
    }

    /// Records how long a wait took. `in_vain`: active waiting ended without an answer.
    pub fn waited(&mut self, time: Duration, in_vain: bool) {
        self.quick = time < Self::QUICK;
        if in_vain {
            self.skip = Self::PENALTY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_awake_for_a_quick_peer_only() {
        let (quick, slow) = (Duration::from_micros(20), Duration::from_millis(1));
        let mut pace = Pace::default();
        assert!(!pace.stays_awake(), "nothing is known yet");
        pace.waited(slow, false);
        assert!(!pace.stays_awake());
        pace.waited(quick, false);
        assert!(pace.stays_awake());
        pace.waited(slow, true);
        assert!(!pace.stays_awake());
    }

    #[test]
    fn leaves_it_for_a_while_after_it_was_in_vain() {
        let quick = Duration::from_micros(100);
        let mut pace = Pace::default();
        pace.waited(quick, true);
        let awake = (0..1000).filter(|_| {
            let awake = pace.stays_awake();
            pace.waited(quick, awake);
            awake
        });
        assert_eq!(awake.count(), 1000 / (usize::from(Pace::PENALTY) + 1));
    }
}
