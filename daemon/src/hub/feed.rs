//! Reads of the history, shared by all subscribers that read the same.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use comet_proto::{ChannelName, Cursor};

use super::{Backlog, Hub};

/// The last read backlogs: one for subscribers of only this channel, and one for subscribers of several channels. A backlog that
/// many subscribers share is rendered once.
#[derive(Default)]
pub(super) struct LastRead {
    alone: Option<Rc<SharedBacklog>>,
    among_others: Option<Rc<SharedBacklog>>,
}

/// Reads the history for a subscriber. A backlog that many subscribers share is read and rendered once.
pub struct Feed<'a> {
    pub(super) hub: &'a Hub,
    /// The channel of `last_read`. A subscriber of several channels may ask for others.
    pub(super) channel: &'a ChannelName,
    pub(super) last_read: LastRead,
}

impl Feed<'_> {
    /// The backlog of `channels` after `cursor`.
    pub fn read(&mut self, channels: &[ChannelName], cursor: Cursor) -> Rc<SharedBacklog> {
        let alone = channels == std::slice::from_ref(self.channel);
        let last = if alone {
            &mut self.last_read.alone
        } else {
            &mut self.last_read.among_others
        };
        if let Some(last) = last
            && alone
            && last.answers(cursor)
        {
            return last.clone();
        }
        let batch = SharedBacklog::new(self.hub.since(channels, cursor));
        match last {
            Some(last) if last.same_messages(&batch) => last.clone(),
            _ => last.insert(Rc::new(batch)).clone(),
        }
    }
}

/// A backlog, and its bytes in the formats that were used so far.
pub struct SharedBacklog {
    backlog: Backlog,
    forms: RefCell<Vec<(u32, Bytes)>>,
}

impl SharedBacklog {
    /// Nothing rendered yet.
    #[must_use]
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
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

    /// Whether a read of the same channel from `cursor` at that moment would have given the same backlog.
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
            && self.backlog.more == other.backlog.more
            // A read that was cut ends earlier, and the messages that it left out must not be skipped.
            && self.backlog.cursor <= other.backlog.cursor
    }
}
