//! A channel's state, and the map of channels by name.

use std::{array, collections::HashMap, sync::Arc};

use comet_proto::{ChannelName, Message};

use super::history::{History, Kept, Limits};

pub(super) struct Channel {
    /// The copy of the name that all its messages share.
    pub(super) name: ChannelName,
    pub(super) history: History,
    /// Bit w: worker w has subscribers of this channel.
    pub(super) interest: u64,
    /// Bit w: this channel is in worker w's dirty list.
    pub(super) dirty: u64,
    pub(super) class: Class,
    /// The number of subscribers: see [`facts`](super::facts).
    pub(super) subscribers: u32,
    /// The number of messages since the channel was created.
    pub(super) published: u64,
    /// Whether it has an entry in the expiry queue.
    pub(super) expires: bool,
}

/// Which limits a channel has: see [`HistoryConfig::limits`](super::HistoryConfig::limits).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Class {
    /// 0: the default. Otherwise a rule for a prefix: its number, beginning with 1.
    pub(super) rule: u32,
    /// The number of messages, if it was set for this channel.
    pub(super) length: Option<u16>,
}

impl Channel {
    /// `trimmed`: a cursor below this id may have missed messages.
    pub(super) fn new(name: ChannelName, trimmed: u64, class: Class) -> Self {
        Self {
            name,
            history: History::new(trimmed),
            interest: 0,
            dirty: 0,
            class,
            subscribers: 0,
            published: 0,
            expires: false,
        }
    }

    /// The time when its oldest message expires, unless it already has an entry.
    pub(super) fn schedule(&mut self, limits: &Limits) -> Option<u64> {
        let oldest = self.history.oldest().filter(|_| !self.expires)?;
        self.expires = true;
        Some(limits.expiry(oldest))
    }

    /// Adds a message to the history, and marks the channel for the interested workers. Returns the workers that were not marked
    /// before.
    pub(super) fn keep(&mut self, message: Arc<Message>, limits: &Limits, kept: &mut Kept) -> u64 {
        let id = message.id;
        self.published += 1;
        self.history.push(message, kept);
        self.history.trim(limits, id, kept);
        let marked = self.interest & !self.dirty;
        self.dirty |= marked;
        marked
    }

    pub(super) fn is_unused(&self) -> bool {
        self.interest == 0 && self.history.is_empty() && !self.expires
    }
}

/// The number of maps.
pub(super) const MAPS: usize = 256;

/// The channels by name, in many maps: one large map would block all publishers for milliseconds while it grows. The values
/// are boxed, because a map reserves up to twice the entries that it holds.
pub(super) struct ChannelMap {
    maps: Box<[HashMap<ChannelName, Box<Channel>>; MAPS]>,
    len: usize,
}

impl ChannelMap {
    pub(super) fn new() -> Self {
        Self {
            maps: Box::new(array::from_fn(|_| HashMap::new())),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, name: &ChannelName) -> Option<&Channel> {
        self.maps[map(name)].get(name).map(|channel| &**channel)
    }

    pub(super) fn get_mut(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        self.maps[map(name)]
            .get_mut(name)
            .map(|channel| &mut **channel)
    }

    /// Adds a channel that is not in the map yet.
    pub(super) fn insert(&mut self, channel: Channel) -> &mut Channel {
        self.len += 1;
        let place = self.maps[map(&channel.name)].entry(channel.name.clone());
        place.insert_entry(Box::new(channel)).into_mut()
    }

    pub(super) fn remove(&mut self, name: &ChannelName) -> Option<Box<Channel>> {
        let channel = self.maps[map(name)].remove(name)?;
        self.len -= 1;
        Some(channel)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        let channels = self.maps.iter_mut().flat_map(HashMap::values_mut);
        channels.map(|channel| &mut **channel)
    }

    pub(super) fn in_map(&self, map: usize) -> impl Iterator<Item = &Channel> {
        self.maps[map].values().map(|channel| &**channel)
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.maps.iter().map(HashMap::capacity).sum()
    }

    pub(super) fn shrink(&mut self) {
        for map in self.maps.iter_mut() {
            map.shrink_to_fit();
        }
    }
}

/// The map for a name. An attacker who chooses names that all fall into one map only gets one normal large map.
fn map(name: &str) -> usize {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    let words = name.as_bytes().chunks(8).map(word);
    let hash = words.fold(0, |hash: u64, word| {
        (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (hash >> 56) as usize % MAPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in_and_leaves_nothing() {
        let names = (0..10_000).map(|i| ChannelName::parse(&format!("c{i}")).unwrap());
        let names: Vec<ChannelName> = names.collect();
        let mut channels = ChannelMap::new();
        for (i, name) in names.iter().enumerate() {
            assert!(channels.get(name).is_none());
            channels.insert(Channel::new(name.clone(), i as u64, Class::default()));
        }
        assert_eq!(channels.len(), names.len());
        for (i, name) in names.iter().enumerate() {
            assert_eq!(channels.get(name).unwrap().history.trimmed(), i as u64);
            assert_eq!(channels.remove(name).unwrap().name, *name);
            assert!(channels.remove(name).is_none());
        }
        channels.shrink();
        assert_eq!(channels.len(), 0);
        assert_eq!(channels.room(), 0);
    }

    #[test]
    fn numbered_names_spread_over_the_maps() {
        type Naming = fn(usize) -> String;
        let namings: [Naming; 4] = [
            |i| format!("c{i:06}"),
            |i| i.to_string(),
            |i| format!("user:{i}:inbox"),
            |i| format!("{i}{}", "x".repeat(100)),
        ];
        for name in namings {
            let mut counts = [0; MAPS];
            for i in 0..100 * MAPS {
                counts[map(&name(i))] += 1;
            }
            let most = counts.iter().max().unwrap();
            assert!(*most < 300, "{most} like {}", name(0));
        }
    }
}
