//! The private messages of a user, and when the user was last connected.
//!
//! Each user has an internal channel. The connections of the user subscribe to it, so a private message reaches all of them.
//! When the user's last connection ends, its cursor is stored. The messages after this cursor are those that wait for the
//! user, and the user's next connection reads on from the cursor.

use std::sync::Arc;

use comet_proto::{Attributes, ChannelName, Cursor, Message};

use super::{
    UserId, Users,
    connections::{CONNECTIONS, Seat, Visitor},
    internal,
    records::text,
};
use crate::broker::Receipt;

/// The attribute of a message that ends the connections of its user.
const DISCONNECT: &str = "comet-server-disconnect";

/// When a user was last connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastSeen {
    Online,
    /// The time at which the user's last connection ended, in seconds since 1970.
    At(u64),
    Never,
}

/// Whether this internal channel is the inbox of a user.
pub(crate) fn is_inbox(channel: &ChannelName) -> bool {
    channel.starts_with(".comet_server.inbox.")
}

/// Whether this message of an inbox is no private message, but tells the user's connections to end.
pub(crate) fn is_disconnect(message: &Message) -> bool {
    let attributes = message.attributes.as_ref();
    attributes.is_some_and(|pairs| pairs.iter().any(|(key, _)| key == DISCONNECT))
}

impl Users<'_> {
    /// The channel to which the connections of a user subscribe.
    pub(crate) fn inbox(user: UserId) -> ChannelName {
        internal("inbox", Some(user))
    }

    /// Sends a private message to all connections of the user. If there is none, the message waits for the next one.
    pub(crate) fn send(&self, user: UserId, event: &str, data: &str) -> Receipt {
        self.publish(Self::inbox(user), event, data, None)
    }

    /// The private messages that wait for a user, oldest first.
    pub(crate) fn queued(&self, user: UserId) -> Vec<Arc<Message>> {
        if CONNECTIONS.has(user) {
            return Vec::new();
        }
        let (_, cursor) = self.last_connection(user);
        let mut messages = self.all(&Self::inbox(user));
        messages.retain(|message| message.id > cursor.0 && !is_disconnect(message));
        messages
    }

    /// Removes the private messages that wait for a user.
    pub(crate) fn clear_queue(&self, user: UserId) -> Receipt {
        self.clear(&Self::inbox(user))
    }

    /// Ends all connections of a user.
    pub(crate) fn disconnect(&self, user: UserId) {
        if CONNECTIONS.has(user) {
            let attributes = Attributes::parse(&[(DISCONNECT, "1")]);
            let attributes = attributes.expect("one short pair");
            self.publish(Self::inbox(user), "", "", attributes);
        }
    }

    pub(crate) fn last_seen(&self, user: UserId) -> LastSeen {
        match CONNECTIONS.has(user) {
            true => LastSeen::Online,
            false => self.last_connection(user).0,
        }
    }

    /// Adds a connection. The first connection of a user makes the user online. Returns the seat of the connection, and the
    /// cursor after which the connection reads the user's inbox: a connection that is not the user's first one reads no
    /// messages that were queued.
    pub(crate) fn enter(&self, visitor: Visitor) -> (Seat, Cursor) {
        let user = visitor.user;
        CONNECTIONS.enter(visitor, |is_first| {
            let Some(user) = user.filter(|_| is_first) else {
                return self.hub.last();
            };
            self.last_connection(user).1
        })
    }

    /// Removes a connection that has read the user's inbox up to `cursor`. Must be called once for each seat.
    pub(crate) fn leave(&self, seat: Seat, cursor: Cursor) {
        CONNECTIONS.leave(seat, |user| {
            let cursor = cursor.0.to_string();
            self.publish(internal("seen", Some(user)), "", &cursor, None);
        });
    }

    /// When the user's last connection ended, and up to which message it had read.
    fn last_connection(&self, user: UserId) -> (LastSeen, Cursor) {
        let stored = self.hub.newest(&internal("seen", Some(user)), 1).pop();
        let parsed = stored.and_then(|stored| {
            let cursor = text(&stored).parse().ok()?;
            Some((LastSeen::At(stored.id / 1_000_000), Cursor(cursor)))
        });
        parsed.unwrap_or((LastSeen::Never, Cursor::default()))
    }
}
