//! Refusals: why a request is not served, as the client is told.

use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    answer::{Answer, BUSY, INVALID_TOKEN, RETRY},
    cors::Cors,
};
use crate::{broker::NotKept, transport::sse::EVENT_STREAM};

/// Kinds of clients that need a refusal in another form. Some of them would stop for good, even if the reason holds only for
/// now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientKind {
    /// A client that asked for an event stream.
    EventSource,
    /// A page that takes no status but 200. To the page this JSON means that nothing has happened.
    Always200(&'static str),
    /// A client of another server's protocol. The function writes a refusal in the form of that protocol, from the status
    /// and the message.
    OtherProtocol(fn(StatusCode, &str) -> Answer),
    Other,
}

/// Why a request is refused. [`Reason::row`] and [`Reason::headers`] say how each reason is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// This part of the request breaks a rule.
    Bad(&'static str),
    /// hyper cannot read the request, and answers with this status.
    Unreadable(StatusCode),
    NoToken,
    InvalidToken,
    TokenExpired,
    /// The token does not grant what the request needs.
    NotGranted,
    Forbidden,
    NoSuchPath,
    /// The methods that the path has.
    Method(&'static str),
    Timeout,
    NoLength,
    BodyTooLarge,
    UrlTooLong,
    /// The request is for another host.
    OtherHost,
    NoUpgrade,
    TooManyOfAddress,
    HeadersTooLarge,
    TooManyConnections,
    NoMemory,
    Stopping,
    NotKept,
}

impl Reason {
    /// The code and the status.
    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::Bad(part) => (part, StatusCode::BAD_REQUEST),
            Self::Unreadable(status) => ("request", status),
            Self::NoToken | Self::InvalidToken => ("token", StatusCode::UNAUTHORIZED),
            Self::TokenExpired => ("token_expired", StatusCode::UNAUTHORIZED),
            Self::NotGranted | Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Self::NoSuchPath => ("path", StatusCode::NOT_FOUND),
            Self::Method(_) => ("method", StatusCode::METHOD_NOT_ALLOWED),
            Self::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT),
            Self::NoLength => ("length", StatusCode::LENGTH_REQUIRED),
            Self::BodyTooLarge => ("body", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UrlTooLong => ("url", StatusCode::URI_TOO_LONG),
            Self::OtherHost => ("host", StatusCode::MISDIRECTED_REQUEST),
            Self::NoUpgrade => ("websocket", StatusCode::UPGRADE_REQUIRED),
            Self::TooManyOfAddress => ("connections", StatusCode::TOO_MANY_REQUESTS),
            Self::HeadersTooLarge => ("headers", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::TooManyConnections => ("connections", StatusCode::SERVICE_UNAVAILABLE),
            Self::NoMemory => ("memory", StatusCode::SERVICE_UNAVAILABLE),
            Self::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotKept => ("store", StatusCode::INSUFFICIENT_STORAGE),
        }
    }

    /// Headers that say what would be accepted, or when.
    fn headers(self) -> Vec<(HeaderName, &'static str)> {
        match self {
            Self::NoToken => vec![(header::WWW_AUTHENTICATE, "Bearer realm=\"comet\"")],
            Self::InvalidToken | Self::TokenExpired => {
                vec![(header::WWW_AUTHENTICATE, INVALID_TOKEN)]
            }
            Self::NotGranted => vec![(
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"comet\", error=\"insufficient_scope\"",
            )],
            Self::Method(allowed) => vec![(header::ALLOW, allowed)],
            Self::NoUpgrade => vec![
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "Upgrade"),
                (header::SEC_WEBSOCKET_VERSION, "13"),
            ],
            _ => self
                .retry()
                .map(|seconds| (header::RETRY_AFTER, seconds))
                .into_iter()
                .collect(),
        }
    }

    /// Seconds after which the client may come back.
    fn retry(self) -> Option<&'static str> {
        match self {
            Self::TooManyOfAddress | Self::TooManyConnections | Self::NoMemory => Some(BUSY),
            Self::Stopping => Some(RETRY),
            _ => None,
        }
    }
}

