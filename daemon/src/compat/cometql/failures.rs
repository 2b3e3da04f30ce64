//! Failed logins by address: who fails often waits longer, and is refused for a while.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::worker::Address;

/// Failures are forgotten after this time without a further one.
const WINDOW: Duration = Duration::from_secs(60);

/// The answer to a failed login waits this long for each failure of the address.
const DELAY: Duration = Duration::from_millis(500);

/// The longest wait.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// After this number of failures, all logins of the address are refused.
const MOST_FAILURES: u32 = 100;

/// The most addresses that are remembered.
const MOST_ADDRESSES: usize = 10_000;

/// The failed logins of the last minute. Loopback addresses, which are `None`, only wait: a program that fails must not keep
/// PHP of the same machine out.
#[derive(Default)]
pub(super) struct FailedLogins(Mutex<HashMap<Option<Address>, Failures>>);

struct Failures {
    count: u32,
    last: Instant,
}

impl FailedLogins {
    /// Counts a failed login. Returns how long its answer must wait.
    pub(super) fn add(&self, address: Option<Address>, now: Instant) -> Duration {
        let mut failures = self.lock();
        if failures.len() >= MOST_ADDRESSES && !failures.contains_key(&address) {
            failures.retain(|_, known| now - known.last < WINDOW);
        }
        if failures.len() >= MOST_ADDRESSES && !failures.contains_key(&address) {
            return MAX_DELAY; // an attack from very many addresses: every failure waits
        }
        let known = failures.entry(address).or_insert(Failures {
            count: 0,
            last: now,
        });
        if now - known.last >= WINDOW {
            known.count = 0;
        }
        known.count += 1;
        known.last = now;
        (DELAY * known.count).min(MAX_DELAY)
    }

    /// Whether all logins of the address are refused.
    pub(super) fn is_blocked(&self, address: Option<Address>, now: Instant) -> bool {
        let failures = self.lock();
        address.is_some()
            && failures
                .get(&address)
                .is_some_and(|known| known.count >= MOST_FAILURES && now - known.last < WINDOW)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Address>, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_until_a_minute_without_one() {
        let (failures, now) = (FailedLogins::default(), Instant::now());
        let wait = |seconds| {
            failures
                .add(None, now + Duration::from_secs(seconds))
                .as_millis()
        };
        assert_eq!([wait(0), wait(1), wait(2)], [500, 1000, 1500]);
        assert_eq!(wait(62), 500);
        let longest = (0..200).map(|_| wait(63)).max();
        assert_eq!(longest, Some(5000));
        assert!(!failures.is_blocked(None, now + Duration::from_secs(63)));
    }

    #[test]
    fn an_address_that_fails_too_often_is_refused_for_a_minute() {
        let (failures, now) = (FailedLogins::default(), Instant::now());
        let address = |text: &str| Address::of(text.parse().unwrap());
        let (a, b) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..MOST_FAILURES {
            assert!(!failures.is_blocked(a, now));
            failures.add(a, now);
        }
        assert!(failures.is_blocked(a, now) && !failures.is_blocked(b, now));
        assert!(!failures.is_blocked(a, now + WINDOW));
    }

    #[test]
    fn the_number_of_addresses_is_limited() {
        let (failures, now) = (FailedLogins::default(), Instant::now());
        for n in 0..=MOST_ADDRESSES as u32 {
            let [a, b] = (n as u16).to_be_bytes();
            failures.add(Address::of([10, 0, a, b].into()), now);
        }
        assert_eq!(failures.lock().len(), MOST_ADDRESSES);
        let other = Address::of([10, 1, 0, 0].into());
        assert_eq!(failures.add(other, now), MAX_DELAY);
        assert_eq!(failures.add(other, now + WINDOW), DELAY);
    }
}
