//! The time-outs of a thread's connections. No connection has a timer of its own. Instead the thread has a table with the
//! moment of each connection, counted in steps of 50 ms, and checks the whole table at each tick.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::Place;

/// Length of a step. 32 bits of steps last almost seven years.
const STEP: Duration = Duration::from_millis(50);

/// Interval of the regular ticks.
const TICK: Duration = Duration::from_millis(250);
const STEPS_PER_TICK: u32 = (TICK.as_millis() / STEP.as_millis()) as u32;

/// Times below 2 seconds get a tick of their own and end at most one [`STEP`] late. Longer times end with a regular
/// tick, so that thousands of idle connections cause no more than four wake-ups a second.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// A moment, as a number of steps since the thread's start. An earlier moment is smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(u32);

impl Due {
    /// A moment that never comes. It is later than all others.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    /// A moment that has passed.
    pub(crate) const NOW: Self = Self(0);
}

/// The time-outs of the connections, and the next tick.
pub(crate) struct Timers {
    start: Instant,
    /// The step of the last tick.
    now: Cell<u32>,
    next_tick: Cell<Due>,
    /// The moment of each connection, by its place. All moments are read at each tick, so they are stored together.
    dues: RefCell<Vec<Due>>,
    /// Moments that need a tick of their own, because a timer of tokio's runtime ends then.
    alarms: RefCell<BTreeSet<Due>>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            now: Cell::new(0),
            next_tick: Cell::new(Due(0)),
            dues: RefCell::default(),
            alarms: RefCell::default(),
        }
    }

    /// Time since the thread's start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The moment after `duration` from now, never earlier. A duration of [`SHORT`] or more ends with a regular tick.
    /// [`Duration::MAX`] never ends.
    pub(crate) fn after(&self, duration: Duration) -> Due {
        if duration < SHORT {
            return self.exactly_after(duration);
        }
        const PER_SECOND: u64 = 1000 / TICK.as_millis() as u64;
        let part = duration.subsec_millis().div_ceil(TICK.as_millis() as u32);
        let whole = duration.as_secs().saturating_mul(PER_SECOND);
        // The last tick may have been almost one tick ago.
        let ticks = whole.saturating_add(u64::from(part) + 1);
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        let now = self.now.get() / STEPS_PER_TICK;
        Due(now.saturating_add(ticks).saturating_mul(STEPS_PER_TICK))
    }

    /// Like [`Timers::after`], but every duration ends at most one [`STEP`] late.
    pub(crate) fn exactly_after(&self, duration: Duration) -> Due {
        let end = self.elapsed().saturating_add(duration);
        let steps = end.as_nanos().div_ceil(STEP.as_nanos());
        Due(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// Adds a tick after `duration`, so that a timer of tokio's runtime ends at most one [`STEP`] late. Without this tick
    /// such a timer would end at the next regular tick.
    pub(crate) fn alarm_after(&self, duration: Duration) {
        // The runtime rounds up to whole milliseconds.
        let due = self.exactly_after(duration + Duration::from_millis(2));
        self.alarms.borrow_mut().insert(due);
        self.tick_by(due);
    }

    /// The moment of the connection at `place`.
    pub(crate) fn due(&self, place: Place) -> Due {
        let dues = self.dues.borrow();
        dues.get(place.index()).copied().unwrap_or(Due::NEVER)
    }

    /// Sets the moment of the connection at `place`.
    pub(crate) fn set(&self, place: Place, due: Due) {
        self.tick_by(due);
        let mut dues = self.dues.borrow_mut();
        if place.index() >= dues.len() {
            dues.resize(place.index() + 1, Due::NEVER);
        }
        dues[place.index()] = due;
    }

    /// Makes the next tick come at this moment or earlier.
    fn tick_by(&self, due: Due) {
        if due < self.next_tick.get() {
            self.next_tick.set(due);
        }
    }

    /// When the next tick must come.
    pub(super) fn next_tick(&self) -> Instant {
        self.start + STEP * self.next_tick.get().0
    }

    /// Begins a tick: plans the next one, and returns the places of the connections that are due now.
    pub(super) fn begin_tick(&self) -> Vec<Place> {
        let steps = self.elapsed().as_micros() / STEP.as_micros();
        let never = Due::NEVER.0;
        let now = u32::try_from(steps).unwrap_or(never).min(never - 1);
        self.now.set(now);
        let dues = self.dues.borrow();
        let later = dues.iter().filter(|due| **due > Due(now));
        let soonest = later.fold(Due::NEVER, |soonest, due| soonest.min(*due));
        let mut alarms = self.alarms.borrow_mut();
        *alarms = alarms.split_off(&Due(now + 1));
        let alarm = alarms.first().copied().unwrap_or(Due::NEVER);
        let regular = Due((now / STEPS_PER_TICK + 1).saturating_mul(STEPS_PER_TICK));
        self.next_tick.set(regular.min(alarm).min(soonest));
        let dues = (0..).map(Place).zip(dues.iter());
        let overdue = dues.filter(|(_, due)| **due <= Due(now));
        overdue.map(|(place, _)| place).collect()
    }

    /// The second since the thread's start in which the last tick was.
    pub(super) fn second(&self) -> u32 {
        self.now.get() / (1000 / STEP.as_millis() as u32)
    }

    /// Frees memory after a peak: keeps `places` moments.
    pub(super) fn shrink_to(&self, places: usize) {
        let mut dues = self.dues.borrow_mut();
        dues.truncate(places);
        dues.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_over_too_early() {
        let timers = Timers::new();
        for millis in [0, 1, 49, 50, 51, 249, 1999, 2000, 2001, 2249, 60_000] {
            let wait = Duration::from_millis(millis);
            let end = timers.elapsed() + wait;
            let due = timers.after(wait);
            let late = (STEP * due.0).checked_sub(end);
            let late = late.unwrap_or_else(|| panic!("{wait:?} is over too early"));
            assert!(late <= 2 * TICK, "{wait:?} is over {late:?} too late");
        }
    }

    #[test]
    fn times_that_never_come_are_later_than_all_others() {
        let timers = Timers::new();
        assert_eq!(timers.after(Duration::MAX), Due::NEVER);
        assert_eq!(timers.exactly_after(Duration::MAX), Due::NEVER);
        assert!(timers.after(Duration::from_secs(1_000_000)) < Due::NEVER);
    }

    #[test]
    fn a_tick_returns_the_due_connections_and_plans_the_next_tick() {
        let timers = Timers::new();
        timers.set(Place(3), Due(0));
        timers.set(Place(1), timers.after(Duration::from_secs(3600)));
        timers.set(Place(0), Due(0));
        assert_eq!(timers.due(Place(2)), Due::NEVER);
        assert_eq!(timers.begin_tick(), [Place(0), Place(3)]);
        assert_eq!(
            timers.next_tick.get().0 % STEPS_PER_TICK,
            0,
            "a regular tick"
        );

        let soon = Due(timers.now.get() + 1);
        timers.set(Place(2), soon);
        assert_eq!(timers.next_tick.get(), soon);
        timers.next_tick.set(Due::NEVER);
        timers.alarm_after(Duration::ZERO);
        assert!(
            timers.next_tick.get() < Due::NEVER,
            "an alarm brings a tick"
        );
    }
}
