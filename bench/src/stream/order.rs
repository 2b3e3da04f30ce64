//! What each connection got of a run, in which order: the part that decides whether a server did its work.

use std::{ops::Range, time::Instant};

use anyhow::{Result, bail};

use crate::message::Faults;

/// What all connections got of a run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Each message counts once a connection, late ones too.
    pub(crate) delivered: u64,
    /// Failed is a connection that was closed, or was told that something is missing.
    pub(crate) faults: Faults,
    /// When the last message was read.
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

    /// An error unless every message came once, in order, and nothing else came.
    pub(crate) fn check(&self) -> Result<()> {
        if self.faults.any() {
            bail!("{} ({} delivered)", self.faults, self.delivered);
        }
        Ok(())
    }
}

/// What one connection has of a run.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// One more than the greatest number that came.
    next: u32,
    /// What is not there below that; nothing, unless there is a fault.
    missing: Vec<Range<u32>>,
}

impl Order {
    /// True: it came just now, and all `messages` are there.
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

    /// True: it was missing, and is no longer.
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

    /// Delivered, lost, doubled, reordered, foreign.
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
