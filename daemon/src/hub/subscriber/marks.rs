//! Which channels have messages that a subscriber of several channels has not read yet.
//!
//! The marks of new messages are taken from the hub together with its last id. Every message up to this id has marked
//! its list by then. So a subscriber has read a list completely if the list was last marked up to the subscriber's cursor.

use comet_proto::Cursor;

#[derive(Default)]
pub(super) struct Marks {
    /// Every message up to this id has marked its list.
    up_to: Cursor,
    /// For each list the value of `up_to` when the list was last marked. Only the lists of subscribers with several
    /// channels need an entry: other subscribers have only one channel to read.
    last: Vec<Cursor>,
}

impl Marks {
    /// Remembers the marks of this list from now on.
    pub(super) fn watch(&mut self, list: u32) {
        let len = list as usize + 1;
        if self.last.len() < len {
            self.last.resize(len, Cursor::default());
        }
    }

    /// Called after marks were taken from the hub. The next marks stand for messages up to this id.
    pub(super) fn taken(&mut self, up_to: Cursor) {
        self.up_to = up_to;
    }

    pub(super) fn mark(&mut self, list: u32) {
        if let Some(last) = self.last.get_mut(list as usize) {
            *last = self.up_to;
        }
    }

    pub(super) fn up_to(&self) -> Cursor {
        self.up_to
    }

    /// Whether the list may have messages after `cursor`, up to [`Marks::up_to`].
    pub(super) fn is_marked(&self, list: u32, cursor: Cursor) -> bool {
        self.last
            .get(list as usize)
            .is_some_and(|last| *last > cursor)
    }

    /// Frees the memory for lists with numbers from `lists` on, which do not exist.
    pub(super) fn shrink(&mut self, lists: usize) {
        self.last.truncate(lists);
        self.last.shrink_to_fit();
    }
}
