//! `/ch/NAMES`: subscriptions, with one line for each transport, and the way to a publish.

use comet_proto::Since;
use hyper::{Method, StatusCode, Version};

use super::{
    entity_tag,
    media::Accepted,
    parameters::{self, seen_or_since},
    presence, publish,
};
use crate::{
    access::Caller,
    http::{
        answer::Answer,
        query::Query,
        refusal::{ClientKind, Reason, Refusal},
        request::Request,
        route::{Content, Route},
        upgrade::{self, HandshakeError},
    },
    hub::Hub,
    transport::{
        Format, Status, Subscription, Transport,
        iframe::Iframe,
        longpoll::LongPoll,
        sse::Sse,
        websocket::{PROTOCOL, WebSocket},
    },
};

/// Routes a request for `/ch/NAMES`.
pub(super) fn route(
    caller: &Caller<'_>,
    content: Content<'_>,
    hub: &Hub,
    names: &str,
) -> Result<Route, Refusal> {
    if caller.request.method == Method::POST {
        return publish::route(caller, content, names);
    }
    let subscription = subscription(caller, hub, names)?;
    Ok(hold(hub, caller.request, subscription))
}

/// The kind of client that subscribes with this request.
pub(super) fn client_kind(request: &Request<'_>) -> ClientKind {
    let query = Query::of(request);
    let is_stream = match parameters::transport(&query) {
        Ok(Some(transport)) => transport == Transport::Sse,
        Ok(None) => Accepted::of(request).prefers_stream(),
        Err(_) => false,
    };
    match is_stream {
        true => ClientKind::EventSource,
        false => ClientKind::Other,
    }
}

/// Parses a subscription: the last id that the client has, and the transport. `as=` names the transport, or else the
/// headers decide.
fn subscription(caller: &Caller<'_>, hub: &Hub, names: &str) -> Result<Subscription, Refusal> {
    let (request, query) = (caller.request, caller.query);
    let channels = parameters::channels(names)?;
    let right = caller.may_read(&channels)?;
    let heartbeat = caller.site.config.heartbeat;
    let by_headers = || match () {
        () if upgrade::is_asked_for(request) => Transport::WebSocket,
        () if Accepted::of(request).prefers_stream() => Transport::Sse,
        () => Transport::LongPoll,
    };
    let seen = parameters::last_event_id(request, query);
    let transport = parameters::transport(query)?.unwrap_or_else(by_headers);
    let (mut wait, mut handshake) = (None, None);
    let (since, format): (Option<Since>, Box<dyn Format>) = match transport {
        Transport::LongPoll => {
            wait = Some(parameters::wait(query)?);
            let since = seen_or_since(query, seen?)?;
            let since = since.or_else(|| entity_tag::cursor(request));
            (since, Box::new(LongPoll))
        }
        Transport::Sse => {
            // A refusal would end a browser's EventSource for good. With a gap instead, the page loads its state and
            // goes on.
            let seen = seen.unwrap_or(Some(parameters::UNKNOWN));
            (seen_or_since(query, seen)?, Box::new(Sse { heartbeat }))
        }
        Transport::Iframe => {
            let callback = parameters::callback(query)?;
            let format = Iframe {
                callback,
                heartbeat,
            };
            (seen_or_since(query, seen?)?, Box::new(format))
        }
        Transport::WebSocket => {
            caller.may_open_websocket()?;
            let checked = upgrade::check(request, PROTOCOL);
            handshake = Some(checked.map_err(|error| no_websocket(request, error))?);
            let format = WebSocket { heartbeat };
            (seen_or_since(query, seen?)?, Box::new(format))
        }
    };
    let (channels, format) = presence::add(caller, channels, format)?;
    let mut subscription = Subscription {
        channels,
        since: since.map(|since| hub.resolve(since)),
        wait,
        format,
        handshake,
        expires: None,
        gap: false,
    };
    right.bound(hub, &mut subscription);
    Ok(subscription)
}

/// The refusal of a WebSocket. A 426 names the protocol and version that the server wants (RFC 9110, section 15.5.22;
/// RFC 6455, section 4.4). HTTP/2 has no such answer (RFC 9113, section 8.2.2).
pub(crate) fn no_websocket(request: &Request<'_>, error: HandshakeError) -> Refusal {
    let is_malformed = matches!(error, HandshakeError::Names | HandshakeError::Protocol(_));
    if is_malformed || request.version > Version::HTTP_11 {
        return Refusal::bad("websocket", error);
    }
    Refusal::new(Reason::NoUpgrade, error.to_string())
}

/// Answers `HEAD` with the headers that `GET` would get: for a poll that does not wait, and for a stream. Other
/// requests wait.
pub(crate) fn hold(hub: &Hub, request: &Request<'_>, subscription: Subscription) -> Route {
    if request.method != Method::HEAD {
        return Route::Hold(subscription);
    }
    let format = &subscription.format;
    let since = subscription.since.unwrap_or_else(|| hub.last());
    if !format.kind().is_poll() || subscription.wait.is_none() {
        let answer = Answer::empty(StatusCode::OK);
        return Route::Answer(answer.with_headers_of(&**format, since, &[]));
    }
    let mut backlog = hub.since(&subscription.channels, since);
    backlog.gap |= subscription.gap;
    let mut body = Vec::new();
    let status = match backlog.is_news() {
        true => {
            format.news(&backlog, &mut body);
            Status::Ok
        }
        false => format.nothing(backlog.cursor, &mut body),
    };
    let mut answer = Answer::empty(status.into());
    answer.body = body.into();
    Route::Answer(answer.with_headers_of(&**format, backlog.cursor, &backlog.messages))
}
