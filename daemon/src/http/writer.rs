//! Writes answers as bytes, for connections that have left hyper.

use std::sync::Arc;

use bytes::Bytes;
use comet_proto::{ChannelName, Cursor, Message};
use hyper::{
    StatusCode,
    header::{self, HeaderName},
};

use super::{
    answer::{INVALID_TOKEN, LIVE_HEADERS, RETRY},
    cors::Cors,
    date::DateLine,
    encode::{HEAD, content_length, end, line, start},
    site::Current,
};
use crate::{
    connection::memory,
    hub::Backlog,
    transport::{End, Format, Status, websocket::Handshake},
};

/// How answers to the same question differ between connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The connection closes after the answer.
    pub(crate) close: bool,
    /// HTTP/1.1: a stream is sent in chunks (RFC 9112, section 7.1). Before, it ends with the connection.
    pub(crate) chunked: bool,
    pub(crate) cors: Cors,
}

impl Variant {
    /// Numbers what the bytes of a shared answer depend on.
    pub(crate) fn form(self, format: &dyn Format) -> Option<u32> {
        let cors = match self.cors {
            Cors::None => 0,
            Cors::Any => 1,
            Cors::Origin(index) => 2 + u32::from(index),
        };
        let bits = u32::from(self.close) | u32::from(self.chunked) << 1;
        let form = format.kind().form?;
        Some(form as u32 | bits << 8 | cors << 10)
    }
}

/// Writes answers for connections that have left hyper.
pub(crate) struct SubscriptionWriter<'a> {
    pub(crate) format: &'a dyn Format,
    pub(crate) variant: Variant,
    pub(crate) site: Current,
    pub(crate) date: &'a DateLine,
}

impl SubscriptionWriter<'_> {
    /// The whole answer of a poll, or the next piece of a stream.
    pub(crate) fn news(&self, backlog: &Backlog) -> Bytes {
        let mut body = Vec::new();
        self.format.news(backlog, &mut body);
        memory::keep(self.framed(Status::Ok, backlog.cursor, &backlog.messages, &body))
    }

    /// The answer of a poll whose wait is over, or a stream's heartbeat.
    pub(crate) fn nothing(&self, cursor: Cursor) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.nothing(cursor, &mut body);
        memory::keep(self.framed(status, cursor, &[], &body))
    }

    /// The last bytes of a subscription: the answer of a poll, or the end of a stream.
    pub(crate) fn end(&self, end: &End<'_>) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.end(end, &mut body);
        self.last(status, end.cursor(), end.messages(), &body)
    }

    /// The last bytes of a subscription to `channel`, which was deleted. `None`: the subscription goes on.
    pub(crate) fn deleted(&self, channel: &ChannelName, cursor: Cursor) -> Option<Bytes> {
        let mut body = Vec::new();
        let status = self.format.deleted(channel, cursor, &mut body)?;
        Some(self.last(status, cursor, &[], &body))
    }

    fn last(
        &self,
        status: Status,
        cursor: Cursor,
        messages: &[Arc<Message>],
        body: &[u8],
    ) -> Bytes {
        let mut bytes = self.framed(status, cursor, messages, body);
        if self.variant.chunked && !self.format.kind().is_poll() {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        memory::keep(bytes)
    }

    /// The head of a stream and its first bytes. `handshake`: set if the stream is a WebSocket.
    pub(crate) fn opening(&self, cursor: Cursor, handshake: Option<&Handshake>) -> Bytes {
        let mut out = match handshake {
            Some(handshake) => switching_protocols(handshake),
            None => self.head(Status::Ok, None, cursor, &[]),
        };
        let mut body = Vec::new();
        self.format.opening(cursor, &mut body);
        self.chunk(&body, &mut out);
        out.into()
    }

    fn framed(
        &self,
        status: Status,
        cursor: Cursor,
        messages: &[Arc<Message>],
        body: &[u8],
    ) -> Vec<u8> {
        if self.format.kind().is_poll() {
            let mut out = self.head(status, Some(body.len()), cursor, messages);
            out.extend_from_slice(body);
            return out;
        }
        let mut out = Vec::with_capacity(body.len() + 16);
        self.chunk(body, &mut out);
        out
    }

    fn chunk(&self, body: &[u8], out: &mut Vec<u8>) {
        if self.variant.chunked && !body.is_empty() {
            out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(body); // an empty chunk would end the stream
        }
    }

    /// The head of an answer. Without `length` the body is a stream.
    fn head(
        &self,
        status: Status,
        length: Option<usize>,
        cursor: Cursor,
        messages: &[Arc<Message>],
    ) -> Vec<u8> {
        let status = StatusCode::from(status);
        let mut out = Vec::with_capacity(HEAD);
        start(&mut out, status);
        self.format.headers(cursor, messages, &mut |name, value| {
            if is_header_value(value) {
                line(&mut out, name, value);
            }
        });
        out.extend_from_slice(LIVE_HEADERS.0.as_bytes());
        if let Some((name, value)) = header_of_status(status) {
            line(&mut out, name.as_str(), value.as_bytes());
        }
        if let Some(length) = length {
            if status != StatusCode::NOT_MODIFIED {
                content_length(&mut out, length);
            }
        } else if self.variant.chunked {
            line(&mut out, "transfer-encoding", b"chunked");
        }
        let Variant { close, cors, .. } = self.variant;
        end(&mut out, close, cors, &self.site.origins, Some(self.date));
        out
    }
}

impl From<Status> for StatusCode {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::OK,
            Status::NotModified => Self::NOT_MODIFIED,
            Status::Unauthorized => Self::UNAUTHORIZED,
            Status::Gone => Self::GONE,
            Status::TimedOut => Self::REQUEST_TIMEOUT,
            Status::Unavailable => Self::SERVICE_UNAVAILABLE,
        }
    }
}

/// Whether a header may have this value (RFC 9110, section 5.5).
fn is_header_value(value: &[u8]) -> bool {
    let is_allowed = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    value.iter().all(is_allowed)
}

/// The header that goes with the status of a poll's answer: how to authenticate, or when to come back.
pub(super) fn header_of_status(status: StatusCode) -> Option<(HeaderName, &'static str)> {
    match status {
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, INVALID_TOKEN)),
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY)),
        _ => None,
    }
}

/// The head that accepts a WebSocket (RFC 6455, section 4.2.2).
pub(super) fn switching_protocols(handshake: &Handshake) -> Vec<u8> {
    let mut head =
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            .to_vec();
    head.extend_from_slice(b"sec-websocket-accept: ");
    head.extend_from_slice(&handshake.accept);
    if let Some(protocol) = handshake.protocol {
        head.extend_from_slice(format!("\r\nsec-websocket-protocol: {protocol}").as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}
