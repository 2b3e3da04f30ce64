//! Backlogs that are the same for several subscribers. Each of them is read and rendered once.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use comet_proto::Cursor;

use crate::hub::Backlog;

/// The last read backlogs: one for subscribers of only this channel, and one for subscribers of several channels.
#[derive(Default)]
pub(super) struct LastRead {
    pub(super) alone: Option<Rc<SharedBacklog>>,
    pub(super) among_others: Option<Rc<SharedBacklog>>,
}

/// A backlog, and its bytes in the formats that were used so far.
pub struct SharedBacklog {
    backlog: Backlog,
    /// For subscribers of several channels: the lists of the channels that were read.
    pub(super) lists: Box<[u32]>,
    forms: RefCell<Vec<(u32, Bytes)>>,
}

impl SharedBacklog {
    /// Nothing rendered yet.
    #[must_use]
    pub fn new(backlog: Backlog) -> Self {
        Self::of_lists(backlog, Box::default())
    }

    pub(super) fn of_lists(backlog: Backlog, lists: Box<[u32]>) -> Self {
        Self {
            backlog,
            lists,
            forms: RefCell::default(),
        }
    }

    /// The backlog.
    #[must_use]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The bytes in the format with this number. The first call creates them with `render`.
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
    pub(super) fn answers(&self, cursor: Cursor) -> bool {
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
            // If this read was cut, its cursor is earlier, and the messages after the cut must not be skipped.
            && self.backlog.cursor <= other.backlog.cursor
    }
}

/// Keeps the backlog for the next readers, unless the kept backlog has the same messages.
pub(super) fn share(
    last: &mut Option<Rc<SharedBacklog>>,
    shared: SharedBacklog,
) -> Rc<SharedBacklog> {
    match last {
        Some(last) if last.same_messages(&shared) => last.clone(),
        _ => last.insert(Rc::new(shared)).clone(),
    }
}
