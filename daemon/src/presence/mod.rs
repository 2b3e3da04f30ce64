//! Presence: which members are on a channel. A member is a user with one or more connections to the channel.
//!
//! A member that joins or leaves is a message of the channel's internal channel ([`ChannelName::presence`]). So presence
//! messages are in order with the other messages, and clients get them in the same way.

mod local;
mod member;
mod members;
mod message;

use std::{sync::Arc, time::Duration};

use comet_proto::ChannelName;

pub use local::LocalPresence;
pub use member::{Member, MemberError};
pub use members::{Members, PresentMember};
pub use message::PresenceChange;

/// Grace time of channels whose rule does not set one.
pub const GRACE: Duration = Duration::from_secs(10);

/// Knows the members of the channels. Callers use [`Seat::enter`].
pub trait Presence: Send + Sync {
    /// Adds a connection of a member. The first connection of a member publishes a presence message. Returns false if there is
    /// no room for another member.
    fn enter(&self, channel: &ChannelName, member: &Member) -> bool;

    /// Removes a connection of the member with this id, which has entered. If it was the last one, and no other one comes within `grace`, a
    /// presence message is published.
    fn leave(&self, channel: &ChannelName, id: &Arc<str>, grace: Duration);

    /// The members of a channel in the order of their ids, beginning behind the id `after`. At most [`Members::MAX`].
    fn members(&self, channel: &ChannelName, after: Option<&str>) -> Members;
}

/// A connection of a member on a channel. The connection leaves when its seat is dropped.
pub struct Seat {
    /// Whether there was room for the member.
    has_entered: bool,
    presence: Arc<dyn Presence>,
    channel: ChannelName,
    member: Arc<str>,
    grace: Duration,
}

impl Seat {
    /// Enters a channel. `grace`: how long the member stays on the channel after its last connection has left.
    #[must_use]
    pub fn enter(
        presence: &Arc<dyn Presence>,
        channel: &ChannelName,
        member: &Member,
        grace: Duration,
    ) -> Self {
        Self {
            has_entered: presence.enter(channel, member),
            presence: presence.clone(),
            channel: channel.clone(),
            member: member.id().clone(),
            grace,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.has_entered {
            self.presence.leave(&self.channel, &self.member, self.grace);
        }
    }
}
