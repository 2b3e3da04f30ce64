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
        self.by_age.push_back((id, joined));
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
        if let Some((_, key)) = self.by_age.pop_front() {
            self.ids.remove(&key);
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
