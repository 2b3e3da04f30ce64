//! nchan's subscriber: finds the channels, the cursor and the transport of a request.

use comet_proto::{ChannelName, ChannelNames, Cursor};
use hyper::StatusCode;

use super::{channel, events::Events, frames::Frames, poll::Poll};
use crate::{
    access::Caller,
    api::{channel::hold, media::Accepted},
    compat::http_push::{Seen, parse_pair},
    config::{FirstMessage, NchanConfig},
    http::{refusal::Refusal, request::Request, route::Route, upgrade},
    hub::Hub,
    transport::{Format, Subscription},
};

/// The subprotocol whose frames begin with the message's id.
const META: &str = "ws+meta.nchan";

/// Routes a subscription to these channels. Their names are percent-encoded and separated by commas.
pub(super) fn route(
    config: &NchanConfig,
    caller: &Caller<'_>,
    hub: &Hub,
    names: &str,
) -> Result<Route, Refusal> {
    let request = caller.request;
    if let Some(what) = unknown_transport(request) {
        let message = format!("{what} is not served; use long-poll, EventSource or WebSocket");
        let answer = super::refusal(StatusCode::NOT_ACCEPTABLE, &message);
        return Ok(Route::Answer(answer));
    }
    let channels = channels(names)?;
    let right = caller.may_read(&channels)?;
    let since = since(config, caller)?;
    let heartbeat = caller.site.config.heartbeat;
    let (mut wait, mut handshake) = (None, None);
    let format: Box<dyn Format> = if upgrade::is_asked_for(request) {
        caller.may_open_websocket()?;
        let checked = upgrade::check(request, META).map_err(|e| Refusal::bad("websocket", e))?;
        let has_meta = checked.protocol.is_some();
        handshake = Some(checked);
        Box::new(Frames {
            heartbeat,
            has_meta,
        })
    } else if wants_events(request) {
        Box::new(Events { heartbeat })
    } else {
        wait = match config.interval_poll {
            true => Some(std::time::Duration::ZERO),
            false => config.timeout,
        };
        Box::new(Poll {
            is_interval: config.interval_poll,
        })
    };
    let mut subscription = Subscription {
        channels: channels.to_vec().into(),
        since,
        wait,
        format,
        handshake,
        expires: None,
        gap: false,
    };
    right.bound(hub, &mut subscription);
    Ok(hold(hub, request, subscription))
}

/// Whether the client asks for an event stream.
pub(super) fn wants_events(request: &Request<'_>) -> bool {
    Accepted::of(request).prefers_stream()
}

/// The name of the transport that the client asks for, if it is one of nchan's that the daemon does not have.
fn unknown_transport(request: &Request<'_>) -> Option<&'static str> {
    let lists = |header, value: &str| {
        let mut elements = request.list(header);
        elements.any(|element| {
            let name = element.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case(value)
        })
    };
    match () {
        () if lists("accept", "multipart/mixed") => Some("multipart/mixed"),
        () if lists("te", "chunked") => Some("a chunked stream"),
        () => None,
    }
}

fn channels(names: &str) -> Result<ChannelNames, Refusal> {
    let names: Result<Vec<ChannelName>, _> = names.split(',').map(channel).collect();
    let names = names?;
    let names = ChannelNames::parse(names.iter().map(|name| &**name));
    names.map_err(|e| Refusal::bad("channels", e))
}

/// The cursor after which the client reads. `None`: from now on. The headers of caches take precedence over `Last-Event-ID`, this
/// header over the parameter `last_event_id`, and the parameter over a header `Etag`. A malformed value counts as none.
fn since(config: &NchanConfig, caller: &Caller<'_>) -> Result<Option<Cursor>, Refusal> {
    let request = caller.request;
    match Seen::in_headers(request) {
        Seen::Message(cursor) => return Ok(Some(cursor)),
        // Without the tag the client would get the first message of the second again and again.
        Seen::Second(_) => {
            let message = "Message ID invalid: If-Modified-Since needs If-None-Match; a proxy in between must pass Etag on";
            return Err(Refusal::bad("If-None-Match", message));
        }
        Seen::Nothing => {}
    }
    let header = request.texts("last-event-id").find_map(parse_pair);
    let parameter = || caller.query.filled("last_event_id").and_then(parse_pair);
    // NchanSubscriber.js, when it is loaded again and uses long-poll.
    let etag = || request.texts("etag").find_map(parse_pair);
    let seen = header.or_else(parameter).or_else(etag);
    Ok(seen.or(match config.first {
        FirstMessage::Oldest => Some(Cursor(0)),
        FirstMessage::Newest => None,
    }))
}
