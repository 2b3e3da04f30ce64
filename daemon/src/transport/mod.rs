//! The formats in which subscriptions are sent to clients. Each transport is one file with a [`Format`], which turns messages
//! into bytes. Waiting, writing and limits are the same for all formats and are implemented elsewhere (`http`, `connection`).

pub(crate) mod frames;
pub(crate) mod iframe;
pub(crate) mod longpoll;
pub(crate) mod sse;
#[cfg(test)]
mod tests;
pub(crate) mod websocket;

use std::{
    ops::{Deref, DerefMut},
    slice,
    sync::Arc,
    time::Duration,
};

use comet_proto::{ChannelName, Cursor, Message};

use crate::hub::Backlog;
use websocket::Handshake;

/// The transports, as clients name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    LongPoll,
    Sse,
    Iframe,
    WebSocket,
}

impl Transport {
    /// All names, for error messages.
    pub(crate) const NAMES: &str = "poll, sse, iframe, websocket";

    /// Parses the name of a transport. `None`: there is no such transport.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "poll" => Self::LongPoll,
            "sse" => Self::Sse,
            "iframe" => Self::Iframe,
            "websocket" => Self::WebSocket,
            _ => return None,
        })
    }
}

/// What a client subscribes to, and in which format.
pub(crate) struct Subscription {
    /// A stream without channels has only heartbeats.
    pub(crate) channels: Channels,
    /// The last id that the client has seen. `None`: the subscription begins now.
    pub(crate) since: Option<Cursor>,
    /// After this time a poll is answered without messages. `None`: never.
    pub(crate) wait: Option<Duration>,
    pub(crate) format: Box<dyn Format>,
    /// Set if the subscription is carried by a WebSocket and not by an HTTP answer.
    pub(crate) handshake: Option<Box<Handshake>>,
    /// The time at which the token expires, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// Whether the subscription begins later than the client has asked. This gap is reported to the client before it waits,
    /// or with the next message if the format postpones gaps.
    pub(crate) gap: bool,
}

/// The channels of a subscription. Nearly always there is one, which needs no allocation.
#[derive(Debug)]
pub(crate) enum Channels {
    One(ChannelName),
    Many(Box<[ChannelName]>),
}

impl From<Vec<ChannelName>> for Channels {
    fn from(mut names: Vec<ChannelName>) -> Self {
        match names.len() {
            1 => Self::One(names.remove(0)),
            _ => Self::Many(names.into()),
        }
    }
}

impl Deref for Channels {
    type Target = [ChannelName];

    fn deref(&self) -> &[ChannelName] {
        match self {
            Self::One(name) => slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

impl DerefMut for Channels {
    fn deref_mut(&mut self) -> &mut [ChannelName] {
        match self {
            Self::One(name) => slice::from_mut(name),
            Self::Many(names) => names,
        }
    }
}

/// The facts about a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) shape: Shape,
    /// Whether the protocol can report a gap only together with a message. Such a gap is reported with the next message.
    pub(crate) postpones_gap: bool,
    /// Set if the bytes depend only on the backlog. A backlog is rendered once for all subscribers with the same form.
    pub(crate) form: Option<Form>,
}

impl Kind {
    pub(crate) fn is_poll(&self) -> bool {
        self.shape == Shape::Poll
    }
}

/// A poll or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One answer, with the first messages or, when the wait is over, with none.
    Poll,
    /// A stream, with regular heartbeats.
    Stream { heartbeat: Duration },
}

/// The formats whose bytes depend only on the backlog. The number is a part of the key under which rendered bytes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Form {
    LongPoll = 1,
    Sse,
    NovComet,
    Chat,
    WebSocket,
    Realplexor,
    PushStreamPoll,
    PushStreamStreaming,
    PushStreamEventSource,
    PushStreamWebSocket,
    NchanPoll,
    NchanEvents,
    NchanFrames,
    NchanFramesWithMeta,
}

/// Why a subscription ends, and what its last bytes may contain.
#[derive(Debug)]
pub(crate) enum End<'a> {
    /// The daemon stops, or new settings have ended the right to the subscription. The client gets the remaining
    /// messages and should reconnect after `retry`.
    Reconnect {
        backlog: &'a Backlog,
        retry: Duration,
    },
    /// The client has closed its sending side. The client may have disconnected or may still read, so it gets the remaining
    /// messages at once.
    HalfClosed { backlog: &'a Backlog },
    /// The client's token has expired. The client gets no message after `cursor`.
    Expired { cursor: Cursor },
}

