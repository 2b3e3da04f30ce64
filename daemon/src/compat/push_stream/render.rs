//! Messages as bytes: the templates of the settings, filled with the values of a message.

use std::borrow::Cow;

use comet_proto::{ChannelName, Cursor, Message};

use super::template::{Template, Values};
use crate::{
    compat::{http_push, names},
    config::PushStreamConfig,
};

/// The attribute with the publisher's `Event-Id`.
pub(super) const EVENT_ID: &str = "event-id";

/// The ids of notices that are no messages of a publisher.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    /// pushstream.js does not show it to the page.
    Heartbeat = -1,
    /// pushstream.js calls the page's `onchanneldeleted`.
    Deleted = -2,
}

/// The templates of the settings, parsed.
pub(super) struct Templates {
    /// For long-polls, EventSource and WebSockets.
    pub(super) message: Template,
    /// For streams.
    pub(super) stream_message: Template,
    pub(super) stream_header: String,
    pub(super) stream_footer: String,
}

impl Templates {
    pub(super) fn new(config: &PushStreamConfig) -> Self {
        let template = |text: &str| Template::parse(text, config.readers_decode);
        Self {
            message: template(&config.message),
            stream_message: template(&config.stream_message),
            stream_header: config.stream_header.clone(),
            stream_footer: config.stream_footer.clone(),
        }
    }

    /// The notice that a channel was deleted, for all modes but streaming.
    pub(super) fn deleted(&self, channel: &ChannelName, cursor: Cursor) -> Vec<u8> {
        let mut out = Vec::new();
        let notice = Notice::Deleted;
        write_notice(&self.message, notice, Some(channel), cursor, &mut out);
        out
    }
}

/// Appends a message, for a reader of the channels `readable` (see [`Message::visible`]).
pub(super) fn write_message(
    template: &Template,
    message: &Message,
    readable: &[ChannelName],
    out: &mut Vec<u8>,
) {
    let cursor = Cursor(message.id);
    let values = Values {
        id: i64::try_from(message.id).unwrap_or(i64::MAX),
        channel: &channel(message, readable),
        text: &message.data,
        time: &http_push::date(cursor),
        tag: http_push::tag(cursor),
        event_id: http_push::attribute(message, EVENT_ID).unwrap_or_default(),
        event_type: message.name.as_str(),
    };
    template.write(&values, out);
}

/// Appends a notice in the template. A heartbeat has no channel.
pub(super) fn write_notice(
    template: &Template,
    notice: Notice,
    channel: Option<&ChannelName>,
    cursor: Cursor,
    out: &mut Vec<u8>,
) {
    let channel = channel.map_or(Cow::Borrowed(&b""[..]), names::foreign_of);
    let text: &[u8] = match notice {
        Notice::Heartbeat => b"",
        Notice::Deleted => b"Channel deleted",
    };
    let values = Values {
        id: notice as i64,
        channel: &channel,
        text,
        time: &http_push::date(cursor),
        tag: http_push::tag(cursor),
        event_id: "",
        event_type: "",
    };
    template.write(&values, out);
}

/// The foreign name of the message's first channel that the reader may see.
fn channel<'a>(message: &'a Message, readable: &'a [ChannelName]) -> Cow<'a, [u8]> {
    let Some(channel) = message.visible(readable).next() else {
        return Cow::Borrowed(b"");
    };
    let hashed = names::is_hashed(channel)
        .then(|| http_push::attribute(message, names::FOREIGN_NAME))
        .flatten();
    hashed.map_or_else(|| names::foreign_of(channel), |name| name.as_bytes().into())
}
