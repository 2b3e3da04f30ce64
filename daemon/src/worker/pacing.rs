//! When it is better to let work gather than to wake up for each piece of it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// In a storm of new connections the thread stops accepting for 1 ms, so that connections gather. 16 more open
/// connections within that time are a storm. Clients that connect anew for each request do not add to the open
/// connections, and must not be delayed.
pub(super) const GATHER: Duration = Duration::from_millis(1);
const STORM: usize = 16;

/// When 32 polls have begun to wait with nothing else in between, a wave of polls has begun. The wave ends after 1 ms
/// without work, or when fewer than 4 polls have gathered during a nap.
const WAVE: u32 = 32;
const CALM: Duration = Duration::from_millis(1);
const FEW: u32 = 4;

/// How long the thread sleeps during a wave, so that polls gather. A message that arrives meanwhile waits as long. The
/// kernel adds its timer slack of 50 µs.
pub(super) const NAP: Duration = Duration::from_micros(50);

/// Number of polls that began to wait since the thread last served anything else.
#[derive(Default)]
pub(crate) struct Parked(Cell<u32>);

impl Parked {
    /// One more poll waits, and nothing else was done for its client.
    pub(crate) fn add(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }

    /// Something else was served.
    pub(crate) fn reset(&self) {
        self.0.set(0);
    }
}

/// Detects a storm of new connections. In a storm it is better to let connections gather than to wake up for each.
pub(super) struct Storm {
    since: Instant,
    /// Number of open connections at that moment.
    open: usize,
}

impl Storm {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            open: 0,
        }
    }

    /// Whether there is a storm. `taken` of the `open` connections are new.
    pub(super) fn has_come(&mut self, open: usize, taken: usize, now: Instant) -> bool {
        if now >= self.since + GATHER {
            let open = open.saturating_sub(taken);
            *self = Self { since: now, open };
        }
        open >= self.open + STORM
    }
}

/// Detects that polls come back one by one after a message went to many clients. No client waits for an answer to such
/// a poll. So it is better to let some polls gather than to sleep and wake up for each.
pub(super) struct Wave {
    on: bool,
    /// When the thread last ran out of work.
    since: Instant,
    /// Number of waiting polls in `parked` at that moment.
    parked: u32,
}

impl Wave {
    pub(super) fn new() -> Self {
        Self {
            on: false,
            since: Instant::now(),
            parked: 0,
        }
    }

    /// Whether there is a wave now.
    pub(super) fn is_on(&mut self, parked: &Parked, now: Instant) -> bool {
        let new = parked.0.get().saturating_sub(self.parked);
        let is_calm = now.duration_since(self.since) >= CALM;
        let is_over = is_calm || (self.on && new < FEW);
        if is_over {
            parked.reset();
        }
        *self = Self {
            on: parked.0.get() >= WAVE,
            since: now,
            parked: parked.0.get(),
        };
        self.on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_micros(20);

    #[test]
    fn connections_that_stay_make_a_storm_and_those_that_leave_do_not() {
        let start = Instant::now();
        let mut storm = Storm {
            since: start,
            open: 100,
        };
        for open in 101..100 + STORM {
            assert!(!storm.has_come(open, 1, start + MOMENT));
        }
        assert!(storm.has_come(100 + STORM, 1, start + MOMENT));
        for n in 0..1000 {
            assert!(!storm.has_come(101, 1, start + GATHER + n * MOMENT));
        }
        let later = start + GATHER + 1000 * MOMENT;
        assert!(!storm.has_come(150, 1, later + GATHER), "of 50 one is new");
        assert!(storm.has_come(200, STORM, later + 2 * GATHER));
    }

    #[test]
    fn polls_make_a_wave_that_ends_when_few_come_or_nothing_does() {
        let start = Instant::now();
        let mut wave = Wave {
            on: false,
            since: start,
            parked: 0,
        };
        let parked = Parked::default();
        let mut turn = |new, now| {
            (0..new).for_each(|_| parked.add());
            wave.is_on(&parked, now)
        };
        for n in 1..WAVE {
            assert!(!turn(1, start + n * MOMENT), "{n} polls");
        }
        let now = start + WAVE * MOMENT;
        assert!(turn(1, now));
        assert!(turn(FEW, now + MOMENT));
        assert!(!turn(FEW - 1, now + 2 * MOMENT), "too few have gathered");
        assert!(!turn(WAVE - 1, now + 3 * MOMENT), "it begins anew");
        assert!(turn(1, now + 4 * MOMENT));
        assert!(!turn(WAVE, now + 4 * MOMENT + CALM), "after a pause");
    }

    #[test]
    fn something_else_in_between_ends_a_wave() {
        let start = Instant::now();
        let mut wave = Wave {
            on: true,
            since: start,
            parked: 100,
        };
        let parked = Parked::default(); // reset by the code that served something else
        assert!(!wave.is_on(&parked, start + MOMENT));
    }
}
