//! Reads a history in parts, for a client that reads slowly.
//!
//! Between two parts no message is kept for the client. If the history drops messages in the meantime, they are missing in the
//! next part, and a gap is reported.

use std::sync::Arc;

use comet_proto::{ChannelName, Cursor, Message};

use super::Hub;

/// A reading of the messages after a cursor, up to the last id at the time when the reading began.
pub struct Reading {
    cursor: Cursor,
    end: Option<Cursor>,
    /// For each channel the id up to which its messages were gone when the reading began.
    gone: Vec<u64>,
    gap: bool,
}

impl Reading {
    pub fn after(cursor: Cursor) -> Self {
        Self {
            cursor,
            end: None,
            gone: Vec::new(),
            gap: false,
        }
    }

    /// Whether messages may be missing in the parts that were read so far.
    pub fn gap(&self) -> bool {
        self.gap
    }

    /// The last id that belongs to the reading. `None` before the first part.
    pub fn end(&self) -> Cursor {
        self.end.unwrap_or_default()
    }

    /// The next messages, in the order of their ids: at most `bytes`; a larger message comes alone. After the last message the
    /// list is empty.
    pub fn next(&mut self, hub: &Hub, channels: &[ChannelName], bytes: usize) -> Vec<Arc<Message>> {
        if self.end.is_some_and(|end| self.cursor >= end) {
            return Vec::new();
        }
        let (backlog, gone, last) = hub.read_with_gone(channels, self.cursor);
        let end = *self.end.get_or_insert(last);
        if self.gone.is_empty() {
            self.gap = backlog.gap;
            self.gone = gone;
        } else {
            // The cursor is a message of one channel. Another channel may have dropped older messages long before.
            let mut pairs = gone.iter().zip(&self.gone);
            self.gap |= pairs.any(|(now, begun)| now > begun && *now > self.cursor.0);
        }
        let mut backlog = hub.keep_before_delivery(backlog);
        backlog.cut(bytes);
        self.cursor = if backlog.more { backlog.cursor } else { end };
        backlog.messages.retain(|message| message.id <= end.0);
        backlog.messages
    }
}
