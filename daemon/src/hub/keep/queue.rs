//! The bounded queue of messages and changes that must be written to the log. If the queue overflows, all of them are
//! dropped, and the log is later rewritten from the history.

use std::{collections::VecDeque, sync::Arc};

use comet_proto::Message;

use super::writer;
use crate::{hub::history, store::Record};

/// Maximum number of bytes in the queue while the log cannot be written.
pub(in crate::hub) const MAX_UNWRITTEN: usize = 32 << 20;

/// What is not in the log yet.
#[derive(Debug)]
pub(in crate::hub) enum Unwritten {
    Message(Arc<Message>, Option<Box<str>>),
    /// A change of a channel, which is rare.
    Change(Box<Record<'static>>),
}

/// The bytes for which a change counts.
const CHANGE: usize = 256;

impl Unwritten {
    fn cost(&self) -> usize {
        match self {
            Self::Message(message, _) => history::cost(message),
            Self::Change(_) => CHANGE,
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Message(message, key) => {
                Record::Message(writer::record(message, key.as_deref().unwrap_or_default()))
            }
            Self::Change(record) => (**record).clone(),
        }
    }
}

/// The messages and changes to write, oldest first.
#[derive(Debug, Default)]
pub(in crate::hub) struct Queue {
    pub(super) list: VecDeque<Unwritten>,
    bytes: usize,
    /// Messages were dropped from the queue. They are only in the history.
    pub(super) dropped: bool,
}

impl Queue {
    pub(in crate::hub) fn push(&mut self, unwritten: Unwritten) {
        self.bytes += unwritten.cost();
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
