//! WebSocket (RFC 6455): each text frame of the server is one message as JSON, or a gap as `{"gap":true,"cursor":"…"}`. The
//! client only listens: its control frames are answered, and its data is checked and discarded. There are no extensions.

mod client_frames;
mod client_messages;

use std::{sync::Arc, time::Duration};

use comet_proto::{Cursor, Message};
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    AddHeader, End, Form, Format, Kind, Shape, Status,
    frames::{self, write_close},
    gap_cursor, write_expired, write_gap, write_retry,
};
use crate::hub::Backlog;
pub(crate) use client_frames::ClientFrames;
pub(crate) use client_messages::{ClientMessage, ClientMessages};

/// The subprotocol of the daemon's own clients.
pub(crate) const PROTOCOL: &str = "comet";

/// The close code for an expired token. It is one of the codes for private use (section 7.4.2), and resembles the 401 of
/// HTTP.
pub(crate) const EXPIRED: u16 = 4401;

/// The server's part of a handshake (section 4.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// `Sec-WebSocket-Accept`: 20 bytes as base64.
    pub(crate) accept: [u8; 28],
    /// The subprotocol, if the client has offered one. `Sec-WebSocket-Protocol` names it.
    pub(crate) protocol: Option<&'static str>,
}

pub(crate) struct WebSocket {
    pub(crate) heartbeat: Duration,
}

impl Format for WebSocket {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                heartbeat: self.heartbeat,
            },
            postpones_gap: false,
            form: Some(Form::WebSocket),
        }
    }

    /// A WebSocket has no headers of its own.
    fn headers(&self, _: Cursor, _: &[Arc<Message>], _: AddHeader<'_>) {}

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        if backlog.gap {
            write_gap(gap_cursor(backlog), &mut json);
            frames::write(frames::TEXT, &json, out);
        }
        for message in &backlog.messages {
            json.clear();
            message.write_json(&backlog.readable, &mut json);
            frames::write(frames::TEXT, &json, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) -> Status {
        frames::write(frames::PING, b"", out);
        Status::Ok
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        match *end {
            End::Reconnect { backlog, retry } => {
                self.news(backlog, out);
                // After the code "going away" clients come back. The close's reason says when.
                let mut close = u16::from(CloseCode::Away).to_be_bytes().to_vec();
                write_retry(retry, &mut close);
                frames::write(frames::CLOSE, &close, out);
            }
            End::HalfClosed { backlog } => {
                self.news(backlog, out);
                write_close(CloseCode::Normal, out);
            }
            End::Expired { cursor } => {
                let mut json = Vec::new();
                write_expired(cursor, &mut json);
                frames::write(frames::TEXT, &json, out);
                write_close(CloseCode::Library(EXPIRED), out);
            }
        }
        Status::Ok
    }
}
