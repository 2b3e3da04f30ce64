//! What a request asks for: one line for each path and each transport.

use std::slice;

use bytes::Bytes;
use comet_proto::{ChannelName, EventName, Since};
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use super::{
    Site,
    answer::{Cors, Refusal, answer},
    entity_tag,
    media::Accepted,
    pages,
    query::{self, Query},
    rights,
    service::publish_data,
};
use crate::{
    compat::{novcomet, zeitoun},
    hub::{Hub, Publisher},
    transport::{
        Format, Subscription,
        iframe::Iframe,
        longpoll::LongPoll,
        sse::Sse,
        websocket::{self, HandshakeError, WebSocket},
    },
};

/// Methods of a channel, and of everything else.
const CHANNEL_METHODS: &str = "GET, HEAD, POST, OPTIONS";
const PAGE_METHODS: &str = "GET, HEAD, OPTIONS";

/// What to do about a request.
pub(super) enum Route {
    Answer(Response<Bytes>),
    Hold(Subscription),
    Publish(Publish),
    /// What was published, and the answer when that is kept.
    Published(u64, Response<Bytes>),
}

/// A publish whose body is still to be read.
pub(super) struct Publish {
    pub(super) channel: ChannelName,
    pub(super) name: EventName,
    pub(super) key: Option<String>,
    /// Whose key it is.
    pub(super) publisher: Publisher,
}

impl Publish {
    fn to(channel: ChannelName) -> Self {
        Self {
            channel,
            name: EventName::default(),
            key: None,
            publisher: Publisher::Http(0),
        }
    }
}

pub(super) fn route(site: &Site, hub: &Hub, head: &Parts) -> Result<Route, Refusal> {
    let path = head.uri.path();
    if head.method == Method::OPTIONS {
        return Ok(Route::Answer(options(site, head)));
    }
    if let Some(names) = path.strip_prefix("/ch/") {
        return channel(site, hub, head, names);
    }
    let page = match path {
        path if path == site.compat.novcomet => return novcomet(site, hub, head),
        path if path == site.compat.zeitoun_chat => return zeitoun_chat(site, hub, head),
        path if path == site.compat.zeitoun_clock => return zeitoun_clock(head),
        "/healthz" => Some(answer(StatusCode::OK, "text/plain", "ok\n")),
        "/metrics" => Some(answer(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            pages::metrics(site, hub),
        )),
        _ => pages::page(site, head),
    };
    let page = page.ok_or_else(|| not_found(site, path))?;
    only(head, PAGE_METHODS)?;
    Ok(Route::Answer(page))
}

/// `/ch/NAMES`
fn channel(site: &Site, hub: &Hub, head: &Parts, names: &str) -> Result<Route, Refusal> {
    only(head, CHANNEL_METHODS)?;
    let query = Query::of_utf8(head)?;
    if head.method == Method::POST {
        return Ok(Route::Publish(publish(site, head, names, &query)?));
    }
    Ok(hold(head, subscription(site, hub, head, names, &query)?))
}

/// What is to be published, apart from the body.
pub(super) fn publish(
    site: &Site,
    head: &Parts,
    names: &str,
    query: &Query<'_>,
) -> Result<Publish, Refusal> {
    let channel = query::channel(names)?;
    let publisher = rights::may_publish(site, head, query, &channel)?;
    Ok(Publish {
        channel,
        name: query.event_name()?,
        key: query::idempotency_key(&head.headers)?,
        publisher,
    })
}

