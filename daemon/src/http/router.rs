//! What a request asks for: one line for each path and each transport.

use std::slice;

use bytes::Bytes;
use comet_proto::{ChannelName, Cursor, EventName};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

use super::{
    Site,
    answer::{Cors, Refusal, answer},
    pages,
    query::{self, Query},
    rights,
    service::publish_data,
};
use crate::{
    compat::{novcomet, zeitoun},
    hub::Hub,
    transport::{
        Format, Subscription,
        iframe::Iframe,
        longpoll::LongPoll,
        sse::Sse,
        websocket::{self, WebSocket},
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
}

impl Publish {
    fn to(channel: ChannelName) -> Self {
        Self {
            channel,
            name: EventName::default(),
            key: None,
        }
    }
}

pub(super) fn route(site: &Site, hub: &Hub, head: &Parts) -> Result<Route, Refusal> {
    let path = head.uri.path();
    if head.method == Method::OPTIONS {
        return Ok(Route::Answer(options(path)));
    }
    if let Some(names) = path.strip_prefix("/ch/") {
        return channel(site, head, names);
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
        path => pages::page(site, path),
    };
    let page = page.ok_or_else(|| not_found(site, path))?;
    only(head, PAGE_METHODS)?;
    Ok(Route::Answer(page))
}

/// `/ch/NAMES`
fn channel(site: &Site, head: &Parts, names: &str) -> Result<Route, Refusal> {
    only(head, CHANNEL_METHODS)?;
    let query = Query::of_utf8(head)?;
    if head.method == Method::POST {
        return Ok(Route::Publish(publish(site, head, names, &query)?));
    }
    Ok(hold(head, subscription(site, head, names, &query)?))
}

/// What is to be published, apart from the body.
pub(super) fn publish(
    site: &Site,
    head: &Parts,
    names: &str,
    query: &Query<'_>,
) -> Result<Publish, Refusal> {
    let channel = query::channel(names)?;
    rights::may_publish(site, head, query, &channel)?;
    Ok(Publish {
        channel,
        name: query.event_name()?,
        key: query::idempotency_key(&head.headers)?,
    })
}

/// What the client saw last, and how it wants to be told: by `as=`, or by its headers.
pub(super) fn subscription(
    site: &Site,
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
        () if accepts(headers, "text/event-stream") => "sse",
        () => "poll",
    };
    let since = query.since()?;
    let name = query.transport().unwrap_or_else(by_headers);
    let mut wait = None;
    let (since, format): (Option<Cursor>, Box<dyn Format>) = match name {
        "poll" => {
            wait = Some(query.wait()?);
            let seen = query::entity_tag(headers)?;
            (since.or(seen), Box::new(LongPoll))
        }
        "sse" => {
            let seen = query::last_event_id(headers)?;
            (seen.or(since), Box::new(Sse { heartbeat }))
        }
        "iframe" => {
            let callback = query.callback()?;
            let format = Iframe {
                callback,
                heartbeat,
            };
            (since, Box::new(format))
        }
        "websocket" => {
            rights::may_open(site, head)?;
            let accepted = WebSocket::accept(head, heartbeat);
            let format = accepted.map_err(|e| {
                Refusal::new(StatusCode::UPGRADE_REQUIRED, "websocket", e.to_string())
                    .with(header::SEC_WEBSOCKET_VERSION, "13")
            })?;
            (since, Box::new(format))
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
        since,
        wait,
        format,
        expires: None,
        gap: false,
    };
    leave.bound(&mut subscription);
    Ok(subscription)
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
            match novcomet::poll(hub, subscribed) {
                Ok(body) => json(body),
                Err(mut subscription) => {
                    leave.bound(&mut subscription);
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
            match zeitoun::poll(hub, &site.chat, leave.clamp(seen)) {
                Ok(body) => Ok(Route::Answer(answer(
                    StatusCode::OK,
                    "application/json",
                    body,
                ))),
                Err(mut subscription) => {
                    leave.bound(&mut subscription);
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
    let Some(origin) = headers
        .get(header::ORIGIN)
        .and_then(|origin| origin.to_str().ok())
    else {
        return Cors::None;
    };
    site.origins.of(origin)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        one.split(';')
            .next()
            .is_some_and(|t| t.trim() == media_type)
    })
}

fn only(head: &Parts, methods: &'static str) -> Result<(), Refusal> {
    if methods.split(", ").any(|method| head.method == method) {
        return Ok(());
    }
    let message = format!("{} is not for this path (allowed: {methods})", head.method);
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", message);
    Err(refusal.with(header::ALLOW, methods))
}

fn options(path: &str) -> Response<Bytes> {
    let methods = if path.starts_with("/ch/") {
        CHANNEL_METHODS
    } else {
        PAGE_METHODS
    };
    let mut answer = answer(StatusCode::NO_CONTENT, "text/plain", "");
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in [
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Requested-With, X-Prototype-Version",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
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
