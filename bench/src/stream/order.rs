//! Checks which messages of a run each connection got, and in which order. This check decides whether a server worked
//! correctly.

use std::{ops::Range, time::Instant};

use anyhow::{Result, bail};

use crate::message::Faults;

/// What all connections together got of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Delivered messages. Each message counts once for each connection, also if it was late.
    pub(crate) delivered: u64,
    /// The faults. A connection counts as failed if it was closed, or was told that messages are missing.
    pub(crate) faults: Faults,
    /// Time at which the last message was read.
    pub(crate) last: Instant,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            delivered: 0,
            faults: Faults::default(),
            last: Instant::now(),
        }
    }

    /// Returns an error unless every message arrived once and in order, and nothing else arrived.
    pub(crate) fn check(&self) -> Result<()> {
        if self.faults.any() {
            bail!("{} ({} delivered)", self.faults, self.delivered);
        }
        Ok(())
    }
}

/// The messages of a run that one connection has got.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The largest number that arrived, plus one.
    next: u32,
    /// Numbers below `next` that did not arrive. Empty unless there is a fault.
    missing: Vec<Range<u32>>,
}

impl Order {
    /// Notes a message. Returns true if the message was new and all `messages` have arrived now.
    pub(super) fn take(&mut self, seq: u32, messages: u32, tally: &mut Tally) -> bool {
        if seq >= messages {
            tally.faults.foreign += 1;
            return false;
        }
        if seq < self.next {
            if !self.fill(seq) {
                tally.faults.doubled += 1;
                return false;
            }
            tally.faults.reordered += 1;
        } else {
            if seq > self.next {
                self.missing.push(self.next..seq);
            }
            self.next = seq + 1;
        }
        tally.delivered += 1;
        self.next == messages && self.missing.is_empty()
    }

    /// Removes a number from the missing ones. Returns true if the number was missing.
    fn fill(&mut self, seq: u32) -> bool {
        let Some(at) = self.missing.iter().position(|hole| hole.contains(&seq)) else {
            return false;
        };
        let hole = self.missing.swap_remove(at);
        let parts = [hole.start..seq, seq + 1..hole.end];
        self.missing
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
        true
    }

    pub(super) fn complete(&self, messages: u32) -> bool {
        self.lost(messages) == 0
    }

    pub(super) fn lost(&self, messages: u32) -> u64 {
        let holes = self
            .missing
            .iter()
            .map(|hole| u64::from(hole.end - hole.start));
        holes.sum::<u64>() + u64::from(messages - self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the numbers of messages that were delivered, lost, doubled, reordered and foreign.
    fn counts(seqs: &[u32], messages: u32) -> [u64; 5] {
        let (mut order, mut tally) = (Order::default(), Tally::new());
        let mut complete = 0;
        for &seq in seqs {
            complete += u32::from(order.take(seq, messages, &mut tally));
        }
        let lost = order.lost(messages);
        assert_eq!(complete, u32::from(lost == 0), "said once, if at all");
        let faults = tally.faults;
        [
            tally.delivered,
            lost,
            faults.doubled,
            faults.reordered,
            faults.foreign,
        ]
    }

    #[test]
    fn counts_what_went_wrong_by_its_kind() {
        assert_eq!(counts(&[0, 1, 2], 3), [3, 0, 0, 0, 0]);
        assert_eq!(counts(&[0, 2], 3), [2, 1, 0, 0, 0]);
        assert_eq!(counts(&[], 3), [0, 3, 0, 0, 0]);
        assert_eq!(counts(&[0, 1], 3), [2, 1, 0, 0, 0]);
        assert_eq!(counts(&[0, 1, 1, 2], 3), [3, 0, 1, 0, 0]);
        assert_eq!(counts(&[0, 2, 1], 3), [3, 0, 0, 1, 0]);
        assert_eq!(counts(&[0, 2, 1, 1], 3), [3, 0, 1, 1, 0]);
        assert_eq!(counts(&[5, 2, 0, 2, 4], 6), [4, 2, 1, 3, 0]);
        assert_eq!(counts(&[0, 1, 2, 3], 3), [3, 0, 0, 0, 1]);
        assert_eq!(counts(&[2, 1, 0], 3), [3, 0, 0, 2, 0]);
    }
}
