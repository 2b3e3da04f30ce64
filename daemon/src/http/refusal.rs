//! Refusals: why a request is not served, as the client is told.

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    answer::{Answer, BUSY},
    cors::{Cors, Origins},
    writer,
};
use crate::{broker::NotKept, transport::sse::EVENT_STREAM};

/// Kinds of clients that a refusal would stop for good, even if the reason holds only for now. Such clients get another
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A client that asked for an event stream.
    EventSource,
    /// A page that takes no status but 200. To the page this JSON means that nothing has happened.
    Always200(&'static str),
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
    client: ClientKind,
    /// What the answer says to pages of other origins, if the answer is written without hyper.
    cors: Cors,
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
            client: ClientKind::Other,
            cors: Cors::None,
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

    /// The refusal to publish while the daemon stops.
    pub(crate) fn stopping() -> Self {
        let message = "the daemon is stopping; publish again when it is back";
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message);
        refusal.with(header::RETRY_AFTER, "1")
    }

    /// The answer to the publisher of a message that is not kept.
    pub(crate) fn not_kept(reason: &NotKept) -> Self {
        let status = StatusCode::INSUFFICIENT_STORAGE;
        Self::new(status, "store", reason.to_string())
    }

    pub(crate) fn into_answer(self) -> Answer {
        match self.client {
            ClientKind::EventSource if self.is_passing() => return self.into_event_stream(),
            ClientKind::Always200(body) if self.is_passing() => return Answer::json(body),
            _ => {}
        }
        let body = serde_json::json!({"error": self.code, "message": self.message});
        let mut answer = Answer::new(self.status, "application/json", format!("{body}\n"));
        let hints = self.hints.into_iter();
        answer.headers = hints
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect();
        answer
    }

    /// Whether the same request may be served a little later.
    fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 503)
    }

    /// The refusal as an event stream that ends at once and says why and when to come back. A browser's EventSource
    /// gives up for good on anything but a 200 of this type (HTML standard, section 9.2.3).
    fn into_event_stream(self) -> Answer {
        let mut hints = self.hints.iter();
        let hint = hints.find(|(name, _)| name == header::RETRY_AFTER);
        let seconds = hint.map_or(BUSY, |(_, seconds)| seconds);
        let body = format!("retry: {seconds}000\n: {}\n\n", self.message);
        Answer::new(StatusCode::OK, EVENT_STREAM, body)
    }

    /// Sets the client that is refused. `cors`: what the answer says to the client's page, if the answer is written
    /// without hyper. `is_head`: the request is `HEAD`, whose answer has no body.
    pub(super) fn for_client(mut self, client: ClientKind, is_head: bool, cors: Cors) -> Self {
        (self.client, self.is_head, self.cors) = (client, is_head, cors);
        self
    }

    /// The whole answer for a client whose request is not served. The connection closes after it.
    pub(crate) fn into_bytes(self, origins: &Origins) -> Bytes {
        let (cors, is_head) = (self.cors, self.is_head);
        writer::last(&self.into_answer(), is_head, cors, origins).into()
    }
}
