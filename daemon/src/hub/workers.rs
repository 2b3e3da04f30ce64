//! Sets of workers.

use std::{iter::from_fn, ops::BitOrAssign};

/// A set of workers. Bit w: worker w is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workers(pub(super) u64);

impl Workers {
    #[cfg(test)]
    pub(crate) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set contains this worker.
    #[must_use]
    pub fn contains(self, worker: usize) -> bool {
        self.0 & (1 << worker) != 0
    }

    /// The workers in the set, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        from_fn(move || {
            let worker = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(worker)
        })
    }
}

impl BitOrAssign for Workers {
    fn bitor_assign(&mut self, others: Self) {
        self.0 |= others.0;
    }
}