/// A request that is refused: `{"error":"code","message":"…"}`.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    reason: Reason,
    message: String,
    client: ClientKind,
    /// What the answer says to pages of other origins, if the answer is written without hyper.
    pub(super) cors: Cors,
    /// The request is `HEAD`, whose answer has no body.
    pub(super) is_head: bool,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            client: ClientKind::Other,
            cors: Cors::None,
            is_head: false,
        }
    }

    pub(crate) fn bad(part: &'static str, error: impl std::fmt::Display) -> Self {
        Self::new(Reason::Bad(part), error.to_string())
    }

    /// Why the request is refused.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Reason::Forbidden, message)
    }

    /// The refusal when there is no memory left for the request.
    pub(crate) fn no_memory() -> Self {
        let message = "connections take all the memory they may; try again later";
        Self::new(Reason::NoMemory, message)
    }

    /// The refusal to publish while the daemon stops.
    pub(crate) fn stopping() -> Self {
        let message = "the daemon is stopping; publish again when it is back";
        Self::new(Reason::Stopping, message)
    }

    /// The answer to the publisher of a message that is not kept.
    pub(crate) fn not_kept(reason: &NotKept) -> Self {
        Self::new(Reason::NotKept, reason.to_string())
    }

    /// The code of the reason, for protocols that have refusals without a status.
    pub(crate) fn code(&self) -> &'static str {
        self.reason.row().0
    }

    /// Whether the request was refused because it has no token.
    pub(crate) fn is_without_token(&self) -> bool {
        self.reason == Reason::NoToken
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_answer(self) -> Answer {
        let (code, status) = self.reason.row();
        // The same request may be served a little later.
        let is_passing = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        );
        match self.client {
            ClientKind::EventSource if is_passing => return self.into_event_stream(),
            ClientKind::Always200(body) if is_passing => return Answer::json(body),
            _ => {}
        }
        let answer = match self.client {
            ClientKind::OtherProtocol(write) => write(status, &self.message),
            _ => {
                let body = serde_json::json!({"error": code, "message": self.message});
                Answer::new(status, "application/json", format!("{body}\n"))
            }
        };
        let headers = self.reason.headers().into_iter();
        headers.fold(answer, |answer, (name, value)| {
            answer.with(name, HeaderValue::from_static(value))
        })
    }

    /// The refusal as an event stream that ends at once and says why and when to come back. A browser's EventSource
    /// gives up for good on anything but a 200 of this type (HTML standard, section 9.2.3).
    fn into_event_stream(self) -> Answer {
        let seconds = self.reason.retry().unwrap_or(BUSY);
        let body = format!("retry: {seconds}000\n: {}\n\n", self.message);
        Answer::new(StatusCode::OK, EVENT_STREAM, body)
    }

    /// Sets the client that is refused. `cors`: what the answer says to the client's page, if the answer is written
    /// without hyper. `is_head`: the request is `HEAD`, whose answer has no body.
    pub(super) fn for_client(mut self, client: ClientKind, is_head: bool, cors: Cors) -> Self {
        (self.client, self.is_head, self.cors) = (client, is_head, cors);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_answered_by_its_row_and_its_headers() {
        let answer = Refusal::new(Reason::Method("GET"), "no").into_answer();
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.body, "{\"error\":\"method\",\"message\":\"no\"}\n");
        assert_eq!(
            answer.headers,
            [(header::ALLOW, HeaderValue::from_static("GET"))]
        );
    }

    #[test]
    fn another_protocol_has_its_own_form_of_every_refusal() {
        let write = |status, message: &str| Answer::new(status, "text/plain", message.to_owned());
        for reason in [Reason::Forbidden, Reason::Stopping] {
            let refusal = Refusal::new(reason, "no");
            let client = ClientKind::OtherProtocol(write);
            let answer = refusal.for_client(client, false, Cors::None).into_answer();
            assert_eq!(
                (answer.status, &answer.body[..]),
                (reason.row().1, &b"no"[..])
            );
            assert_eq!(answer.headers.len(), reason.headers().len());
        }
    }

    #[test]
    fn only_a_passing_reason_is_fitted_to_the_client() {
        let answer = |reason, client| {
            let refusal = Refusal::new(reason, "no");
            refusal.for_client(client, false, Cors::None).into_answer()
        };
        let stream = answer(Reason::Stopping, ClientKind::EventSource);
        assert_eq!(
            (stream.status, &stream.body[..]),
            (StatusCode::OK, &b"retry: 1000\n: no\n\n"[..])
        );
        let late = answer(Reason::Timeout, ClientKind::EventSource);
        assert_eq!(late.body, "retry: 5000\n: no\n\n");
        let page = answer(Reason::NoMemory, ClientKind::Always200("false"));
        assert_eq!(
            (page.status, &page.body[..]),
            (StatusCode::OK, &b"false"[..])
        );
        for client in [ClientKind::EventSource, ClientKind::Always200("false")] {
            assert_eq!(
                answer(Reason::Forbidden, client).status,
                StatusCode::FORBIDDEN
            );
        }
    }
}