/// What the client saw last, and how it wants to be told: by `as=`, or by its headers.
pub(super) fn subscription(
    site: &Site,
    hub: &Hub,
    head: &Parts,
    names: &str,
    query: &Query<'_>,
) -> Result<Subscription, Refusal> {
    let channels = query::channels(names)?;
    let leave = rights::may_read(site, head, query, &channels)?;
    let headers = &head.headers;
    let heartbeat = site.config.heartbeat;
    let by_headers = || match () {
        () if websocket::is_asked_for(head) => "websocket",
        () if Accepted::of(headers).prefers_stream() => "sse",
        () => "poll",
    };
    let since = query.since()?;
    let seen = query.last_event_id(headers);
    let name = query.transport().unwrap_or_else(by_headers);
    let mut wait = None;
    let (since, format): (Option<Since>, Box<dyn Format>) = match name {
        "poll" => {
            wait = Some(query.wait()?);
            let since = seen?.or(since).or_else(|| entity_tag::cursor(headers));
            (since, Box::new(LongPoll))
        }
        "sse" => {
            // A refusal would end a browser's EventSource for good: a gap lets the page load its state and go on.
            let seen = seen.unwrap_or(Some(query::UNKNOWN));
            (seen.or(since), Box::new(Sse { heartbeat }))
        }
        "iframe" => {
            let callback = query.callback()?;
            let format = Iframe {
                callback,
                heartbeat,
            };
            (seen?.or(since), Box::new(format))
        }
        "websocket" => {
            rights::may_open(site, head)?;
            let accepted = WebSocket::accept(head, heartbeat);
            let format = accepted.map_err(|error| no_websocket(head, error))?;
            (seen?.or(since), Box::new(format))
        }
        other => {
            let other: String = other.chars().take(32).collect();
            let known = "poll, sse, iframe, websocket";
            let message = format!("no transport {other:?} (known: {known})");
            return Err(Refusal::bad("as", message));
        }
    };
    let mut subscription = Subscription {
        channels,
        since: since.map(|since| hub.resolve(since)),
        wait,
        format,
        expires: None,
        gap: false,
    };
    leave.bound(hub, &mut subscription);
    Ok(subscription)
}

/// Why there is no WebSocket. A 426 says which protocol and version are asked for (RFC 9110, section 15.5.22; RFC 6455,
/// section 4.4). HTTP/2 knows no such answer (RFC 9113, section 8.2.2).
fn no_websocket(head: &Parts, error: HandshakeError) -> Refusal {
    let is_malformed = matches!(error, HandshakeError::Names | HandshakeError::Protocol);
    if is_malformed || head.version > Version::HTTP_11 {
        return Refusal::bad("websocket", error);
    }
    Refusal::new(StatusCode::UPGRADE_REQUIRED, "websocket", error.to_string())
        .with(header::UPGRADE, "websocket")
        .with(header::CONNECTION, "Upgrade")
        .with(header::SEC_WEBSOCKET_VERSION, "13")
}

/// `HEAD` shows the head that `GET` would have, at once.
fn hold(head: &Parts, subscription: Subscription) -> Route {
    if head.method == Method::HEAD {
        return Route::Answer(answer(
            StatusCode::OK,
            subscription.format.content_type(),
            "",
        ));
    }
    Route::Hold(subscription)
}

/// NovComet's `comet.php`. Whatever is asked, a poll is answered by a 200: anything else ends the old page's loop.
fn novcomet(site: &Site, hub: &Hub, head: &Parts) -> Result<Route, Refusal> {
    only(head, PAGE_METHODS)?;
    let json = |body: Vec<u8>| {
        Ok(Route::Answer(answer(
            StatusCode::OK,
            "application/json",
            body,
        )))
    };
    let query = Query::of(head);
    match novcomet::Request::parse(query.pairs()) {
        novcomet::Request::Publish(channel) => {
            let may =
                |channel: &ChannelName| rights::may_publish(site, head, &query, channel).is_ok();
            match channel.filter(may) {
                Some(channel) if head.method == Method::GET && admit(hub).is_ok() => {
                    let id = publish_data(site, hub, Publish::to(channel), b"");
                    let published = answer(StatusCode::OK, "application/json", "true");
                    Ok(Route::Published(id, published))
                }
                _ => json(b"false".to_vec()),
            }
        }
        novcomet::Request::Subscribe(mut subscribed) => {
            // As with ids that are no names: they never change.
            let leave = rights::keep_readable(site, head, &query, &mut subscribed);
            match novcomet::poll(hub, subscribed, leave.oldest) {
                Ok(body) => json(body),
                Err(mut subscription) => {
                    subscription.expires = leave.expires;
                    Ok(hold(head, subscription))
                }
            }
        }
    }
}

