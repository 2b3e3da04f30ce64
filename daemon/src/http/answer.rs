//! An ordinary answer, before it is handed to hyper or written as bytes.

use bytes::Bytes;
use comet_proto::Cursor;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

/// An ordinary answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `None`: there is no body to describe.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
    /// Headers that all answers of one kind have.
    pub(crate) usual: &'static [(&'static str, &'static str)],
    /// Headers of this answer alone.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Headers that keep proxies from buffering, compressing and caching, and browsers from guessing the content type.
pub(crate) const LIVE_HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
];

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

    /// Adds the cursor of a poll's answer as an entity tag.
    pub(crate) fn with_cursor(self, cursor: Cursor) -> Self {
        let tag = HeaderValue::from_str(&format!("\"{cursor}\""));
        self.with(header::ETAG, tag.expect("digits and quotes"))
    }

    /// The names and values of all headers but those that every answer on a connection has.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let content_type = self.content_type.map(|value| ("content-type", value));
        let usual = self.usual.iter().copied();
        let own = self.headers.iter();
        content_type
            .into_iter()
            .chain(usual)
            .map(|(name, value)| (name, value.as_bytes()))
            .chain(own.map(|(name, value)| (name.as_str(), value.as_bytes())))
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
        for (name, value) in self.usual {
            headers.insert(*name, HeaderValue::from_static(value));
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
