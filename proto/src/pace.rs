//! Whether it pays to stay awake for a peer that answers at once. No clock is read here.

use std::time::Duration;

/// To fall asleep and be woken takes a processor some microseconds, and a virtual one fifty: longer than the work that
/// one side of a conversation waits for. So who was answered quickly before stays awake for a moment, and who did so in
/// vain leaves it for a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    quick: bool,
    /// Waits before it is tried again.
    skip: u8,
}

impl Pace {
    /// How long to stay awake at most.
    pub const AWAKE: Duration = Duration::from_micros(50);

    /// A wait below this was quick, with the time to be woken in it.
    const QUICK: Duration = Duration::from_micros(150);

    /// Waits that are slept through after one that was stayed awake for in vain: what is lost by it is little.
    const PENALTY: u8 = 32;

    /// Is the next wait one to stay awake for?
    #[must_use]
    pub fn stays_awake(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.quick
    }

    /// A wait took so long; `in_vain`: it was stayed awake for, and nothing came.
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
