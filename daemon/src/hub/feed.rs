//! Reads of the history, shared by all subscribers that read the same.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use comet_proto::{ChannelName, Cursor};

use super::{
    Backlog,
    subscriber::{Audience, SubscriberKey},
};

/// The last read backlogs: one for subscribers of only this channel, and one for subscribers of several channels. A backlog that
/// many subscribers share is rendered once.
#[derive(Default)]
pub(super) struct LastRead {
    alone: Option<Rc<SharedBacklog>>,
    among_others: Option<Rc<SharedBacklog>>,
}

/// Reads the history for a subscriber. A backlog that many subscribers share is read and rendered once.
pub struct Feed<'a> {
    pub(super) audience: &'a Audience,
    pub(super) key: SubscriberKey,
    /// The subscriber's channel if it has only one.
    pub(super) only: Option<&'a ChannelName>,
    pub(super) last_read: LastRead,
}

impl Feed<'_> {
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
        let backlog = self.audience.hub().since(channels, cursor);
        share(last, SharedBacklog::new(backlog))
    }

    /// Reads only the channels that were marked since `cursor`.
    fn read_marked(&mut self, cursor: Cursor) -> Rc<SharedBacklog> {
        let last = &mut self.last_read.among_others;
        if let Some(last) = last
            && last.answers(cursor)
            && self.audience.has_unread(self.key, cursor, &last.lists)
        {
            return last.clone();
        }
        let (backlog, lists) = self.audience.read_marked(self.key, cursor);
        let shared = SharedBacklog {
            lists,
            ..SharedBacklog::new(backlog)
        };
        if shared.lists.is_empty() {
            return Rc::new(shared); // others have something to read
        }
        share(last, shared)
    }
}

/// Keeps the backlog for the next readers, unless the one that is kept has the same messages.
fn share(last: &mut Option<Rc<SharedBacklog>>, shared: SharedBacklog) -> Rc<SharedBacklog> {
    match last {
        Some(last) if last.same_messages(&shared) => last.clone(),
        _ => last.insert(Rc::new(shared)).clone(),
    }
}

/// A backlog, and its bytes in the formats that were used so far.
pub struct SharedBacklog {
    backlog: Backlog,
    /// For subscribers of several channels: the lists of the channels that were read.
    lists: Box<[u32]>,
    forms: RefCell<Vec<(u32, Bytes)>>,
}

impl SharedBacklog {
    /// Nothing rendered yet.
    #[must_use]
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            lists: Box::default(),
            forms: RefCell::default(),
        }
    }

    /// The backlog.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The bytes in the format with this number. `render` makes them at the first call.
    pub fn form(&self, form: u32, render: impl FnOnce(&Backlog) -> Bytes) -> Bytes {
        let known = |forms: Ref<'_, Vec<(u32, Bytes)>>| {
            forms
                .iter()
                .find(|(known, _)| *known == form)
                .map(|(_, bytes)| bytes.clone())
        };
        known(self.forms.borrow()).unwrap_or_else(|| {
            let bytes = render(&self.backlog);
            self.forms.borrow_mut().push((form, bytes.clone()));
            bytes
        })
    }

    /// Whether a read of the same channels from `cursor` at that moment would have given the same backlog.
    fn answers(&self, cursor: Cursor) -> bool {
        let first = self.backlog.messages.first();
        let end = first.map_or(self.backlog.cursor, |first| Cursor(first.id - 1));
        !self.backlog.gap && self.backlog.after <= cursor.0 && cursor <= end
    }

    /// Whether both have the same messages. Two empty backlogs do not count, because their cursors can differ.
    fn same_messages(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.backlog.messages, &other.backlog.messages);
        !self.backlog.gap
            && !other.backlog.gap
            && !ours.is_empty()
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.backlog.readable == other.backlog.readable
            && self.backlog.more == other.backlog.more
            // A read that was cut ends earlier, and the messages that it left out must not be skipped.
            && self.backlog.cursor <= other.backlog.cursor
    }
}
