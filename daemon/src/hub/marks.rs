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
    /// The list that was marked last.
    latest: u32,
    /// The greatest value in `last` of all lists but the latest one.
    others: Cursor,
}

impl Marks {
    /// Notes the marks of this list from now on.
    pub(super) fn watch(&mut self, list: u32) {
        let len = list as usize + 1;
        if self.last.len() < len {
            self.last.resize(len, Cursor::default());
        }
    }

    /// Marks have been taken: those that follow stand for messages up to this id.
    pub(super) fn taken(&mut self, up_to: Cursor) {
        self.up_to = up_to;
    }

    pub(super) fn mark(&mut self, list: u32) {
        let Some(last) = self.last.get_mut(list as usize) else {
            return;
        };
        *last = self.up_to;
        if list != self.latest {
            let before = self.last.get(self.latest as usize);
            self.others = self.others.max(before.copied().unwrap_or_default());
            self.latest = list;
        }
    }

    /// The only list that may have messages after `cursor`. `None`: there may be several.
    pub(super) fn only_marked(&self, cursor: Cursor) -> Option<u32> {
        (self.others <= cursor).then_some(self.latest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_marked_list_is_known_for_as_long_as_it_is_the_only_one() {
        let mut marks = Marks::default();
        marks.watch(3);
        let mut mark = |up_to, lists: &[u32]| {
            marks.taken(Cursor(up_to));
            lists.iter().for_each(|list| marks.mark(*list));
            let only = |cursor| marks.only_marked(Cursor(cursor));
            let is_marked = |list, cursor| marks.is_marked(list, Cursor(cursor));
            (
                [5, 10, 20, 30].map(only),
                [5, 10, 20, 30].map(|c| is_marked(1, c)),
            )
        };
        let (yes, no) = (true, false);
        let all = |list| [Some(list); 4];
        assert_eq!(mark(10, &[1]), (all(1), [yes, no, no, no]));
        assert_eq!(mark(20, &[1]), (all(1), [yes, yes, no, no]));
        let after_20 = [None, None, Some(2), Some(2)];
        assert_eq!(mark(30, &[2]), (after_20, [yes, yes, no, no]));
        // A list without subscribers of several channels does not count.
        assert_eq!(mark(30, &[9]), (after_20, [yes, yes, no, no]));
        let after_30 = [None, None, None, Some(1)];
        assert_eq!(mark(30, &[1]), (after_30, [yes, yes, yes, no]));
    }
}
