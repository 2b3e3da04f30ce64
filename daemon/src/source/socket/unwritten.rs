//! Messages that a connection is writing: at most one read of the history, and one piece of a large message.

use std::sync::Arc;

use comet_proto::{ChannelName, JsonPieces, Message};

#[derive(Default)]
pub(super) struct UnwrittenMessages {
    messages: std::vec::IntoIter<Arc<Message>>,
    /// The message that is partly written.
    begun: Option<JsonPieces>,
}

/// The result of one write.
#[derive(PartialEq, Eq)]
pub(super) enum Written {
    /// The rest of a message.
    Message,
    /// A part of a message without its end.
    Piece,
    /// There is no message left.
    Nothing,
}

impl From<Vec<Arc<Message>>> for UnwrittenMessages {
    fn from(messages: Vec<Arc<Message>>) -> Self {
        Self {
            messages: messages.into_iter(),
            begun: None,
        }
    }
}

impl UnwrittenMessages {
    /// Drops the messages that are in none of these channels. No message may be partly written.
    pub(super) fn retain(&mut self, channels: &[ChannelName]) {
        let messages = std::mem::take(&mut self.messages);
        let is_wanted =
            |message: &Arc<Message>| message.channels.iter().any(|of| channels.contains(of));
        let wanted = messages.filter(is_wanted);
        self.messages = wanted.collect::<Vec<_>>().into_iter();
    }

    pub(super) fn is_within_message(&self) -> bool {
        self.begun.is_some()
    }

    /// Appends a message, or the next piece of a large one, for a reader of the channels `readable`.
    pub(super) fn write_next(&mut self, readable: &[ChannelName], out: &mut Vec<u8>) -> Written {
        let next = || Some(JsonPieces::new(self.messages.next()?, readable));
        let Some(mut begun) = self.begun.take().or_else(next) else {
            return Written::Nothing;
        };
        if begun.write_next(out) {
            return Written::Message;
        }
        self.begun = Some(begun);
        Written::Piece
    }
}
