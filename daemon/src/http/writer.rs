//! Writes answers as bytes, for connections that have left hyper.

use std::time::Duration;

use bytes::Bytes;
use comet_proto::Cursor;

use super::{
    answer::{INVALID_TOKEN, LIVE_HEADERS, RETRY},
    cors::{Cors, Origins, cors_headers},
    date::DateLine,
    memory,
    site::Current,
};
use crate::{
    hub::Backlog,
    transport::{Format, Shape, Upgrade},
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
        format
            .form()
            .map(|form| u32::from(form) | bits << 8 | cors << 10)
    }
}

/// Writes answers for connections that have left hyper.
pub(crate) struct Writer<'a> {
    pub(crate) format: &'a dyn Format,
    pub(crate) variant: Variant,
    pub(crate) site: Current,
    pub(crate) date: &'a DateLine,
}

impl Writer<'_> {
    /// The whole answer of a poll, or the next piece of a stream.
    pub(crate) fn backlog(&self, backlog: &Backlog) -> Bytes {
        let mut body = Vec::new();
        self.format.backlog(backlog, &mut body);
        self.framed(200, backlog.cursor, body)
    }

    /// The answer of a poll that waited in vain, or a stream's sign of life.
    pub(crate) fn nothing(&self, cursor: Cursor) -> Bytes {
        let mut body = Vec::new();
        self.format.nothing(cursor, &mut body);
        self.framed(200, cursor, body)
    }

    /// What a waiting client gets when the daemon stops; ends a stream.
    pub(crate) fn farewell(&self, backlog: &Backlog, retry: Duration) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.farewell(backlog, retry, &mut body);
        self.ended(status, backlog.cursor, body)
    }

    /// What a waiting client gets when its token expires; ends a stream.
    pub(crate) fn expired(&self, cursor: Cursor) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.expired(cursor, &mut body);
        self.ended(status, cursor, body)
    }

    /// What a waiting client gets that sends nothing any more; ends a stream.
    pub(crate) fn half_closed(&self, backlog: &Backlog) -> Bytes {
        let mut body = Vec::new();
        let status = self.format.half_closed(backlog, &mut body);
        self.ended(status, backlog.cursor, body)
    }

    fn ended(&self, status: u16, cursor: Cursor, body: Vec<u8>) -> Bytes {
        let mut bytes = self.framed(status, cursor, body).to_vec();
        if self.variant.chunked && matches!(self.format.shape(), Shape::Stream { .. }) {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        memory::keep(bytes)
    }

    /// A stream's head and what it begins with.
    pub(crate) fn opening(&self, cursor: Cursor) -> Bytes {
        let mut out = match self.format.upgrade() {
            Some(upgrade) => switching_protocols(&upgrade),
            None => self.head(200, None, None),
        };
        let mut body = Vec::new();
        self.format.opening(cursor, &mut body);
        self.chunk(&body, &mut out);
        out.into()
    }

    fn framed(&self, status: u16, cursor: Cursor, body: Vec<u8>) -> Bytes {
        let mut out = match self.format.shape() {
            Shape::Poll => {
                let mut out = self.head(status, Some(body.len()), Some(cursor));
                out.extend_from_slice(&body);
                return memory::keep(out);
            }
            Shape::Stream { .. } => Vec::with_capacity(body.len() + 16),
        };
        self.chunk(&body, &mut out);
        memory::keep(out)
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

    fn head(&self, status: u16, length: Option<usize>, cursor: Option<Cursor>) -> Vec<u8> {
        let head = AnswerHead {
            status: match status {
                200 => "200 OK",
                401 => UNAUTHORIZED,
                _ => UNAVAILABLE,
            },
            content_type: self.format.content_type(),
            variant: self.variant,
            origins: &self.site.origins,
            date: self.date,
        };
        head.write(length, cursor.filter(|_| self.format.has_etag()))
    }
}

const UNAUTHORIZED: &str = "401 Unauthorized";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// The head of an answer that hyper does not write.
pub(crate) struct AnswerHead<'a> {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) variant: Variant,
    pub(crate) origins: &'a Origins,
    pub(crate) date: &'a DateLine,
}

impl AnswerHead<'_> {
    pub(crate) fn with_body(&self, body: &str) -> Vec<u8> {
        let mut out = self.write(Some(body.len()), None);
        out.extend_from_slice(body.as_bytes());
        out
    }

    /// Without `length` the body is a stream.
    fn write(&self, length: Option<usize>, tag: Option<Cursor>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        for part in ["HTTP/1.1 ", self.status, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        line("content-type", self.content_type);
        for (name, value) in LIVE_HEADERS {
            line(name, value);
        }
        if self.status == UNAUTHORIZED {
            line("www-authenticate", INVALID_TOKEN);
        }
        if self.status == UNAVAILABLE {
            line("retry-after", RETRY);
        }
        if let Some(length) = length {
            line("content-length", &length.to_string());
        } else if self.variant.chunked {
            line("transfer-encoding", "chunked");
        }
        if let Some(cursor) = tag {
            line("etag", &format!("\"{cursor}\""));
        }
        for (name, value) in cors_headers(self.variant.cors, self.origins) {
            line(name, value);
        }
        if self.variant.close {
            line("connection", "close");
        }
        self.date.with(|date| line("date", date));
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// The head that accepts a WebSocket (RFC 6455, section 4.2.2).
fn switching_protocols(upgrade: &Upgrade<'_>) -> Vec<u8> {
    let mut head =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            .to_owned();
    head += &format!("sec-websocket-accept: {}\r\n", upgrade.accept);
    if let Some(protocol) = upgrade.protocol {
        head += &format!("sec-websocket-protocol: {protocol}\r\n");
    }
    head += "\r\n";
    head.into()
}
