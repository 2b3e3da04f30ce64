//! Reads the messages that a subscriber has not read yet.

use comet_proto::{ChannelName, Cursor};

use super::lists::{SubscriberKey, SubscriberLists};
use crate::hub::{Backlog, Hub};

impl<S: ?Sized> SubscriberLists<S> {
    /// Whether the subscriber has messages after its cursor in exactly these lists.
    pub(super) fn has_unread(&self, key: SubscriberKey, cursor: Cursor, lists: &[u32]) -> bool {
        self.unread(key, cursor).eq(lists.iter().copied())
    }

    /// Reads the messages of a subscriber's channels after `cursor`. The cursor must not be older than the moment when the
    /// subscriber joined or got its last channel.
    pub(super) fn read(&self, hub: &Hub, key: SubscriberKey, cursor: Cursor) -> Backlog {
        match self.only_channel(key) {
            Some(channel) => hub.since(&[channel], cursor),
            None => self.read_marked(hub, key, cursor).0,
        }
    }

    /// Like [`SubscriberLists::read`], for a subscriber of several channels. Reads only channels that were marked since `cursor`,
    /// and also returns their lists.
    pub(super) fn read_marked(
        &self,
        hub: &Hub,
        key: SubscriberKey,
        cursor: Cursor,
    ) -> (Backlog, Box<[u32]>) {
        let unread: Box<[u32]> = self.unread(key, cursor).collect();
        let up_to = self.marked_up_to().max(cursor);
        let names: Vec<ChannelName> = unread
            .iter()
            .map(|list| self.channel(*list).clone())
            .collect();
        let mut backlog = match &names[..] {
            [] => Backlog {
                cursor: up_to,
                ..Backlog::default()
            },
            names => hub.since_until(names, cursor, up_to),
        };
        if backlog.gap {
            // One gap is enough, even if other channels have also lost messages.
            backlog = hub.since(&self.channels(key), cursor);
        }
        (backlog, unread)
    }
}
