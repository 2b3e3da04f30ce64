//! Finds out what a request asks for, with one line for each path and each transport.

use std::slice;

use bytes::Bytes;
use comet_proto::{ChannelName, Since};
use hyper::{
    Method, Response, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    answer::{Refusal, add_etag, answer},
    cors::Cors,
    entity_tag, figures,
    media::Accepted,
    pages,
    paths::{PAGE_METHODS, Place},
    publish::{Publish, publish_data},
    query::{self, Query},
    request::{Request, text},
    site::Site,
    upgrade::{self, HandshakeError},
};
use crate::{
    access::{self, hosts},
    broker::Receipt,
    compat::{novcomet, zeitoun},
    hub::Hub,
    transport::{
        Format, Subscription, Transport, iframe::Iframe, longpoll::LongPoll, sse::Sse,
        websocket::WebSocket,
    },
};

/// What to do about a request.
pub(crate) enum Route {
    Answer(Response<Bytes>),
    /// The first bytes of the body must be read before the answer: the content is [`Content::Unknown`].
    Look,
    Hold(Subscription),
    Publish(Publish),
    /// The receipt of the message that was published, and the answer for when the message is kept.
    Published(Receipt, Response<Bytes>),
}

/// What is known of a request's body before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// No body, or an empty one.
    Empty,
    Some,
    /// The body may be empty: its first bytes, or its end, are still to be read.
    Unknown,
    /// Bytes follow a head that announces no body.
    Unannounced,
}

/// Checks the request's host and its limits, then finds what the request asks for. The health check may be asked under any
/// host name.
pub(crate) fn route_within_limits(
    site: &Site,
    hub: &Hub,
    request: &Request<'_>,
    content: Content,
) -> Result<Route, Refusal> {
    let config = &site.config;
    if Place::at(site, request.path) != Some(Place::Health) {
        hosts::is_meant(request, &config.hosts)?;
    }
    let url = request.url_length();
    if url > config.max_url {
        let message = format!("URL of {url} bytes is over the limit of {}", config.max_url);
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "url", message));
    }
    let header = request.header_length();
    if header > config.max_header {
        let message = format!(
            "headers of {header} bytes are over the limit of {}",
            config.max_header
        );
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers",
            message,
        ));
    }
    route(site, hub, request, content)
}

/// Finds what is at the request's path. Checks the path first, then the method, then the body.
pub(crate) fn route(
    site: &Site,
    hub: &Hub,
    request: &Request<'_>,
    content: Content,
) -> Result<Route, Refusal> {
    let path = request.path;
    let place = Place::at(site, path);
    if request.method != Method::OPTIONS {
        let place = place.as_ref().ok_or_else(|| not_found(site, path))?;
        check_method(request, place.methods())?;
    }
    match content {
        Content::Unannounced if request.method == Method::POST => return Err(no_length()),
        _ if request.method == Method::POST => {}
        Content::Some => return Err(no_body(&request.method)),
        Content::Unknown => return Ok(Route::Look),
        Content::Empty | Content::Unannounced => {}
    }
    let page = match place {
        place if request.method == Method::OPTIONS => options(
            site,
            request,
            place.as_ref().map_or(PAGE_METHODS, Place::methods),
        ),
        Some(Place::Channels(names)) => return channel(site, hub, request, names),
        Some(Place::NovComet) => return novcomet(site, hub, request),
        Some(Place::ZeitounChat) => return zeitoun_chat(site, hub, request),
        Some(Place::ZeitounClock) => return Ok(zeitoun_clock(hub, request)),
        Some(Place::Health) => answer(StatusCode::OK, "text/plain", "ok\n"),
        Some(Place::Metrics) => answer(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            figures::metrics(site, hub),
        ),
        Some(Place::Page(path)) => {
            pages::page(site, &path, request).ok_or_else(|| not_found(site, &path))?
        }
        None => return Err(not_found(site, path)),
    };
    Ok(Route::Answer(page))
}

fn no_body(method: &Method) -> Refusal {
    Refusal::bad(
        "body",
        format!("a request with the method {method} may not have a body"),
    )
}

fn no_length() -> Refusal {
    let message = "bytes follow a POST without Content-Length; a body needs its length, or Transfer-Encoding: chunked";
    Refusal::new(StatusCode::LENGTH_REQUIRED, "length", message)
}

/// Routes a request for `/ch/NAMES`.
fn channel(site: &Site, hub: &Hub, request: &Request<'_>, names: &str) -> Result<Route, Refusal> {
    let query = Query::of_utf8(request)?;
    if request.method == Method::POST {
        return Ok(Route::Publish(publish(site, request, names, &query)?));
    }
    Ok(hold(
        hub,
        request,
        subscription(site, hub, request, names, &query)?,
    ))
}

