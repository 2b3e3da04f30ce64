//! Idempotency keys: which id a key was given, for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use comet_proto::ChannelName;

use super::micros;

/// How long a key is remembered.
const WINDOW: Duration = Duration::from_secs(600);

/// How many keys are remembered; beyond it the oldest are forgotten early.
const MAX_KEYS: usize = 65_536;

#[derive(Default)]
pub(super) struct Keys {
    /// By the channel's name, a NUL, which no name has, and the key.
    ids: HashMap<Arc<str>, u64>,
    by_age: VecDeque<(u64, Arc<str>)>,
    /// Where these are put together, so that a lookup allocates nothing.
    joined: String,
}

impl Keys {
    pub(super) fn get(&mut self, channel: &ChannelName, key: &str) -> Option<u64> {
        self.ids.get(join(channel, key, &mut self.joined)).copied()
    }

    pub(super) fn insert(&mut self, channel: &ChannelName, key: &str, id: u64) {
        let joined: Arc<str> = join(channel, key, &mut self.joined).into();
        self.ids.insert(joined.clone(), id);
        // Oldest first, also where a log tells of them in another order.
        let newer = self
            .by_age
            .iter()
            .rev()
            .take_while(|(known, _)| *known > id);
        let place = self.by_age.len() - newer.count();
        self.by_age.insert(place, (id, joined));
        if self.by_age.len() > MAX_KEYS {
            self.drop_oldest();
        }
    }

    /// Forgets keys that were given an id before the window (an id is a time), at most so many. True: there may be
    /// more.
    pub(super) fn expire(&mut self, now: u64, at_most: usize) -> bool {
        let old = now.saturating_sub(micros(WINDOW));
        for _ in 0..at_most {
            if self.by_age.front().is_none_or(|(id, _)| *id > old) {
                return false;
            }
            self.drop_oldest();
        }
        true
    }

    /// The next keys, joined with their channels, whose id is larger; with their ids, oldest first.
    pub(super) fn after(&self, id: u64, at_most: usize) -> Vec<(Arc<str>, u64)> {
        let first = self.by_age.partition_point(|(known, _)| *known <= id);
        let keys = self.by_age.range(first..).take(at_most);
        keys.map(|(id, key)| (key.clone(), *id)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.ids.capacity() + self.by_age.capacity()
    }

    pub(super) fn shrink(&mut self) {
        self.ids.shrink_to_fit();
        self.by_age.shrink_to_fit();
    }

    fn drop_oldest(&mut self) {
        if let Some((id, key)) = self.by_age.pop_front()
            && self.ids.get(&key) == Some(&id)
        {
            self.ids.remove(&key); // else it was used again since
        }
    }
}

/// Channel and key, of what [`Keys::after`] gives.
pub(super) fn split(joined: &str) -> Option<(ChannelName, &str)> {
    let (channel, key) = joined.split_once('\0')?;
    Some((ChannelName::parse(channel).ok()?, key))
}

fn join<'a>(channel: &ChannelName, key: &str, joined: &'a mut String) -> &'a str {
    joined.clear();
    joined.push_str(channel);
    joined.push('\0');
    joined.push_str(key);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ChannelName {
        ChannelName::parse("a").unwrap()
    }

    #[test]
    fn are_given_in_the_order_of_their_ids() {
        let mut keys = Keys::default();
        for id in [5, 9, 3, 7] {
            keys.insert(&name(), &format!("k{id}"), id);
        }
        let ids = |after, at_most| -> Vec<u64> {
            let keys = keys.after(after, at_most).into_iter();
            keys.map(|(_, id)| id).collect()
        };
        assert_eq!((ids(0, 3), ids(7, 3)), (vec![3, 5, 7], vec![9]));
    }

    #[test]
    fn a_key_that_was_used_again_is_forgotten_with_its_last_use() {
        let mut keys = Keys::default();
        let (first, last) = (1, 1 + micros(WINDOW));
        keys.insert(&name(), "k", first);
        keys.insert(&name(), "k", last);
        assert!(!keys.expire(last, 10));
        assert_eq!((keys.get(&name(), "k"), keys.len()), (Some(last), 1));
        assert!(!keys.expire(last + micros(WINDOW), 10));
        assert_eq!((keys.get(&name(), "k"), keys.len()), (None, 0));
    }
}
