//! WebSocket (RFC 6455): one JSON message per text frame; a gap is the frame `{"gap":true,"cursor":"…"}`. The client's frames
//! are checked, its control frames are answered, and its data is discarded. There are no extensions.

mod client_frames;

use std::{cell::RefCell, time::Duration};

use comet_proto::Cursor;
use tungstenite::protocol::frame::coding::CloseCode;

use super::{
    Format, Shape, Upgrade, form,
    frames::{self, write_close},
    gap_cursor, write_expired, write_gap, write_retry,
};
use crate::hub::Backlog;
use client_frames::ClientFrames;

/// The subprotocol of the daemon, for clients that offer subprotocols.
pub(crate) const PROTOCOL: &str = "comet";

/// The close code for an expired token: of the codes for private use (section 7.4.2), the
/// one that resembles HTTP's 401.
const EXPIRED: u16 = 4401;

/// What the answer to a valid handshake contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// `Sec-WebSocket-Accept`: 20 bytes as base64.
    pub(crate) accept: [u8; 28],
    /// The client offered [`PROTOCOL`].
    pub(crate) has_protocol: bool,
}

pub(crate) struct WebSocket {
    heartbeat: Duration,
    agreed: Agreed,
    frames: RefCell<ClientFrames>,
}

impl WebSocket {
    /// A connection whose handshake is valid.
    pub(crate) fn new(agreed: Agreed, heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            agreed,
            frames: RefCell::default(),
        }
    }
}

impl Format for WebSocket {
    fn shape(&self) -> Shape {
        Shape::Stream {
            heartbeat: self.heartbeat,
        }
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn upgrade(&self) -> Option<Upgrade<'_>> {
        let Agreed {
            accept,
            has_protocol,
        } = &self.agreed;
        Some(Upgrade {
            accept: std::str::from_utf8(accept).expect("base64 is ASCII"),
            protocol: has_protocol.then_some(PROTOCOL),
        })
    }

    fn backlog(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        if backlog.gap {
            write_gap(gap_cursor(backlog), &mut json);
            frames::write(frames::TEXT, &json, out);
        }
        for message in &backlog.messages {
            json.clear();
            message.write_json(&mut json);
            frames::write(frames::TEXT, &json, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) {
        frames::write(frames::PING, b"", out);
    }

    /// Closes with the code "going away", after which clients come back. The close's reason says when.
    fn farewell(&self, backlog: &Backlog, retry: Duration, out: &mut Vec<u8>) -> u16 {
        self.backlog(backlog, out);
        let mut close = u16::from(CloseCode::Away).to_be_bytes().to_vec();
        write_retry(retry, &mut close);
        frames::write(frames::CLOSE, &close, out);
        200
    }

    fn half_closed(&self, backlog: &Backlog, out: &mut Vec<u8>) -> u16 {
        self.backlog(backlog, out);
        write_close(CloseCode::Normal, out);
        200
    }

    fn expired(&self, cursor: Cursor, out: &mut Vec<u8>) -> u16 {
        let mut json = Vec::new();
        write_expired(cursor, &mut json);
        frames::write(frames::TEXT, &json, out);
        write_close(CloseCode::Library(EXPIRED), out);
        200
    }

    fn input(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let taken = self.frames.borrow_mut().take(bytes, out);
        taken.unwrap_or_else(|code| {
            write_close(code, out);
            false
        })
    }

    fn form(&self) -> Option<u8> {
        Some(form::WEBSOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_websocket_is_small() {
        let size = size_of::<WebSocket>();
        assert!(size <= 96, "{size} bytes");
    }
}
