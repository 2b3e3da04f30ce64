//! WebSocket (RFC 6455): one JSON message a text frame; a gap is the frame `{"gap":true,"cursor":"…"}`. What the
//! client says is read for its control frames alone. No extensions, no subprotocols.

use std::{cell::RefCell, io::Cursor as Reader, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use comet_proto::Cursor;
use hyper::{Version, header, http::request::Parts};
use tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{CloseCode, Control, Data, OpCode},
    },
};

use super::{Format, Shape, form, gap_cursor, write_expired, write_gap, write_retry};
use crate::hub::Backlog;

/// Longest frame that a client may send, in bytes; there is nothing for it to say.
const MAX_FRAME: u64 = 64 * 1024;

/// Longest payload of a control frame (section 5.5).
const MAX_CONTROL: u64 = 125;

/// What the close says when the token has expired: of those codes that are ours to give a meaning (section 7.4.2), the
/// one that looks like HTTP's.
const EXPIRED: u16 = 4401;

pub(crate) struct WebSocket {
    accept: Box<str>,
    heartbeat: Duration,
    incoming: RefCell<Incoming>,
}

/// Where the client's bytes stand between two frames.
#[derive(Default)]
struct Incoming {
    /// An incomplete header, or an incomplete control frame.
    partial: Vec<u8>,
    /// Bytes of a data frame that are still to come.
    skip: u64,
}

/// Why a handshake was refused. The text says what is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(
        "a WebSocket needs HTTP/1.1 with the headers Connection: Upgrade and Upgrade: websocket"
    )]
    Upgrade,
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    #[error("Sec-WebSocket-Key must be 16 bytes as base64")]
    Key,
}

impl WebSocket {
    /// Section 4.2.1.
    pub(crate) fn accept(head: &Parts, heartbeat: Duration) -> Result<Self, HandshakeError> {
        let headers = &head.headers;
        if !is_asked_for(head) {
            return Err(HandshakeError::Upgrade);
        }
        if headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|v| v != "13")
        {
            return Err(HandshakeError::Version);
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .map_or(&b""[..], |key| key.as_bytes());
        if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(HandshakeError::Key);
        }
        Ok(Self {
            accept: derive_accept_key(key).into(),
            heartbeat,
            incoming: RefCell::default(),
        })
    }
}

/// The request asks for this protocol (RFC 9110, section 7.8). HTTP/2 has another way, which is not offered.
pub(crate) fn is_asked_for(head: &Parts) -> bool {
    let lists = |name, token: &str| {
        let values = head.headers.get_all(name).iter();
        let mut tokens = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        tokens.any(|one| one.trim().eq_ignore_ascii_case(token))
    };
    head.version == Version::HTTP_11
        && lists(header::UPGRADE, "websocket")
        && lists(header::CONNECTION, "upgrade")
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

    fn upgrade(&self) -> Option<&str> {
        Some(&self.accept)
    }

    fn backlog(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        let mut json = Vec::new();
        if backlog.gap {
            write_gap(gap_cursor(backlog), &mut json);
            write_frame(OpCode::Data(Data::Text), &json, out);
        }
        for message in &backlog.messages {
            json.clear();
            message.write_json(&mut json);
            write_frame(OpCode::Data(Data::Text), &json, out);
        }
    }

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) {
        write_frame(OpCode::Control(Control::Ping), b"", out);
    }

    /// "Going away": clients come back. The close's reason says when.
    fn farewell(&self, backlog: &Backlog, retry: Duration, out: &mut Vec<u8>) -> u16 {
        self.backlog(backlog, out);
        let mut close = u16::from(CloseCode::Away).to_be_bytes().to_vec();
        write_retry(retry, &mut close);
        write_frame(OpCode::Control(Control::Close), &close, out);
        200
    }

    fn expired(&self, cursor: Cursor, out: &mut Vec<u8>) -> u16 {
        let mut json = Vec::new();
        write_expired(cursor, &mut json);
        write_frame(OpCode::Data(Data::Text), &json, out);
        write_close(CloseCode::Library(EXPIRED), out);
        200
    }

    fn input(&self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut incoming = self.incoming.borrow_mut();
        let goes_on = match incoming.take(bytes, out) {
            Ok(goes_on) => goes_on,
            Err(code) => {
                write_close(code, out);
                false
            }
        };
        if incoming.partial.is_empty() {
            incoming.partial = Vec::new(); // most clients never say anything again
        }
        goes_on
    }

    fn form(&self) -> Option<u8> {
        Some(form::WEBSOCKET)
    }
}

