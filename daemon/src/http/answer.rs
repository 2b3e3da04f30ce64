//! Ordinary answers and refusals. hyper writes them, or they are the last bytes of a connection.

use bytes::Bytes;
use comet_proto::Cursor;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::cors::{Cors, Origins, add_cors};
use crate::transport::sse::EVENT_STREAM;

/// Kinds of clients that a refusal would stop for good, even if the reason holds only for now. Such clients get another
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A client that asked for an event stream.
    EventSource,
    /// NovComet's page. To the page this body means that nothing has happened.
    NovComet(&'static str),
    Other,
}

/// Why a request is refused: `{"error":"code","message":"…"}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// The part of the request that was wrong.
    code: &'static str,
    message: String,
    /// Headers that say what would be accepted.
    hints: Vec<(HeaderName, &'static str)>,
    /// What the answer says to pages of other origins, if the answer is written without hyper.
    cors: Cors,
    client: ClientKind,
    /// The request is `HEAD`, whose answer has no body.
    is_head: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hints: Vec::new(),
            cors: Cors::None,
            client: ClientKind::Other,
            is_head: false,
        }
    }

    pub(crate) fn bad(code: &'static str, error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.hints.push((name, value));
        self
    }

    /// The refusal when there is no memory left for the request.
    pub(crate) fn no_memory() -> Self {
        let message = "connections take all the memory they may; try again later";
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "memory", message);
        refusal.with(header::RETRY_AFTER, BUSY)
    }

    pub(crate) fn into_answer(self) -> Response<Bytes> {
        match self.client {
            ClientKind::EventSource if self.is_passing() => return self.into_event_stream(),
            ClientKind::NovComet(body) if self.is_passing() => {
                return answer(StatusCode::OK, "application/json", body);
            }
            _ => {}
        }
        let body = serde_json::json!({"error": self.code, "message": self.message});
        let mut answer = answer(self.status, "application/json", format!("{body}\n"));
        for (name, value) in self.hints {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(name, value);
        }
        answer
    }

    /// Whether the same request may be served a little later.
    fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 503)
    }

    /// The refusal as an event stream that ends at once and says why and when to come back. A browser's EventSource
    /// gives up for good on anything but a 200 of this type (HTML standard, section 9.2.3).
    fn into_event_stream(self) -> Response<Bytes> {
        let mut hints = self.hints.iter();
        let hint = hints.find(|(name, _)| name == header::RETRY_AFTER);
        let seconds = hint.map_or(BUSY, |(_, seconds)| seconds);
        let body = format!("retry: {seconds}000\n: {}\n\n", self.message);
        answer(StatusCode::OK, EVENT_STREAM, body)
    }
}

impl Refusal {
    /// Sets the client that is refused. `cors`: what the answer says to the client's page, if the answer is written
    /// without hyper. `is_head`: the request is `HEAD`, whose answer has no body.
    pub(super) fn for_client(mut self, client: ClientKind, is_head: bool, cors: Cors) -> Self {
        (self.client, self.is_head, self.cors) = (client, is_head, cors);
        self
    }

    /// The whole answer for a client whose request is not served. The connection closes after it.
    pub(crate) fn into_bytes(self, origins: &Origins) -> Bytes {
        let (cors, is_head) = (self.cors, self.is_head);
        let mut answer = self.into_answer();
        add_cors(answer.headers_mut(), cors, origins);
        let (status, length) = (answer.status(), answer.body().len());
        let mut out = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n").into_bytes();
        for (name, value) in answer.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"connection: close\r\n\r\n");
        if !is_head {
            out.extend_from_slice(answer.body());
        }
        out.into()
    }
}

/// An answer that proxies and browsers must not cache.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in LIVE_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Adds the cursor of a poll's answer as an entity tag.
pub(crate) fn add_etag(headers: &mut HeaderMap, cursor: Cursor) {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{cursor}\"")) {
        headers.insert(header::ETAG, tag);
    }
}

/// Headers that keep proxies from buffering, compressing and caching, and browsers from guessing the content type.
pub(super) const LIVE_HEADERS: [(&str, &str); 3] = [
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
];

/// The challenge for a token that is invalid or has expired (RFC 6750, section 3).
pub(crate) const INVALID_TOKEN: &str = "Bearer realm=\"comet\", error=\"invalid_token\"";

/// Seconds after which a client may come back whose waiting poll was answered with a 503.
pub(crate) const RETRY: &str = "1";

/// Seconds after which a client may come back to a daemon that has no room.
pub(crate) const BUSY: &str = "5";
