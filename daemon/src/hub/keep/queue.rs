//! Messages on their way to the log, bounded: what is too much for it is left to the history.

use std::{collections::VecDeque, sync::Arc};

use comet_proto::Message;

use crate::hub::history;

/// Bytes of messages that may wait for a log that fails. What is beyond is written from the history when it works
/// again.
pub(in crate::hub) const MAX_UNWRITTEN: usize = 32 << 20;

/// A message that the log does not have.
#[derive(Debug)]
pub(in crate::hub) struct Unwritten {
    pub(in crate::hub) message: Arc<Message>,
    pub(in crate::hub) key: Option<Box<str>>,
}

/// Messages on their way to the log, oldest first.
#[derive(Debug, Default)]
pub(in crate::hub) struct Queue {
    pub(super) list: VecDeque<Unwritten>,
    bytes: usize,
    /// Some were dropped: only the history has them.
    pub(super) dropped: bool,
}

impl Queue {
    pub(in crate::hub) fn push(&mut self, unwritten: Unwritten) {
        self.bytes += history::cost(&unwritten.message);
        self.list.push_back(unwritten);
        if self.bytes > MAX_UNWRITTEN {
            self.drop_all();
        }
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.bytes += later.bytes;
        self.dropped |= later.dropped;
        self.list.append(&mut later.list);
        if self.bytes > MAX_UNWRITTEN {
            self.drop_all();
        }
    }

    fn drop_all(&mut self) {
        *self = Self {
            dropped: true,
            ..Self::default()
        };
    }
}
