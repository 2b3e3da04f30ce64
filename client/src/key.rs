//! Unique idempotency keys.

use std::{
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::UNIX_EPOCH,
};

/// Creates the keys of one client from a prefix, the process id, the time of creation, and a number that is unique in the
/// process. The time distinguishes a later process with the same id. After `fork`, create a new `Keys`.
#[derive(Debug)]
pub(crate) struct Keys(String);

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        let nanos = UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        Self(format!("{prefix}-{:x}-{nanos:x}-", process::id()))
    }

    pub(crate) fn next(&self) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        format!("{}{:x}", self.0, NUMBER.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use comet_proto::line::MAX_KEY;

    #[test]
    fn keys_are_unique_and_the_longest_key_fits() {
        let (a, b) = (Keys::new(&"x".repeat(64)), Keys::new(&"x".repeat(64)));
        let mut keys: Vec<String> = (0..100).flat_map(|_| [a.next(), b.next()]).collect();
        assert!(keys.iter().all(|key| key.len() <= MAX_KEY));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 200);
    }
}