/// The zeitoun chat's `backend.php`.
fn zeitoun_chat(site: &Site, hub: &Hub, head: &Parts) -> Result<Route, Refusal> {
    only(head, PAGE_METHODS)?;
    let query = Query::of(head);
    match zeitoun::ChatRequest::parse(query.pairs()) {
        zeitoun::ChatRequest::Publish(text) => {
            rights::may_publish(site, head, &query, &site.chat)?;
            let empty = answer(StatusCode::OK, "text/html; charset=utf-8", "");
            if head.method != Method::GET {
                return Ok(Route::Answer(empty));
            }
            admit(hub)?;
            let id = publish_data(site, hub, Publish::to(site.chat.clone()), text.as_bytes());
            Ok(Route::Published(id, empty))
        }
        zeitoun::ChatRequest::Poll(seen) => {
            let leave = rights::may_read(site, head, &query, slice::from_ref(&site.chat))?;
            match zeitoun::poll(hub, &site.chat, seen, leave.oldest) {
                Ok(body) => Ok(Route::Answer(answer(
                    StatusCode::OK,
                    "application/json",
                    body,
                ))),
                Err(mut subscription) => {
                    subscription.expires = leave.expires;
                    Ok(hold(head, subscription))
                }
            }
        }
    }
}

/// The zeitoun clock's `backend.php`.
fn zeitoun_clock(head: &Parts) -> Result<Route, Refusal> {
    only(head, PAGE_METHODS)?;
    let format = Box::new(zeitoun::Clock);
    if head.method == Method::HEAD {
        return Ok(Route::Answer(answer(
            StatusCode::OK,
            format.content_type(),
            "",
        )));
    }
    Ok(Route::Hold(Subscription {
        channels: Vec::new().into(),
        since: None,
        wait: None,
        format,
        expires: None,
        gap: false,
    }))
}

/// Nothing is published that cannot be kept, where the configuration wants it so.
pub(super) fn admit(hub: &Hub) -> Result<(), Refusal> {
    hub.admits().map_err(|error| {
        let message = format!("messages are refused while they cannot be kept: {error}");
        Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "store", message)
    })
}

/// Who waits may have had the last answer already: what is published now would reach nobody.
pub(super) fn goes_on(site: &Site) -> Result<(), Refusal> {
    if !site.drain.stop.is_cancelled() {
        return Ok(());
    }
    let message = "the daemon is stopping; publish again when it is back";
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message);
    Err(refusal.with(header::RETRY_AFTER, "1"))
}

/// What an answer says to a page of another origin.
pub(super) fn cors(site: &Site, headers: &HeaderMap) -> Cors {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(origin), None) => origin.to_str().map_or(Cors::None, |it| site.origins.of(it)),
        // No browser sends two.
        _ => Cors::None,
    }
}

fn only(head: &Parts, methods: &'static str) -> Result<(), Refusal> {
    if methods.split(", ").any(|method| head.method == method) {
        return Ok(());
    }
    let message = format!("{} is not for this path (allowed: {methods})", head.method);
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message);
    Err(refusal.with(header::ALLOW, methods))
}

/// Headers that pages of other origins send, and that libraries and tracing add by themselves.
const USUAL_HEADERS: &str = "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, \
    Last-Event-ID, Pragma, X-Requested-With, X-Prototype-Version, baggage, sentry-trace, traceparent, tracestate";

/// Longest list of headers that a preflight may ask for.
const MAX_ASKED: usize = 1024;

/// `OPTIONS`, which is also how a browser asks before it sends what a page of another origin wants (a preflight).
fn options(site: &Site, head: &Parts) -> Response<Bytes> {
    let methods = match head.uri.path().starts_with("/ch/") {
        true => CHANNEL_METHODS,
        false => PAGE_METHODS,
    };
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
    let cors = cors(site, &head.headers);
    if cors != Cors::None
        && let Some(asked) = asked_headers(&head.headers)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    let network = HeaderName::from_static("access-control-request-private-network");
    if matches!(cors, Cors::Origin(_)) && head.headers.get(network).is_some_and(|it| it == "true") {
        let allowed = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(allowed, HeaderValue::from_static("true"));
    }
    answer
}

/// The headers that a preflight asks for. The daemon acts on few of them, so that all may be sent.
fn asked_headers(headers: &HeaderMap) -> Option<&HeaderValue> {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS)?;
    let is_name = |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    let names = asked.to_str().ok()?;
    (names.len() <= MAX_ASKED && names.split(',').all(is_name)).then_some(asked)
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