/// Parses a publish, except for its body, and checks the right to publish.
pub(crate) fn publish(
    site: &Site,
    request: &Request<'_>,
    names: &str,
    query: &Query<'_>,
) -> Result<Publish, Refusal> {
    let channels = query::channel_names(names)?;
    let publisher = access::may_publish(site, request, query, &channels)?;
    Ok(Publish {
        channels,
        name: query.event_name()?,
        attributes: query.attributes()?,
        key: query::idempotency_key(request)?,
        publisher,
    })
}

/// Parses a subscription: the last id that the client has, and the transport. `as=` names the transport, or else the
/// headers decide.
pub(crate) fn subscription(
    site: &Site,
    hub: &Hub,
    request: &Request<'_>,
    names: &str,
    query: &Query<'_>,
) -> Result<Subscription, Refusal> {
    let channels = query::channels(names)?;
    let leave = access::may_read(site, request, query, &channels)?;
    let heartbeat = site.config.heartbeat;
    let by_headers = || match () {
        () if upgrade::is_asked_for(request) => Transport::WebSocket,
        () if Accepted::of(request).prefers_stream() => Transport::Sse,
        () => Transport::LongPoll,
    };
    let seen = query.last_event_id(request);
    let transport = query.transport()?.unwrap_or_else(by_headers);
    let (mut wait, mut handshake) = (None, None);
    let (since, format): (Option<Since>, Box<dyn Format>) = match transport {
        Transport::LongPoll => {
            wait = Some(query.wait()?);
            let since = query.seen_or_since(seen?)?;
            let since = since.or_else(|| entity_tag::cursor(request));
            (since, Box::new(LongPoll))
        }
        Transport::Sse => {
            // A refusal would end a browser's EventSource for good. With a gap instead, the page loads its state and
            // goes on.
            let seen = seen.unwrap_or(Some(query::UNKNOWN));
            (query.seen_or_since(seen)?, Box::new(Sse { heartbeat }))
        }
        Transport::Iframe => {
            let callback = query.callback()?;
            let format = Iframe {
                callback,
                heartbeat,
            };
            (query.seen_or_since(seen?)?, Box::new(format))
        }
        Transport::WebSocket => {
            access::may_open(site, request)?;
            let checked = upgrade::check(request);
            handshake = Some(checked.map_err(|error| no_websocket(request, error))?);
            let format = WebSocket { heartbeat };
            (query.seen_or_since(seen?)?, Box::new(format))
        }
    };
    let mut subscription = Subscription {
        channels,
        since: since.map(|since| hub.resolve(since)),
        wait,
        format,
        handshake,
        expires: None,
        gap: false,
    };
    leave.bound(hub, &mut subscription);
    Ok(subscription)
}

/// The refusal of a WebSocket. A 426 names the protocol and version that the server wants (RFC 9110, section 15.5.22;
/// RFC 6455, section 4.4). HTTP/2 has no such answer (RFC 9113, section 8.2.2).
fn no_websocket(request: &Request<'_>, error: HandshakeError) -> Refusal {
    let is_malformed = matches!(error, HandshakeError::Names | HandshakeError::Protocol);
    if is_malformed || request.version > Version::HTTP_11 {
        return Refusal::bad("websocket", error);
    }
    Refusal::new(StatusCode::UPGRADE_REQUIRED, "websocket", error.to_string())
        .with(header::UPGRADE, "websocket")
        .with(header::CONNECTION, "Upgrade")
        .with(header::SEC_WEBSOCKET_VERSION, "13")
}

/// Answers `HEAD` with the headers that `GET` would get: for a poll that does not wait, and for a stream. Other
/// requests wait.
fn hold(hub: &Hub, request: &Request<'_>, subscription: Subscription) -> Route {
    if request.method != Method::HEAD {
        return Route::Hold(subscription);
    }
    let format = &subscription.format;
    let kind = format.kind();
    if !kind.is_poll() || subscription.wait.is_none() {
        return Route::Answer(answer(StatusCode::OK, kind.media_type, ""));
    }
    let since = subscription.since.unwrap_or_else(|| hub.last());
    let mut backlog = hub.since(&subscription.channels, since);
    backlog.gap |= subscription.gap;
    let mut body = Vec::new();
    match backlog.is_news() {
        true => format.news(&backlog, &mut body),
        false => format.nothing(backlog.cursor, &mut body),
    }
    let mut answer = answer(StatusCode::OK, kind.media_type, body);
    if kind.has_etag {
        add_etag(answer.headers_mut(), backlog.cursor);
    }
    Route::Answer(answer)
}

