//! Limits log lines that outsiders can cause.

use std::time::{Duration, Instant};

/// Lets one line a minute through. A counter in the metrics counts the events.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Option<Instant>);

impl LogLimit {
    const WHILE: Duration = Duration::from_secs(60);

    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now >= last + Self::WHILE);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}
