//! Delays a wake-up for a moment, so that the thread handles several connections or polls at once. This costs less CPU than
//! one wake-up for each of them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// In a burst of new connections the thread stops accepting for 1 ms, and then accepts all waiting connections at once. It is
/// a burst if the number of open connections has grown by 16 within this time. Clients that reconnect for each request do
/// not increase this number, so they are not delayed.
pub(super) const ACCEPT_DELAY: Duration = Duration::from_millis(1);
const CONNECT_BURST: usize = 16;

/// A burst of polls begins when 32 polls in a row have begun to wait, and nothing else was served in between. The burst ends
/// after 1 ms without work, or when fewer than 4 polls have arrived during one [`POLL_DELAY`].
const POLL_BURST: u32 = 32;
const BURST_END: Duration = Duration::from_millis(1);
const FEW_POLLS: u32 = 4;

/// How long the thread sleeps in a burst of polls before it handles the next polls. A message that arrives in this time is
/// delayed, too. The kernel adds its timer slack of 50 µs.
pub(super) const POLL_DELAY: Duration = Duration::from_micros(50);

/// Number of polls that have begun to wait since the thread last served anything else.
#[derive(Default)]
pub(crate) struct ParkedPolls(Cell<u32>);

impl ParkedPolls {
    /// Counts a poll that begins to wait.
    pub(crate) fn add(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }

    /// Sets the number to 0, because the thread has served something else.
    pub(crate) fn reset(&self) {
        self.0.set(0);
    }
}

/// Detects a burst of new connections.
pub(super) struct ConnectBurst {
    since: Instant,
    /// Number of open connections at the moment `since`.
    open: usize,
}

impl ConnectBurst {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            open: 0,
        }
    }

    /// Whether there is a burst. `taken` of the `open` connections were just accepted.
    pub(super) fn is_on(&mut self, open: usize, taken: usize, now: Instant) -> bool {
        if now >= self.since + ACCEPT_DELAY {
            let open = open.saturating_sub(taken);
            *self = Self { since: now, open };
        }
        open >= self.open + CONNECT_BURST
    }
}

/// Detects a burst of polls: after a message to many clients, these clients send their next polls one after the other. A
/// short delay does not matter, because no answer to these polls is due yet.
pub(super) struct PollBurst {
    on: bool,
    /// When the thread last ran out of work.
    since: Instant,
    /// The number in [`ParkedPolls`] at the moment `since`.
    parked: u32,
}

impl PollBurst {
    pub(super) fn new() -> Self {
        Self {
            on: false,
            since: Instant::now(),
            parked: 0,
        }
    }

    /// Whether there is a burst now. Called each time the thread runs out of work.
    pub(super) fn is_on(&mut self, parked: &ParkedPolls, now: Instant) -> bool {
        let new = parked.0.get().saturating_sub(self.parked);
        let is_quiet = now.duration_since(self.since) >= BURST_END;
        let is_over = is_quiet || (self.on && new < FEW_POLLS);
        if is_over {
            parked.reset();
        }
        *self = Self {
            on: parked.0.get() >= POLL_BURST,
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
    fn only_connections_that_stay_open_make_a_burst() {
        let start = Instant::now();
        let mut connect_burst = ConnectBurst {
            since: start,
            open: 100,
        };
        for open in 101..100 + CONNECT_BURST {
            assert!(!connect_burst.is_on(open, 1, start + MOMENT));
        }
        assert!(connect_burst.is_on(100 + CONNECT_BURST, 1, start + MOMENT));
        for n in 0..1000 {
            assert!(!connect_burst.is_on(101, 1, start + ACCEPT_DELAY + n * MOMENT));
        }
        let later = start + ACCEPT_DELAY + 1000 * MOMENT;
        assert!(
            !connect_burst.is_on(150, 1, later + ACCEPT_DELAY),
            "only one of the 50 connections is new"
        );
        assert!(connect_burst.is_on(200, CONNECT_BURST, later + 2 * ACCEPT_DELAY));
    }

    #[test]
    fn a_burst_of_polls_ends_when_few_polls_or_none_arrive() {
        let start = Instant::now();
        let mut poll_burst = PollBurst {
            on: false,
            since: start,
            parked: 0,
        };
        let parked = ParkedPolls::default();
        let mut add_polls = |new, now| {
            (0..new).for_each(|_| parked.add());
            poll_burst.is_on(&parked, now)
        };
        for n in 1..POLL_BURST {
            assert!(!add_polls(1, start + n * MOMENT), "{n} polls");
        }
        let now = start + POLL_BURST * MOMENT;
        assert!(add_polls(1, now));
        assert!(add_polls(FEW_POLLS, now + MOMENT));
        assert!(
            !add_polls(FEW_POLLS - 1, now + 2 * MOMENT),
            "too few polls have arrived"
        );
        assert!(
            !add_polls(POLL_BURST - 1, now + 3 * MOMENT),
            "the count starts again"
        );
        assert!(add_polls(1, now + 4 * MOMENT));
        assert!(
            !add_polls(POLL_BURST, now + 4 * MOMENT + BURST_END),
            "after a pause"
        );
    }

    #[test]
    fn a_burst_of_polls_ends_when_something_else_is_served() {
        let start = Instant::now();
        let mut poll_burst = PollBurst {
            on: true,
            since: start,
            parked: 100,
        };
        let parked = ParkedPolls::default(); // reset by the code that served something else
        assert!(!poll_burst.is_on(&parked, start + MOMENT));
    }
}
