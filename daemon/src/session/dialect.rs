//! The interface between a session and the protocol that its client speaks.

use std::{borrow::Cow, time::Duration};

use comet_proto::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use super::Session;
use crate::{
    broker::{NotKept, Receipt},
    hub::Backlog,
    transport::frames,
};

/// A protocol of sessions: turns the client's texts into calls of the [`Session`], and messages into texts.
pub(crate) trait Dialect: 'static {
    /// The facts about this dialect, or about this client of it.
    fn kind(&self) -> DialectKind;

    /// Appends what the client gets first.
    ///
    /// # Errors
    /// The connection ends in this way.
    fn open(&mut self, _session: &mut Session, _out: &mut Frames) -> Result<(), Close> {
        Ok(())
    }

    /// Handles a text of the client: calls the session, and appends the answers.
    ///
    /// # Errors
    /// The connection ends in this way, after the answers.
    fn hear(&mut self, text: &str, session: &mut Session, out: &mut Frames)
    -> Result<Heard, Close>;

    /// Appends new messages of the client's channels, and a gap. The bytes may depend on the backlog and
    /// [`DialectKind::form`] only, unless the form is `None`.
    fn tell(&self, backlog: &Backlog, out: &mut Frames);

    /// Whether this client must not get this message, although it reads the channel.
    fn withholds(&self, _message: &Message) -> bool {
        false
    }

    /// Whether one of these messages ends the connection. The messages are sent before.
    fn ends_at(&self, _backlog: &Backlog) -> Option<Close> {
        None
    }

    /// Appends the heartbeat, which is due when the client has got nothing for some time.
    fn heartbeat(&self, out: &mut Frames) {
        out.ping();
    }

    /// Appends the last texts, and says how the connection ends. The client has got its last messages before.
    fn end(&self, end: SessionEnd, session: &Session, out: &mut Frames) -> Close;

    /// Called last, however the connection has ended.
    fn closed(&mut self, _session: &Session) {}
}

/// The facts about a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DialectKind {
    /// Set if [`Dialect::tell`] depends only on the backlog. A backlog is rendered once for all sessions with the same form.
    pub(crate) form: Option<SessionForm>,
    /// Whether close frames are sent, also as the answer to one of the client. Some clients reconnect only after an end
    /// without one.
    pub(crate) sends_close: bool,
}

/// The dialects whose bytes depend only on the backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SessionForm {
    Comet = 1,
    /// comet-server.ru's pages.
    CometServer,
    /// The same, for scripts older than version 4.
    OldCometServer,
    Pusher,
    PushStream,
}

impl SessionForm {
    /// The number under which rendered bytes are found. No format of a subscription has such a number.
    pub(super) fn number(self) -> u32 {
        1 << 31 | self as u32
    }
}

/// What follows after a text of the client.
pub(crate) enum Heard {
    /// The answers are appended.
    Done,
    /// The client has published a message. The function appends the answer, when the outcome is known. Until then no other
    /// text is read.
    Published(Receipt, Acknowledge),
}

/// Appends the answer to a publish.
pub(crate) type Acknowledge = Box<dyn FnOnce(Result<u64, NotKept>, &mut Frames)>;

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The daemon stops, or new settings have ended the rights. The client should reconnect after this time.
    Reconnect(Duration),
    /// The token has expired by which the client reads a channel.
    Expired,
    /// The client has closed its sending side.
    HalfClosed,
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Close {
    /// With a close frame that has this code and this reason (RFC 6455, section 7.4).
    Frame(u16, Cow<'static, str>),
    /// Without a close frame. Browsers report such an end as not clean.
    NoFrame,
}

impl Close {
    pub(crate) fn code(code: CloseCode) -> Self {
        Self::Frame(code.into(), "".into())
    }
}

/// The frames for a client.
#[derive(Default)]
pub(crate) struct Frames(Vec<u8>);

impl From<Vec<u8>> for Frames {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Frames {
    /// Appends a text as one frame.
    pub(crate) fn text(&mut self, text: &[u8]) {
        frames::write(frames::TEXT, text, &mut self.0);
    }

    pub(crate) fn ping(&mut self) {
        frames::write(frames::PING, b"", &mut self.0);
    }

    pub(super) fn pong(&mut self, payload: &[u8]) {
        frames::write(frames::PONG, payload, &mut self.0);
    }

    pub(super) fn close(&mut self, close: &Close) {
        if let Close::Frame(code, reason) = close {
            let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
            frames::write(frames::CLOSE, &payload, &mut self.0);
        }
    }

    /// Appends the answer to the client's close frame, which has this payload.
    pub(super) fn return_close(&mut self, payload: &[u8]) {
        frames::write(frames::CLOSE, payload, &mut self.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
