//! Answers `OPTIONS`, with which a browser asks whether a page of another origin may send its request.

use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::http::{
    answer::Answer,
    cors::{Cors, Origins},
    request::{Request, text},
};

/// Headers that pages of other origins send, and that libraries and tracing add by themselves.
const USUAL_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, \
    Last-Event-ID, Pragma, X-Requested-With, X-Prototype-Version, baggage, sentry-trace, traceparent, tracestate";

/// Longest list of headers that a preflight may ask for.
const MAX_ASKED: usize = 1024;

/// Answers `OPTIONS`. A browser sends it also as a preflight: before a request of a page of another origin.
pub(super) fn answer(origins: &Origins, request: &Request<'_>, methods: &'static str) -> Answer {
    let cors = origins.of_request(request);
    let asked = asked_headers(request).filter(|_| cors != Cors::None);
    let allowed = asked.unwrap_or(HeaderValue::from_static(USUAL_HEADERS));
    let methods = HeaderValue::from_static(methods);
    let answer = Answer::empty(StatusCode::NO_CONTENT)
        .with(header::ALLOW, methods.clone())
        .with(header::ACCESS_CONTROL_ALLOW_METHODS, methods)
        .with(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed)
        .with(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("600"),
        );
    let mut network = request.values("access-control-request-private-network");
    if matches!(cors, Cors::Origin(_)) && network.next() == Some(b"true") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        return answer.with(name, HeaderValue::from_static("true"));
    }
    answer
}

/// The headers that a preflight asks for. All headers may be sent, because the daemon acts on few of them.
fn asked_headers(request: &Request<'_>) -> Option<HeaderValue> {
    let mut values = request.values("access-control-request-headers");
    let names = values.next().and_then(text)?;
    let is_name = |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    let is_list = names.len() <= MAX_ASKED && names.split(',').all(is_name);
    HeaderValue::from_str(names).ok().filter(|_| is_list)
}
