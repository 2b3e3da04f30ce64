//! What subscribers read, once for all who read the same.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use comet_proto::{ChannelName, Cursor};

use super::{Backlog, Hub};

/// What was read last: by those who listen to this channel alone, and by those who listen to others too. What is
/// the same for many is rendered once.
#[derive(Default)]
pub(super) struct LastRead {
    alone: Option<Rc<Batch>>,
    among_others: Option<Rc<Batch>>,
}

/// How a called subscriber reads. What many read alike is read and serialised once.
pub struct Feed<'a> {
    pub(super) hub: &'a Hub,
    /// What `last_read` is about: who listens to more channels may ask for any of them.
    pub(super) channel: &'a ChannelName,
    pub(super) last_read: LastRead,
}

impl Feed<'_> {
    /// What `channels` have after `cursor`.
    pub fn read(&mut self, channels: &[ChannelName], cursor: Cursor) -> Rc<Batch> {
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
        let batch = Batch::new(self.hub.since(channels, cursor));
        match last {
            Some(last) if last.same_messages(&batch) => last.clone(),
            _ => last.insert(Rc::new(batch)).clone(),
        }
    }
}

/// A backlog, and what it looks like on the wire in the forms that were asked for.
pub struct Batch {
    backlog: Backlog,
    forms: RefCell<Vec<(u32, Bytes)>>,
}

impl Batch {
    /// Nothing rendered yet.
    #[must_use]
    pub fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            forms: RefCell::default(),
        }
    }

    /// What was read.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The bytes in the form with this number, made by `render` when nobody asked before.
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

    /// A read of the same channel from `cursor`, when this was read, would have given just this.
    fn answers(&self, cursor: Cursor) -> bool {
        let first = self.backlog.messages.first();
        let end = first.map_or(self.backlog.cursor, |first| Cursor(first.id - 1));
        !self.backlog.gap && self.backlog.after <= cursor.0 && cursor <= end
    }

    /// Of both, though not of two without any: these differ in where they end.
    fn same_messages(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.backlog.messages, &other.backlog.messages);
        !self.backlog.gap
            && !other.backlog.gap
            && !ours.is_empty()
            && ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.backlog.more == other.backlog.more
            // A read that was cut short ends earlier: what it left out must not be skipped.
            && self.backlog.cursor <= other.backlog.cursor
    }
}
