//! The bounded queue of messages that must be written to the log. If the queue overflows, all its messages are dropped, and the
//! log is later rewritten from the history.

use std::{collections::VecDeque, sync::Arc};

use comet_proto::Message;

use crate::hub::history;

/// Maximum number of bytes in the queue while the log cannot be written.
pub(in crate::hub) const MAX_UNWRITTEN: usize = 32 << 20;

/// A message that is not in the log yet.
#[derive(Debug)]
pub(in crate::hub) struct Unwritten {
    pub(in crate::hub) message: Arc<Message>,
    pub(in crate::hub) key: Option<Box<str>>,
}

/// The messages to write, oldest first.
#[derive(Debug, Default)]
pub(in crate::hub) struct Queue {
    pub(super) list: VecDeque<Unwritten>,
    bytes: usize,
    /// Messages were dropped from the queue. They are only in the history.
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