/// Routes a request for NovComet's `comet.php`. Every poll is answered by a 200: any other status ends the loop of the
/// old page.
fn novcomet(site: &Site, hub: &Hub, request: &Request<'_>) -> Result<Route, Refusal> {
    let json = |body: Vec<u8>| {
        Ok(Route::Answer(answer(
            StatusCode::OK,
            "application/json",
            body,
        )))
    };
    let query = Query::of(request);
    match novcomet::Request::parse(query.pairs()) {
        novcomet::Request::Publish(channel) => {
            let may = |channel: &ChannelName| {
                access::may_publish(site, request, &query, slice::from_ref(channel)).is_ok()
            };
            let channel = channel
                .filter(may)
                .filter(|_| request.method == Method::GET);
            match channel.map(|channel| publish_data(site, Publish::to(channel), b"")) {
                Some(Ok(receipt)) => {
                    let published = answer(StatusCode::OK, "application/json", "true");
                    Ok(Route::Published(receipt, published))
                }
                _ => json(b"false".to_vec()),
            }
        }
        novcomet::Request::Subscribe(mut subscribed) => {
            // Channels that may not be read are left out, like invalid ids. To the old page they just never change.
            let leave = access::keep_readable(site, request, &query, &mut subscribed);
            match novcomet::poll(hub, subscribed, leave.oldest) {
                Ok(body) => json(body),
                Err(mut subscription) => {
                    subscription.expires = leave.expires;
                    Ok(hold(hub, request, subscription))
                }
            }
        }
    }
}

/// Routes a request for the zeitoun chat's `backend.php`.
fn zeitoun_chat(site: &Site, hub: &Hub, request: &Request<'_>) -> Result<Route, Refusal> {
    let query = Query::of(request);
    match zeitoun::ChatRequest::parse(query.pairs()) {
        zeitoun::ChatRequest::Publish(text) => {
            access::may_publish(site, request, &query, slice::from_ref(&site.chat))?;
            let mut empty = answer(StatusCode::OK, "text/html; charset=utf-8", "");
            let length = HeaderValue::from_static("0");
            empty.headers_mut().insert(header::CONTENT_LENGTH, length);
            if request.method != Method::GET {
                return Ok(Route::Answer(empty));
            }
            let receipt = publish_data(site, Publish::to(site.chat.clone()), text.as_bytes())?;
            Ok(Route::Published(receipt, empty))
        }
        zeitoun::ChatRequest::Poll(seen) => {
            let leave = access::may_read(site, request, &query, slice::from_ref(&site.chat))?;
            match zeitoun::poll(hub, &site.chat, seen, leave.oldest) {
                Ok(body) => Ok(Route::Answer(answer(
                    StatusCode::OK,
                    "application/json",
                    body,
                ))),
                Err(mut subscription) => {
                    subscription.expires = leave.expires;
                    Ok(hold(hub, request, subscription))
                }
            }
        }
    }
}

/// Routes a request for the zeitoun clock's `backend.php`.
fn zeitoun_clock(hub: &Hub, request: &Request<'_>) -> Route {
    let clock = Subscription {
        channels: Vec::new().into(),
        since: None,
        wait: None,
        format: Box::new(zeitoun::Clock),
        handshake: None,
        expires: None,
        gap: false,
    };
    hold(hub, request, clock)
}

/// Refuses a method that is not among `methods`.
fn check_method(request: &Request<'_>, methods: &'static str) -> Result<(), Refusal> {
    if methods.split(", ").any(|method| request.method == method) {
        return Ok(());
    }
    let message = format!(
        "{} is not for this path (allowed: {methods})",
        request.method
    );
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message);
    Err(refusal.with(header::ALLOW, methods))
}

/// Headers that pages of other origins send, and that libraries and tracing add by themselves.
const USUAL_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, \
    Last-Event-ID, Pragma, X-Requested-With, X-Prototype-Version, baggage, sentry-trace, traceparent, tracestate";

/// Longest list of headers that a preflight may ask for.
const MAX_ASKED: usize = 1024;

/// Answers `OPTIONS`. A browser sends it also as a preflight: before a request of a page of another origin.
fn options(site: &Site, request: &Request<'_>, methods: &'static str) -> Response<Bytes> {
    let mut answer = answer(StatusCode::NO_CONTENT, "text/plain", "");
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in [
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, USUAL_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let cors = site.origins.of_request(request);
    if cors != Cors::None
        && let Some(asked) = asked_headers(request)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
    let network = request.values("access-control-request-private-network");
    if matches!(cors, Cors::Origin(_)) && network.take(1).any(|value| value == b"true") {
        let allowed = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(allowed, HeaderValue::from_static("true"));
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

fn not_found(site: &Site, path: &str) -> Refusal {
    let path: String = path.chars().take(64).collect();
    let hint = if site.demo.is_some() {
        ""
    } else {
        "; comet serve --demo also serves pages to try it with"
    };
    let message = format!("nothing is at {path}; channels are at /ch/NAME{hint}");
    Refusal::new(StatusCode::NOT_FOUND, "path", message)
}
