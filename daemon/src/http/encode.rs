//! Heads and ordinary answers of HTTP/1 as bytes (RFC 9112).

use hyper::StatusCode;

use super::{
    answer::Answer,
    cors::{Cors, Origins, cors_headers},
    date::DateLine,
};

/// Appends an ordinary answer.
pub(super) fn whole(
    out: &mut Vec<u8>,
    answer: &Answer,
    close: bool,
    cors: Cors,
    origins: &Origins,
    date: &DateLine,
) {
    start_of(out, answer);
    end(out, close, cors, origins, Some(date));
    out.extend_from_slice(&answer.body);
}

/// The bytes of an answer after which the connection closes. `is_head`: the request is `HEAD`.
pub(super) fn last(answer: &Answer, is_head: bool, cors: Cors, origins: &Origins) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD);
    start_of(&mut out, answer);
    end(&mut out, true, cors, origins, None);
    if !is_head {
        out.extend_from_slice(&answer.body);
    }
    out
}

/// The length in bytes that nearly all heads have at most.
pub(super) const HEAD: usize = 512;

/// Appends the head of an answer, up to the headers that every answer on a connection has.
fn start_of(out: &mut Vec<u8>, answer: &Answer) {
    start(out, answer.status);
    if let Some(media_type) = answer.content_type {
        line(out, "content-type", media_type.as_bytes());
    }
    out.extend_from_slice(answer.usual.0.as_bytes());
    for (name, value) in &answer.headers {
        line(out, name.as_str(), value.as_bytes());
    }
    if answer.has_body() {
        content_length(out, answer.body.len());
    }
}

/// Begins a head with this status.
pub(super) fn start(out: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Appends a header.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

pub(super) fn content_length(out: &mut Vec<u8>, length: usize) {
    line(
        out,
        "content-length",
        itoa::Buffer::new().format(length).as_bytes(),
    );
}

/// The headers that every answer on a connection has, and the end of the head.
pub(super) fn end(
    out: &mut Vec<u8>,
    close: bool,
    cors: Cors,
    origins: &Origins,
    date: Option<&DateLine>,
) {
    for (name, value) in cors_headers(cors, origins) {
        line(out, name, value.as_bytes());
    }
    if close {
        line(out, "connection", b"close");
    }
    if let Some(date) = date {
        date.with(|date| line(out, "date", date.as_bytes()));
    }
    out.extend_from_slice(b"\r\n");
}