impl Incoming {
    /// Reads frames, and answers pings and the close. False: the client closed.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, CloseCode> {
        self.partial.extend_from_slice(bytes);
        loop {
            let skipped = self
                .partial
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.partial.drain(..skipped);
            self.skip -= skipped as u64;
            let mut reader = Reader::new(&self.partial);
            let Some((header, length)) =
                FrameHeader::parse(&mut reader).map_err(|_| CloseCode::Protocol)?
            else {
                return Ok(true);
            };
            let start = usize::try_from(reader.position()).unwrap_or(usize::MAX);
            // Sections 5.1 and 5.2: clients mask, and no extension was agreed on.
            let (Some(mask), false) = (header.mask, header.rsv1 || header.rsv2 || header.rsv3)
            else {
                return Err(CloseCode::Protocol);
            };
            match header.opcode {
                OpCode::Data(_) if length > MAX_FRAME => return Err(CloseCode::Size),
                OpCode::Data(_) => {
                    self.partial.drain(..start);
                    self.skip = length;
                }
                OpCode::Control(_) if length > MAX_CONTROL || !header.is_final => {
                    return Err(CloseCode::Protocol);
                }
                OpCode::Control(control) => {
                    let end = start + usize::try_from(length).unwrap_or(usize::MAX);
                    if self.partial.len() < end {
                        return Ok(true);
                    }
                    let masked: Vec<u8> = self.partial.drain(..end).skip(start).collect();
                    let payload: Vec<u8> = masked
                        .iter()
                        .zip(mask.iter().cycle())
                        .map(|(byte, mask)| byte ^ mask)
                        .collect();
                    match control {
                        Control::Ping => write_frame(OpCode::Control(Control::Pong), &payload, out),
                        Control::Pong => {}
                        Control::Close => {
                            write_frame(OpCode::Control(Control::Close), &payload, out);
                            return Ok(false);
                        }
                        Control::Reserved(_) => return Err(CloseCode::Protocol),
                    }
                }
            }
        }
    }
}

fn write_close(code: CloseCode, out: &mut Vec<u8>) {
    write_frame(
        OpCode::Control(Control::Close),
        &u16::from(code).to_be_bytes(),
        out,
    );
}

fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode,
        mask: None,
    };
    header
        .format(payload.len() as u64, out)
        .expect("a Vec takes it");
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        frame.extend(
            payload
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        frame
    }

    fn answer(chunks: &[&[u8]]) -> (Result<bool, CloseCode>, Vec<u8>) {
        let (mut incoming, mut out) = (Incoming::default(), Vec::new());
        let mut last = Ok(true);
        for chunk in chunks {
            last = incoming.take(chunk, &mut out);
        }
        (last, out)
    }

    #[test]
    fn answers_control_frames_between_data_however_they_are_cut() {
        let mut bytes = masked(0x81, b"hello");
        bytes.extend(masked(0x89, b"ping"));
        bytes.extend(masked(0x82, &[7; 100]));
        bytes.extend(masked(0x88, &[3, 232]));
        let expected = b"\x8a\x04ping\x88\x02\x03\xe8".to_vec();
        assert_eq!(answer(&[&bytes]), (Ok(false), expected.clone()));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(answer(&single), (Ok(false), expected));
    }

    #[test]
    fn refuses_what_breaks_the_protocol() {
        let mut unmasked = masked(0x81, b"x");
        unmasked[1] &= 0x7f;
        let large = [0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4];
        let long_ping = [0x89, 0xfe, 0, 126, 1, 2, 3, 4];
        let cases: [(&[u8], CloseCode); 5] = [
            (&unmasked, CloseCode::Protocol),
            (&masked(0xc1, b"x"), CloseCode::Protocol),
            (&masked(0x09, b"x"), CloseCode::Protocol),
            (&large, CloseCode::Size),
            (&long_ping, CloseCode::Protocol),
        ];
        for (bytes, code) in cases {
            assert_eq!(answer(&[bytes]).0, Err(code), "{bytes:?}");
        }
    }
}
