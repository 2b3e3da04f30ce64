//! An ordinary answer, before it is handed to hyper or written as bytes.

use std::sync::Arc;

use bytes::Bytes;
use comet_proto::{Cursor, Message};
use hyper::{
    Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::transport::Format;

/// An ordinary answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `None`: there is no body to describe.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
    /// Headers that all answers of one kind have.
    pub(crate) usual: &'static UsualHeaders,
    /// Headers of this answer alone.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Headers that all answers of one kind have: their lines as HTTP/1 writes them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsualHeaders(pub(crate) &'static str);

impl UsualHeaders {
    /// The names and values.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let lines = self.0.split_terminator("\r\n");
        lines.map(|line| line.split_once(": ").expect("a line of a header"))
    }
}

/// Headers that keep proxies from buffering, compressing and caching, and browsers from guessing the content type.
pub(crate) const LIVE_HEADERS: &UsualHeaders = &UsualHeaders(
    "cache-control: no-store, no-transform\r\nx-accel-buffering: no\r\nx-content-type-options: nosniff\r\n",
);

impl Answer {
    /// An answer that proxies and browsers must not cache.
    pub(crate) fn new(
        status: StatusCode,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            content_type: Some(content_type),
            body: body.into(),
            ..Self::empty(status)
        }
    }

    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content_type: None,
            body: Bytes::new(),
            usual: LIVE_HEADERS,
            headers: Vec::new(),
        }
    }

    pub(crate) fn json(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, "application/json", body)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds the headers of a subscription's answer with these messages.
    pub(crate) fn with_headers_of(
        mut self,
        format: &dyn Format,
        cursor: Cursor,
        messages: &[Arc<Message>],
    ) -> Self {
        format.headers(cursor, messages, &mut |name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                self.headers.push((HeaderName::from_static(name), value));
            }
        });
        self
    }

    /// Whether answers with this status have a body, though it may be empty.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    }

    /// The answer for hyper.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(value) = self.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        }
        for (name, value) in self.usual.pairs() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

/// The challenge for a token that is invalid or has expired (RFC 6750, section 3).
pub(crate) const INVALID_TOKEN: &str = "Bearer realm=\"comet\", error=\"invalid_token\"";

/// Seconds after which a client may come back whose waiting poll was answered with a 503.
pub(crate) const RETRY: &str = "1";

/// Seconds after which a client may come back to a daemon that has no room.
pub(crate) const BUSY: &str = "5";