impl End<'_> {
    /// The messages that the client still gets.
    pub(crate) fn messages(&self) -> &[Arc<Message>] {
        match self {
            Self::Reconnect { backlog, .. } | Self::HalfClosed { backlog } => &backlog.messages,
            Self::Expired { .. } => &[],
        }
    }

    /// The cursor with which the client can come back.
    pub(crate) fn cursor(&self) -> Cursor {
        match self {
            Self::Reconnect { backlog, .. } | Self::HalfClosed { backlog } => backlog.cursor,
            Self::Expired { cursor } => *cursor,
        }
    }
}

/// The status of a poll's answer. A stream has sent its status before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    /// There is no message. The answer has no body.
    NotModified,
    /// The client's token has expired.
    Unauthorized,
    /// The wait is over.
    TimedOut,
    /// The channel was deleted.
    Gone,
    /// There is no message, and the protocol has no answer without one. The client should ask again soon.
    Unavailable,
}

/// Adds a header: its name in lower case, and its value. A value that a header may not have is left out.
pub(crate) type AddHeader<'a> = &'a mut dyn FnMut(&'static str, &[u8]);

/// Turns messages into the bytes of one protocol.
pub(crate) trait Format {
    fn kind(&self) -> Kind;

    /// Called once, when a connection begins to hold the subscription.
    fn begin(&self) {}

    /// Adds the headers that an answer of this format has, beside those of every answer. `messages` are those of a poll's answer,
    /// which has read up to `cursor`. The answer of a stream begins before its messages.
    fn headers(&self, cursor: Cursor, messages: &[Arc<Message>], add: AddHeader<'_>);

    /// Appends the beginning of a stream, which starts at `cursor`.
    fn opening(&self, _cursor: Cursor, _out: &mut Vec<u8>) {}

    /// Appends the body of a poll's answer, or the piece of a stream, that carries a backlog with messages or a gap.
    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>);

    /// Appends the body of a poll's answer when its wait is over, or a stream's heartbeat.
    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status;

    /// Appends the last bytes of a subscription to `channel`, which was deleted. `None`: the protocol has no word for this,
    /// and the subscription goes on.
    fn deleted(
        &self,
        _channel: &ChannelName,
        _cursor: Cursor,
        _out: &mut Vec<u8>,
    ) -> Option<Status> {
        None
    }

    /// Appends the last bytes of a subscription.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status;
}

/// Appends the answer to a poll whose token has expired, and returns its status.
pub(crate) fn write_token_expired(cursor: Cursor, out: &mut Vec<u8>) -> Status {
    let text = format!(
        "{{\"error\":\"token_expired\",\"message\":\"the token has expired; come back with a new one\",\"cursor\":\"{cursor}\"}}"
    );
    out.extend_from_slice(text.as_bytes());
    Status::Unauthorized
}

/// Appends JSON in a form that may stand in an HTML `<script>`. The characters `<`, U+2028 and U+2029 are written as escapes:
/// `<` could end the script, and the other two end a line in older JavaScript. In JSON all three occur only in strings.
pub(crate) fn write_script_safe(json: &[u8], out: &mut Vec<u8>) {
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        let (escape, taken): (&[u8], usize) = match rest {
            [b'<', ..] => (b"\\u003c", 1),
            [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
            _ => {
                out.push(byte);
                rest = after;
                continue;
            }
        };
        out.extend_from_slice(escape);
        rest = &rest[taken..];
    }
}

/// Appends `{"gap":true,"cursor":"…"}`: messages before `cursor` may be gone.
pub(crate) fn write_gap(cursor: Cursor, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"gap\":true,\"cursor\":\"{cursor}\"}}").as_bytes());
}

/// Appends `{"retry":…}`: the stream ends, and the client should reconnect after this many milliseconds.
pub(crate) fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"retry\":{}}}", retry.as_millis()).as_bytes());
}

/// Appends `{"expired":true,"cursor":"…"}`: the token has expired, and the client needs a new one.
pub(crate) fn write_expired(cursor: Cursor, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"expired\":true,\"cursor\":\"{cursor}\"}}").as_bytes());
}

/// The cursor of a client to which the gap was reported and that has not read the messages after the gap.
pub(crate) fn gap_cursor(backlog: &Backlog) -> Cursor {
    backlog
        .messages
        .first()
        .map_or(backlog.cursor, |first| Cursor(first.id - 1))
}
