//! The facts of one channel, for other servers' statistics: how much is kept, and how many subscribers wait.
//!
//! The number of subscribers is kept per channel. Joining adds to it, because joining takes the hub's lock anyway. A subscriber
//! leaves without the lock: its audience collects the leaves, and reports them when it next takes its dirty channels.

use comet_proto::{ChannelName, Cursor};

use super::{
    Hub,
    channel::{Channel, MAPS},
    state::HubState,
};

/// The subscribers that have left channels: for each channel their number.
pub(super) type LeftChannels = [(ChannelName, u32)];

/// The facts of one channel at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Subscribers that wait for a message, over all workers: polls, streams, WebSockets, and subscribers of the Unix socket.
    /// A poll that has just been answered does not count until the client asks again. A subscriber that has disconnected may
    /// count for up to a second.
    pub subscribers: usize,
    /// Messages published since the hub knows the channel. The hub forgets a channel without messages and subscribers.
    pub published: u64,
    /// Messages kept.
    pub messages: usize,
    /// The oldest message that is kept.
    pub oldest: Option<Cursor>,
    /// The newest message that is kept.
    pub newest: Option<Cursor>,
}

impl Hub {
    /// The facts of a channel. `None`: the channel has neither messages nor subscribers.
    pub fn channel_facts(&self, channel: &ChannelName) -> Option<ChannelFacts> {
        let now = self.time.now();
        self.lock().facts(channel, now)
    }

    /// The facts of up to `max` channels of those for which `is_asked_for` is true. The hub is locked for a small part of the
    /// channels at a time.
    pub(crate) fn facts_of_channels(
        &self,
        max: usize,
        is_asked_for: impl Fn(&ChannelName) -> bool,
    ) -> Vec<(ChannelName, ChannelFacts)> {
        let mut names = Vec::new();
        for map in 0..MAPS {
            let known = self.lock().names_in(map).collect::<Vec<_>>();
            names.extend(known.into_iter().filter(&is_asked_for));
            if names.len() >= max {
                break;
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.truncate(max);
        let facts = |name: ChannelName| {
            let facts = self.channel_facts(&name)?;
            Some((name, facts))
        };
        names.into_iter().filter_map(facts).collect()
    }

    /// Subtracts subscribers that have left.
    pub(super) fn subscribers_left(&self, left: &LeftChannels) {
        if !left.is_empty() {
            self.lock().subscribers_left(left);
        }
    }
}

impl HubState {
    fn facts(&mut self, name: &ChannelName, now: u64) -> Option<ChannelFacts> {
        let now = now.max(self.last);
        let channel = self.channels.get_mut(name)?;
        let limits = self.config.limits(channel.class);
        channel.history.trim(&limits, now, &mut self.kept);
        let facts = channel.facts();
        (facts.subscribers > 0 || facts.messages > 0).then_some(facts)
    }

    fn names_in(&self, map: usize) -> impl Iterator<Item = ChannelName> {
        let channels = self.channels.in_map(map);
        channels.map(|channel| channel.name.clone())
    }

    pub(super) fn subscribers_left(&mut self, left: &LeftChannels) {
        for (name, count) in left {
            if let Some(channel) = self.channels.get_mut(name) {
                channel.subscribers = channel.subscribers.saturating_sub(*count);
            }
        }
    }
}

impl Channel {
    fn facts(&self) -> ChannelFacts {
        ChannelFacts {
            subscribers: self.subscribers as usize,
            published: self.published,
            messages: self.history.len(),
            oldest: self.history.oldest().map(Cursor),
            newest: self.history.newest().map(Cursor),
        }
    }
}
