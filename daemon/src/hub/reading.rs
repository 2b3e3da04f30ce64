//! Reading a history in parts, for somebody who takes them slowly.
//!
//! Between two parts nothing is held: messages that the history drops meanwhile are gone, and are told as a gap.

use std::sync::Arc;

use comet_proto::{ChannelName, Cursor, Message};

use super::Hub;

/// What channels keep after a cursor, up to what was published last when the reading began.
pub struct Reading {
    cursor: Cursor,
    end: Option<Cursor>,
    /// For each channel, up to where its messages were gone when the reading began.
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

    /// Messages may be missing from what was read so far.
    pub fn gap(&self) -> bool {
        self.gap
    }

    /// The last id that belongs to the reading, once it has begun.
    pub fn end(&self) -> Cursor {
        self.end.unwrap_or_default()
    }

    /// The next messages, in the order of their ids: at most `bytes`, or one message. Nothing: that was all.
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
            // The cursor is a message of one channel. Another channel may have lost older ones long before.
            let mut pairs = gone.iter().zip(&self.gone);
            self.gap |= pairs.any(|(now, begun)| now > begun && *now > self.cursor.0);
        }
        let mut backlog = hub.keep_before_telling(backlog);
        backlog.cut(bytes);
        self.cursor = if backlog.more { backlog.cursor } else { end };
        backlog.messages.retain(|message| message.id <= end.0);
        backlog.messages
    }
}
