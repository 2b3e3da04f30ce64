//! How a subscription looks on the wire. A transport is one file here that implements [`Format`], and one line
//! in `http/router.rs` that asks for it; connections, waiting and limits are the same for all.

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

/// What a client asked to be told.
pub(crate) struct Subscription {
    /// None at all is a stream of heartbeats.
    pub(crate) channels: Channels,
    /// What it saw last; `None`: from now on.
    pub(crate) since: Option<Cursor>,
    /// A poll is answered without messages after so long; `None`: never.
    pub(crate) wait: Option<Duration>,
    pub(crate) format: Box<dyn Format>,
    /// When the right to it ends, in seconds since 1970.
    pub(crate) expires: Option<u64>,
    /// It begins later than the client said: that is told first.
    pub(crate) gap: bool,
}

/// The channels of a subscription. Nearly always it is one, which needs no allocation.
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

/// One answer, or one that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One answer, with the first messages or, when the wait is over, with none.
    Poll,
    /// A stream, with a sign of life every so often.
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

    /// Appends the body of the answer when the wait is over, or a stream's sign of life.
    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>);

    /// Appends what a stream begins with; `cursor` is where it begins.
    fn opening(&self, _cursor: Cursor, _out: &mut Vec<u8>) {}

    /// Appends what a waiting client gets when the daemon stops: what there is still, and when to come back, as far
    /// as the protocol can say so. Returns the status for it (a stream has sent its status before).
    fn farewell(&self, backlog: &Backlog, _retry: Duration, out: &mut Vec<u8>) -> u16 {
        if backlog.is_news() {
            self.backlog(backlog, out);
        } else {
            self.nothing(backlog.cursor, out);
        }
        200
    }

    /// Appends what a waiting client gets that has closed its sending side: what there is, and its cursor. Whether such
    /// a client still reads cannot be known, so nothing makes it wait. Returns the status; ends a stream.
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

    /// Appends what a waiting client gets when its right to wait ends, and returns the status for it.
    fn expired(&self, cursor: Cursor, out: &mut Vec<u8>) -> u16 {
        let text = format!(
            "{{\"error\":\"token_expired\",\"message\":\"the token has expired; come back with a new one\",\"cursor\":\"{cursor}\"}}"
        );
        out.extend_from_slice(text.as_bytes());
        401
    }

    /// The protocol has no words for a gap alone. True: the format has noted it and tells it with the next message, and the
    /// client waits on.
    fn postpones_gap(&self) -> bool {
        false
    }

    /// Numbers the formats whose bytes depend on the backlog alone, so that they are made once for all.
    fn form(&self) -> Option<u8> {
        None
    }

    /// A stream in another protocol than HTTP: what the answer to the handshake says.
    fn upgrade(&self) -> Option<Upgrade<'_>> {
        None
    }

    /// Takes what the client sends on an upgraded stream, and appends what it gets for it. False: the stream
    /// ends after that.
    fn input(&self, _bytes: &[u8], _out: &mut Vec<u8>) -> bool {
        true
    }

    /// The answer carries its cursor as an entity tag.
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

/// Appends `{"retry":…}`: the daemon stops, and the client should come back after so many milliseconds.
pub(crate) fn write_retry(retry: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"retry\":{}}}", retry.as_millis()).as_bytes());
}

/// Appends `{"expired":true,"cursor":"…"}`: the end, for whoever has no newer token.
pub(crate) fn write_expired(cursor: Cursor, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"expired\":true,\"cursor\":\"{cursor}\"}}").as_bytes());
}

/// The cursor of a client that knows of the gap but has not seen the messages that follow it.
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
