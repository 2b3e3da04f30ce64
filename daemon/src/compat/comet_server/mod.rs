//! comet-server.ru: what its two halves share. CometQL (`compat/cometql`) writes users, hashes and private messages over the
//! MySQL protocol, and the browsers' half reads them over WebSockets.
//!
//! The state of a user is messages of internal channels, whose names start with `.comet_server.`. So the log keeps it over a
//! restart, and the limits of the history bound it. `docs/adr/0018-users-are-messages.md` explains the decision.
//!
//! | internal channel | its newest message |
//! |---|---|
//! | `.comet_server.hash.N` | the key with which user N connects (`users_auth`) |
//! | `.comet_server.data.N` | data about user N (`users_data`) |
//! | `.comet_server.seen.N` | the cursor of user N when the user's last connection ended (`users_time`) |
//!
//! `.comet_server.inbox.N` has the private messages of user N, and `.comet_server.revoked` the revoked tokens.

pub(crate) mod connections;
pub(crate) mod inbox;
pub(crate) mod pipes;
mod records;
pub(crate) mod token;
mod user_id;
pub(crate) mod websocket;

#[cfg(test)]
mod tests;

use comet_proto::{Attributes, ChannelName, EventName};

use crate::{
    broker::{Broker, Receipt, SourceKind},
    hub::{Hub, NewMessage},
};
pub(crate) use user_id::UserId;

/// The attribute with the number of the user who has sent a message from a browser.
pub(crate) const SENDER: &str = "comet-server-user";

/// The users: their keys, data, private messages and connections.
#[derive(Clone, Copy)]
pub(crate) struct Users<'a> {
    hub: &'a Hub,
    broker: &'a dyn Broker,
}

impl<'a> Users<'a> {
    pub(crate) fn new(hub: &'a Hub, broker: &'a dyn Broker) -> Self {
        Self { hub, broker }
    }

    fn publish(
        &self,
        channel: ChannelName,
        event: &str,
        data: &str,
        attributes: Option<Box<Attributes>>,
    ) -> Receipt {
        let new = NewMessage {
            channels: channel.into(),
            name: EventName::parse(event).unwrap_or_default(),
            data: data.as_bytes().into(),
            attributes,
            key: None,
        };
        self.broker.publish(SourceKind::Client, new)
    }
}

/// The internal channel with this name.
fn internal(kind: &str, user: Option<UserId>) -> ChannelName {
    let name = match user {
        Some(user) => format!(".comet_server.{kind}.{user}"),
        None => format!(".comet_server.{kind}"),
    };
    ChannelName::internal(&name).expect("letters, dots and digits")
}
