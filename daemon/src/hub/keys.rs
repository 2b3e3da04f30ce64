//! Idempotency keys: which id a key was given, for a while.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use comet_proto::ChannelName;

use super::micros;

/// How long a key is remembered.
const WINDOW: Duration = Duration::from_secs(600);

/// How many keys are remembered; beyond it the oldest are forgotten early.
const MAX_KEYS: usize = 65_536;

type Key = (ChannelName, Box<str>);

#[derive(Default)]
pub(super) struct Keys {
    ids: HashMap<Key, u64>,
    by_age: VecDeque<(u64, Key)>,
}

impl Keys {
    pub(super) fn get(&self, channel: &ChannelName, key: &str) -> Option<u64> {
        self.ids.get(&(channel.clone(), key.into())).copied()
    }

    pub(super) fn insert(&mut self, channel: &ChannelName, key: &str, id: u64) {
        let key: Key = (channel.clone(), key.into());
        self.ids.insert(key.clone(), id);
        self.by_age.push_back((id, key));
        if self.by_age.len() > MAX_KEYS {
            self.drop_oldest();
        }
    }

    /// Forgets keys that were given an id before the window; an id is a time.
    pub(super) fn expire(&mut self, now: u64) {
        let old = now.saturating_sub(micros(WINDOW));
        while self.by_age.front().is_some_and(|(id, _)| *id <= old) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_front() {
            self.ids.remove(&key);
        }
    }
}
