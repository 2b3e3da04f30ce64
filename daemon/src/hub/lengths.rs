//! Which limits a channel has. The number of messages that a channel keeps can be set while the daemon runs, in place of the number in the settings.

use comet_proto::ChannelName;

use super::{HistoryConfig, Hub, Limits, channel::Class, state::HubState};
use crate::store::Record;

/// Maximum number of channels with a length of their own.
const MAX_LENGTHS: usize = 10_000;

/// The largest length that can be set.
pub const MAX_LENGTH: u16 = 10_000;

/// Why a length was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    #[error("a history of {0} messages is over the limit of {MAX_LENGTH}")]
    TooLong(u16),
    #[error("{MAX_LENGTHS} channels have a length of their own, which is the limit")]
    TooMany,
}

impl Hub {
    /// Sets how many messages a channel keeps. `None`: as the settings say. The other limits of the settings still apply.
    /// Messages over the new length are dropped when the channel is next published to or read. Returns an id: when every id up
    /// to it is kept ([`Hub::kept`]), the length holds after a restart.
    ///
    /// # Errors
    /// The length is too large, or too many channels have one. Nothing has changed.
    pub fn set_length(
        &self,
        channel: &ChannelName,
        messages: Option<u16>,
    ) -> Result<u64, LengthError> {
        let now = self.time.now();
        self.lock().change_length(channel, messages, now)
    }

    /// How many messages a channel keeps, by the settings or by [`Hub::set_length`]. Messages of the last second are kept in
    /// addition.
    pub fn length(&self, channel: &ChannelName) -> usize {
        let state = self.lock();
        state.config.limits(state.class(channel)).messages
    }

    /// The length that was set for a channel. `None`: none was set.
    pub fn own_length(&self, channel: &ChannelName) -> Option<u16> {
        self.lock().lengths.get(channel).copied()
    }

    /// The channels whose length was set.
    pub fn lengths(&self) -> Vec<(ChannelName, u16)> {
        let state = self.lock();
        let lengths = state.lengths.iter();
        lengths
            .map(|(channel, messages)| (channel.clone(), *messages))
            .collect()
    }
}

impl HubState {
    fn change_length(
        &mut self,
        channel: &ChannelName,
        messages: Option<u16>,
        now: u64,
    ) -> Result<u64, LengthError> {
        if let Some(messages) = messages.filter(|messages| *messages > MAX_LENGTH) {
            return Err(LengthError::TooLong(messages));
        }
        let is_new = messages.is_some() && !self.lengths.contains_key(channel);
        if is_new && self.lengths.len() >= MAX_LENGTHS {
            return Err(LengthError::TooMany);
        }
        let id = now.max(self.last + 1);
        self.last = id;
        self.set_length(channel, messages);
        self.log(Record::Length {
            id,
            channel: channel.clone(),
            messages,
        });
        Ok(id)
    }

    pub(super) fn set_length(&mut self, name: &ChannelName, messages: Option<u16>) {
        match messages {
            Some(messages) => self.lengths.insert(name.clone(), messages),
            None => self.lengths.remove(name),
        };
        if let Some(channel) = self.channels.get_mut(name) {
            channel.class.length = messages;
        }
    }

    /// The class of a channel, which may not exist.
    pub(super) fn class(&self, name: &ChannelName) -> Class {
        Class {
            rule: self.config.rule(name),
            length: self.lengths.get(name).copied(),
        }
    }
}

impl HistoryConfig {
    /// The number of the rule that applies to a channel: see [`Class`].
    pub(super) fn rule(&self, name: &str) -> u32 {
        let prefixes = self.prefixes.iter().zip(1..);
        let matching = prefixes.filter(|((prefix, _), _)| name.starts_with(prefix.as_str()));
        matching
            .max_by_key(|((prefix, _), _)| prefix.len())
            .map_or(0, |(_, rule)| rule)
    }

    pub(super) fn limits(&self, class: Class) -> Limits {
        let limits = match class.rule.checked_sub(1) {
            Some(prefix) => self.prefixes[prefix as usize].1,
            None => self.default,
        };
        Limits {
            messages: class.length.map_or(limits.messages, usize::from),
            ..limits
        }
    }
}
