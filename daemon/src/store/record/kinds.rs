//! The kinds of records.

use comet_proto::ChannelName;

use super::message::MessageRecord;
use crate::store::Durability;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first record of a segment.
    Head {
        /// The number of this segment; later segments have larger numbers.
        number: u64,
        /// Whether the segment is a base. A base contains everything that was kept, so that older segments are ignored.
        base: bool,
        /// Messages that are only in later segments have larger ids.
        last: u64,
    },
    /// A message, which belongs to all its channels.
    Message(MessageRecord<'a>),
    /// A message of a base that has several channels. It belongs to those for which a [`Record::Link`] follows, because the
    /// history of each channel is trimmed on its own.
    Shared(MessageRecord<'a>),
    /// The next message of a channel in a base: the shared message with this id.
    Link {
        /// The id of the message.
        id: u64,
        /// The channel.
        channel: ChannelName,
    },
    /// A channel, with the id up to which its messages are gone.
    Channel {
        /// The channel.
        name: ChannelName,
        /// A cursor below this id has missed messages of the channel.
        trimmed: u64,
    },
    /// Messages that were removed from a channel before their time.
    Removed {
        /// The id of the removal. Only older messages were removed.
        id: u64,
        /// The channel. The messages stay in their other channels.
        channel: ChannelName,
        /// The message that was removed. 0: all of them.
        message: u64,
    },
    /// How many messages a channel keeps, in place of the number in the settings.
    Length {
        /// The id of the change.
        id: u64,
        /// The channel.
        channel: ChannelName,
        /// The number of messages. `None`: the number in the settings.
        messages: Option<u16>,
    },
    /// An idempotency key, whose message may be gone.
    Key {
        /// The channel.
        channel: ChannelName,
        /// The key.
        key: &'a str,
        /// The id of the message with this key.
        id: u64,
    },
    /// The start of a daemon.
    Start {
        /// The first cursor that the daemon gave.
        id: u64,
        /// The last id that the daemon found in the log. Ids between the two belong to lost messages.
        after: u64,
        /// The machine's boot id, which changes with every boot.
        boot: u128,
        /// The daemon's setting of durability.
        durability: Durability,
    },
    /// The orderly end of a daemon: no message before it is missing.
    Stop {
        /// The last cursor that the daemon gave.
        id: u64,
    },
    /// A cursor below this id may have missed messages of channels that are not in the log.
    Floor {
        /// The id.
        id: u64,
    },
    /// A range of ids whose messages are lost. A client with such an id as its cursor must reload.
    Lost {
        /// Exclusive.
        after: u64,
        /// Exclusive.
        before: u64,
    },
    /// A cursor below this id may have missed messages of any channel.
    Missed {
        /// The id.
        before: u64,
    },
}
