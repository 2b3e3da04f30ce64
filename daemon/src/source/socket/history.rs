//! The reply to a `history` request. It is read from the hub and written part by part, as fast as the client reads.

use comet_proto::{
    ChannelNames, Cursor,
    line::{self, Reference},
};

use super::{
    line_buffer::CHUNK,
    unwritten::{UnwrittenMessages, Written},
};
use crate::hub::{Hub, Reading};

/// A `history` reply that is being written.
pub(super) struct HistoryReply {
    channels: ChannelNames,
    reading: Reading,
    unwritten: UnwrittenMessages,
    is_begun: bool,
    reference: Option<Reference>,
    /// A comma must be written before the next message.
    has_messages: bool,
}

impl HistoryReply {
    pub(super) fn new(channels: ChannelNames, since: Cursor, reference: Option<Reference>) -> Self {
        Self {
            channels,
            reading: Reading::after(since),
            unwritten: UnwrittenMessages::default(),
            is_begun: false,
            reference,
            has_messages: false,
        }
    }

    /// Appends about one chunk of the reply. True: the reply is complete.
    pub(super) fn write_next(&mut self, hub: &Hub, out: &mut Vec<u8>) -> bool {
        while out.len() < CHUNK {
            if !self.write_some(out) && !self.read(hub, out) {
                line::write_history_end(self.reading.gap(), out);
                return true;
            }
        }
        false
    }

    /// Appends a message or a piece of one. False: everything that was read is written.
    fn write_some(&mut self, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if self.has_messages {
            out.push(b',');
        }
        match self.unwritten.write_next(&self.channels, out) {
            Written::Message => self.has_messages = true,
            Written::Piece => self.has_messages = false, // the rest of this message needs no comma
            Written::Nothing => {
                out.truncate(before);
                return false;
            }
        }
        true
    }

    /// Reads the next messages from the hub. False: there are no more.
    fn read(&mut self, hub: &Hub, out: &mut Vec<u8>) -> bool {
        let messages = self.reading.next(hub, &self.channels, CHUNK);
        if !std::mem::replace(&mut self.is_begun, true) {
            let start = out.len();
            line::write_history_start(self.reading.end(), out);
            if let Some(reference) = self.reference.take() {
                reference.insert(start, out);
            }
        }
        let found = !messages.is_empty();
        self.unwritten = messages.into();
        found
    }
}
