//! Heads and ordinary answers of HTTP/1 as bytes (RFC 9112).

use std::io::Write;

use hyper::StatusCode;

use super::{
    answer::Answer,
    cors::{Cors, Origins, cors_headers},
    date::DateLine,
};

/// The bytes of an ordinary answer.
pub(super) fn whole(
    answer: &Answer,
    close: bool,
    cors: Cors,
    origins: &Origins,
    date: &DateLine,
) -> Vec<u8> {
    let mut out = start_of(answer);
    end(&mut out, close, cors, origins, Some(date));
    out.extend_from_slice(&answer.body);
    out
}

/// The bytes of an answer after which the connection closes. `is_head`: the request is `HEAD`.
pub(super) fn last(answer: &Answer, is_head: bool, cors: Cors, origins: &Origins) -> Vec<u8> {
    let mut out = start_of(answer);
    end(&mut out, true, cors, origins, None);
    if !is_head {
        out.extend_from_slice(&answer.body);
    }
    out
}

/// The head of an answer, up to the headers that every answer on a connection has.
fn start_of(answer: &Answer) -> Vec<u8> {
    let mut out = start(answer.status);
    for (name, value) in answer.lines() {
        line(&mut out, name, value);
    }
    if answer.has_body() {
        content_length(&mut out, answer.body.len());
    }
    out
}

/// Begins a head with this status.
pub(super) fn start(status: StatusCode) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// Appends a header.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

pub(super) fn content_length(out: &mut Vec<u8>, length: usize) {
    let _ = write!(out, "content-length: {length}\r\n"); // writing to a Vec cannot fail
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
