//! A WebSocket whose client also publishes: each text of the client is a message to all channels that it reads.

use std::sync::Arc;

use comet_proto::{ChannelName, ChannelNames, Cursor, Since};
use tungstenite::protocol::frame::coding::CloseCode;

use super::render::{Templates, write_message};
use crate::{
    hub::Backlog,
    session::{
        Publication, Session,
        dialect::{Close, Dialect, DialectKind, Frames, Heard, SessionEnd, SessionForm},
    },
};

/// The longest text of a refusal: a close frame has at most 125 bytes (RFC 6455, section 5.5).
const MAX_EXPLAINED: usize = 80;

/// The dialect of such a WebSocket.
pub(super) struct PublishingWebSocket {
    pub(super) templates: Arc<Templates>,
    /// The channels, and for each of them the cursor after which it begins.
    pub(super) channels: Vec<(ChannelName, Cursor)>,
}

impl PublishingWebSocket {
    fn names(&self) -> ChannelNames {
        let names = self.channels.iter().map(|(name, _)| &**name);
        ChannelNames::parse(names).expect("1 to 100 channels, as in the request")
    }
}

impl Dialect for PublishingWebSocket {
    fn kind(&self) -> DialectKind {
        DialectKind {
            form: Some(SessionForm::PushStream),
            sends_close: true,
        }
    }

    fn open(&mut self, session: &mut Session, _: &mut Frames) -> Result<(), Close> {
        for (channel, start) in &self.channels {
            let permission = session
                .may_read(channel.clone().into())
                .map_err(|refusal| refused(refusal.message()))?;
            session
                .subscribe(&permission, Some(Since::Id(*start)))
                .map_err(|error| refused(&error.to_string()))?;
        }
        Ok(())
    }

    /// The original server ignores a client that may not publish. Here the connection ends with the reason.
    fn hear(&mut self, text: &str, session: &mut Session, _: &mut Frames) -> Result<Heard, Close> {
        if text.is_empty() {
            return Ok(Heard::Done);
        }
        let permission = session
            .may_publish(self.names())
            .map_err(|refusal| refused(refusal.message()))?;
        let message = Publication {
            data: text.as_bytes(),
            ..Publication::default()
        };
        let receipt = session.publish(permission, message);
        // The protocol has no answer to a publish.
        Ok(Heard::Published(receipt, Box::new(|_, _| {})))
    }

    fn tell(&self, backlog: &Backlog, out: &mut Frames) {
        for message in &backlog.messages {
            let mut text = Vec::new();
            write_message(
                &self.templates.message,
                message,
                &backlog.readable,
                &mut text,
            );
            out.text(String::from_utf8_lossy(&text).as_bytes());
        }
    }

    fn end(&self, end: SessionEnd, _: &Session, _: &mut Frames) -> Close {
        Close::code(match end {
            SessionEnd::Reconnect(_) => CloseCode::Away,
            SessionEnd::Expired => CloseCode::Policy,
            SessionEnd::HalfClosed => CloseCode::Normal,
        })
    }
}

/// The end of a connection whose client may not do what it wants, as the original server writes it.
fn refused(reason: &str) -> Close {
    let plain = |c: char| {
        if matches!(c, ' '..='~') && !"\"\\".contains(c) {
            c
        } else {
            '\''
        }
    };
    let reason: String = reason.chars().map(plain).take(MAX_EXPLAINED).collect();
    let reason = format!("{{\"http_status\": 403, \"explain\":\"{reason}\"}}");
    Close::Frame(CloseCode::Policy.into(), reason.into())
}
