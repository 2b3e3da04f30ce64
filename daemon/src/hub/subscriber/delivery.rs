//! A delivery: the audience calls a subscriber, which reads the history through its [`Feed`].

use std::{cell::RefCell, rc::Rc};

use comet_proto::{ChannelName, Cursor};

use super::{
    lists::{SubscriberKey, SubscriberLists},
    shared_backlog::{LastRead, SharedBacklog, share},
};
use crate::hub::Hub;

/// A subscriber, which is called when one of its channels has a new message.
pub trait Subscriber {
    /// Reads the new messages and delivers them, without waiting.
    fn deliver(self: Rc<Self>, feed: &mut Feed<'_>) -> AfterDelivery;
}

/// What a subscriber does after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDelivery {
    Stay,
    /// The subscription has ended, and the subscriber leaves all its channels.
    Leave,
}

/// Reads the history for a subscriber. A backlog that many subscribers share is read and rendered once.
pub struct Feed<'a> {
    pub(super) hub: &'a Hub,
    pub(super) lists: &'a RefCell<SubscriberLists<dyn Subscriber>>,
    pub(super) key: SubscriberKey,
    /// The subscriber's channel if it has only one.
    pub(super) only: Option<&'a ChannelName>,
    /// The channel, if it was deleted.
    pub(super) deleted: Option<&'a ChannelName>,
    pub(super) last_read: LastRead,
}

impl Feed<'_> {
    /// The subscriber's channel that was deleted ([`Hub::end_subscriptions`]). A protocol that has no word for this delivers
    /// as usual.
    pub fn deleted(&self) -> Option<&ChannelName> {
        self.deleted
    }

    /// The backlog of the subscriber's channels after `cursor`.
    pub fn read(&mut self, cursor: Cursor) -> Rc<SharedBacklog> {
        match self.only {
            Some(channel) => self.read_one(channel, cursor),
            None => self.read_marked(cursor),
        }
    }

    fn read_one(&mut self, channel: &ChannelName, cursor: Cursor) -> Rc<SharedBacklog> {
        let last = &mut self.last_read.alone;
        if let Some(last) = last
            && last.answers(cursor)
        {
            return last.clone();
        }
        let channels = std::slice::from_ref(channel);
        let backlog = self.hub.since(channels, cursor);
        share(last, SharedBacklog::new(backlog))
    }

    /// Reads only the channels that were marked since `cursor`.
    fn read_marked(&mut self, cursor: Cursor) -> Rc<SharedBacklog> {
        let known = self.lists.borrow();
        let last = &mut self.last_read.among_others;
        if let Some(last) = last
            && last.answers(cursor)
            && known.has_unread(self.key, cursor, &last.lists)
        {
            return last.clone();
        }
        let (backlog, lists) = known.read_marked(self.hub, self.key, cursor);
        let shared = SharedBacklog::of_lists(backlog, lists);
        if shared.lists.is_empty() {
            return Rc::new(shared); // not stored, because other subscribers do have messages to read
        }
        share(last, shared)
    }
}
