//! How a subscription looks on the wire. A transport is one file here that implements [`Format`], and one line
//! in `http/router.rs` that asks for it; connections, waiting and limits are the same for all.

pub(crate) mod frames;
pub(crate) mod iframe;
pub(crate) mod longpoll;
pub(crate) mod sse;
pub(crate) mod websocket;

use std::{
    ops::{Deref, DerefMut},
    slice,
    time::Duration,
};

use comet_proto::{ChannelName, Cursor};

use crate::hub::Backlog;

/// A client's subscription.
pub(crate) struct Subscription {
    /// Without channels the stream has only heartbeats.
    pub(crate) channels: Channels,
    /// The last id that the client saw; `None`: from now on.
    pub(crate) since: Option<Cursor>,
    /// After this time a poll is answered without messages; `None`: never.
    pub(crate) wait: Option<Duration>,
    pub(crate) format: Box<dyn Format>,
    /// The time at which the token expires, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// The subscription begins later than the client asked, so a gap comes first.
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

/// A poll or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One answer, with the first messages or, when the wait is over, with none.
    Poll,
    /// A stream, with regular heartbeats.
    Stream { heartbeat: Duration },
}

/// The server's part of a WebSocket's handshake (RFC 6455, section 4.2.2).
pub(crate) struct Upgrade<'a> {
    /// `Sec-WebSocket-Accept`
    pub(crate) accept: &'a str,
    /// `Sec-WebSocket-Protocol`
    pub(crate) protocol: Option<&'static str>,
}

/// Turns messages into the bytes of one protocol.
pub(crate) trait Format {
    fn shape(&self) -> Shape;

    fn content_type(&self) -> &'static str;

    /// Appends the body of the answer, or the piece of the stream, that carries a backlog with messages or a gap.
    fn backlog(&self, backlog: &Backlog, out: &mut Vec<u8>);

    /// Appends the body of the answer when the wait is over, or a stream's heartbeat.
    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>);

    /// Appends the beginning of a stream, which starts at `cursor`.
    fn opening(&self, _cursor: Cursor, _out: &mut Vec<u8>) {}

    /// Appends the last answer when the daemon stops: remaining messages, and when to come back, if the protocol can express
    /// that. Returns its status (a stream has sent its status before).
    fn farewell(&self, backlog: &Backlog, _retry: Duration, out: &mut Vec<u8>) -> u16 {
        if backlog.is_news() {
            self.backlog(backlog, out);
        } else {
            self.nothing(backlog.cursor, out);
        }
        200
    }

    /// Appends the last answer for a waiting client that has closed its sending side: remaining messages, and its cursor. The
    /// client may be gone, so it does not wait any longer. Returns the status; ends a stream.
    fn half_closed(&self, backlog: &Backlog, out: &mut Vec<u8>) -> u16 {
        let is_news = backlog.is_news();
        if is_news {
            self.backlog(backlog, out);
        }
        if !is_news || self.shape() != Shape::Poll {
            self.nothing(backlog.cursor, out);
        }
        200
    }

    /// Appends the last answer when the client's token expires, and returns its status.
    fn expired(&self, cursor: Cursor, out: &mut Vec<u8>) -> u16 {
        let text = format!(
            "{{\"error\":\"token_expired\",\"message\":\"the token has expired; come back with a new one\",\"cursor\":\"{cursor}\"}}"
        );
        out.extend_from_slice(text.as_bytes());
        401
    }

    /// For protocols that cannot express a gap without a message. Returns true if the format reports the gap with the next message,
    /// and the client goes on waiting.
    fn postpones_gap(&self) -> bool {
        false
    }

    /// The number of a format whose bytes depend only on the backlog, so that they are rendered once for all subscribers.
    fn form(&self) -> Option<u8> {
        None
    }

    /// For a stream in another protocol than HTTP: the answer to the handshake.
    fn upgrade(&self) -> Option<Upgrade<'_>> {
        None
    }

    /// Handles bytes from the client on an upgraded stream, and appends the answers. Returns false if the stream ends
    /// after them.
    fn input(&self, _bytes: &[u8], _out: &mut Vec<u8>) -> bool {
        true
    }

    /// Whether the answer has its cursor as an entity tag.
    fn has_etag(&self) -> bool {
        false
    }
}

/// Numbers of [`Format::form`].
pub(crate) mod form {
    pub(crate) const LONGPOLL: u8 = 1;
    pub(crate) const SSE: u8 = 2;
    pub(crate) const NOVCOMET: u8 = 3;
    pub(crate) const CHAT: u8 = 4;
    pub(crate) const WEBSOCKET: u8 = 5;
}

/// Appends JSON so that it may stand in an HTML `<script>`: no `<`, and no U+2028 or U+2029, which end lines in
/// older JavaScript. All three occur in JSON only within strings.
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

/// Appends `{"retry":…}`: the daemon stops, and the client should come back after this many milliseconds.
pub(crate) fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"retry\":{}}}", retry.as_millis()).as_bytes());
}

/// Appends `{"expired":true,"cursor":"…"}`: the token has expired, and the client needs a new one.
pub(crate) fn write_expired(cursor: Cursor, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"expired\":true,\"cursor\":\"{cursor}\"}}").as_bytes());
}

/// The cursor of a client that got the gap, but not the messages after it.
pub(crate) fn gap_cursor(backlog: &Backlog) -> Cursor {
    backlog
        .messages
        .first()
        .map_or(backlog.cursor, |first| Cursor(first.id - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_safe_json_is_the_same_json() {
        let json = "\"</script><!-- \u{2028}\u{2029} é\"";
        let mut out = Vec::new();
        write_script_safe(json.as_bytes(), &mut out);
        assert!(!out.contains(&b'<') && !out.windows(2).any(|w| w == [0xe2, 0x80]));
        let (before, after): (String, String) = (
            serde_json::from_str(json).unwrap(),
            serde_json::from_slice(&out).unwrap(),
        );
        assert_eq!(before, after);
    }
}
