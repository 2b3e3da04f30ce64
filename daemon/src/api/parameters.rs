//! Parses the parts of a request that `/ch/` understands, each with its rule.

use std::time::Duration;

use comet_proto::{
    Attributes, ChannelName, ChannelNames, ChannelNamesError, Cursor, EventName, Since,
};

use crate::{
    http::{
        query::Query,
        refusal::Refusal,
        request::{Repeated, Request, text},
    },
    transport::{Channels, Transport, iframe::Callback},
};

/// The longest wait of a poll, and the default wait, in seconds.
const MAX_WAIT: u64 = 60;
const DEFAULT_WAIT: u64 = 25;

/// The cursor for a client that returns an id or a tag which this daemon has not created. The hub reports a gap for it, because
/// it is higher than every assigned id.
pub(crate) const UNKNOWN: Since = Since::Id(Cursor(u64::MAX));

/// Query parameters in which clients return the last id if they cannot set the header `Last-Event-ID`: polyfills of
/// EventSource (Yaffle's, amvtek's), clients of Mercure, and clients of nchan.
const ID_PARAMETERS: [&str; 5] = [
    "lastEventId",
    "Last-Event-ID",
    "lastEventID",
    "evs_last_event_id",
    "last_event_id",
];

/// The query of a request. Refuses a query that is not UTF-8, because its bytes would be read as U+FFFD.
pub(crate) fn query<'a>(request: &Request<'a>) -> Result<Query<'a>, Refusal> {
    let text = request.query.unwrap_or_default();
    let is_utf8 = !text.contains('%')
        || percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .is_ok();
    is_utf8
        .then(|| Query::of(request))
        .ok_or_else(|| Refusal::bad("query", "query is not UTF-8"))
}

/// `wait=`: the longest wait of a poll, in whole seconds.
pub(crate) fn wait(query: &Query<'_>) -> Result<Duration, Refusal> {
    let Some(text) = query.get("wait") else {
        return Ok(Duration::from_secs(DEFAULT_WAIT));
    };
    let wait = text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT);
    let rule = || format!("wait must be whole seconds from 0 to {MAX_WAIT}");
    wait.map(Duration::from_secs)
        .ok_or_else(|| Refusal::bad("wait", rule()))
}

/// `since=`: the cursor to start after. An empty value counts as none. The last of several values counts.
pub(crate) fn since(query: &Query<'_>) -> Result<Option<Since>, Refusal> {
    let since = query.filled("since").map(Since::parse).transpose();
    since.map_err(|e| Refusal::bad("since", e))
}

/// The last id that the client has received. If the request has none, the cursor in `since=`.
pub(crate) fn seen_or_since(
    query: &Query<'_>,
    seen: Option<Since>,
) -> Result<Option<Since>, Refusal> {
    seen.map_or_else(|| since(query), |seen| Ok(Some(seen)))
}

/// The last id that the client has received: from the header `Last-Event-ID` (HTML standard), or else from one of the
/// parameters that replace the header. An empty value counts as none. The last of several values with one name counts.
pub(crate) fn last_event_id(
    request: &Request<'_>,
    query: &Query<'_>,
) -> Result<Option<Since>, Refusal> {
    let lines = request.values("last-event-id");
    let header = lines.filter(|value| !value.is_empty()).last();
    let header = header.map(|value| ("last-event-id", text(value).unwrap_or_default()));
    let parameter = || {
        let mut names = ID_PARAMETERS.into_iter();
        names.find_map(|name| Some((name, query.filled(name)?)))
    };
    let Some((name, text)) = header.or_else(parameter) else {
        return Ok(None);
    };
    let refuse = |error| Refusal::bad(name, format!("{name}: {error}"));
    Since::parse(text).map(Some).map_err(refuse)
}

/// `presence=`: whether the client wants to be a member of its channels, and to get presence messages.
pub(crate) fn presence(query: &Query<'_>) -> Result<bool, Refusal> {
    match query.get("presence") {
        Some("1") => Ok(true),
        None | Some("0") => Ok(false),
        Some(_) => Err(Refusal::bad("presence", "presence must be 1 or 0")),
    }
}

/// `as=`: the transport.
pub(crate) fn transport(query: &Query<'_>) -> Result<Option<Transport>, Refusal> {
    let refuse = |name: &str| {
        let name: String = name.chars().take(32).collect();
        let known = Transport::NAMES;
        Refusal::bad("as", format!("no transport {name:?} (known: {known})"))
    };
    let transport = |name| Transport::parse(name).ok_or_else(|| refuse(name));
    query.get("as").map(transport).transpose()
}

/// `callback=`: the function that an iframe calls.
pub(crate) fn callback(query: &Query<'_>) -> Result<Callback, Refusal> {
    let text = query.get("callback").ok_or_else(|| {
        Refusal::bad(
            "callback",
            "as=iframe needs callback=, the function to call, such as comet.show",
        )
    })?;
    Callback::parse(text).map_err(|e| Refusal::bad("callback", e))
}

/// `name=`: the label of a published message.
pub(crate) fn event_name(query: &Query<'_>) -> Result<EventName, Refusal> {
    let name = EventName::parse(query.get("name").unwrap_or_default());
    name.map_err(|e| Refusal::bad("name", e))
}

/// `attribute.KEY=TEXT`: the attributes of a published message.
pub(crate) fn attributes(query: &Query<'_>) -> Result<Option<Box<Attributes>>, Refusal> {
    let pairs = query.pairs();
    let pairs = pairs.filter_map(|(name, text)| Some((name.strip_prefix("attribute.")?, text)));
    let attributes = Attributes::parse(&pairs.collect::<Vec<_>>());
    attributes.map_err(|e| Refusal::bad("attributes", e))
}

/// Parses `NAMES` of `/ch/NAMES`: percent-encoded and separated by commas.
pub(crate) fn channels(names: &str) -> Result<Channels, Refusal> {
    // Nearly always there is one name without escapes.
    if let Ok(one) = ChannelName::parse(names) {
        return Ok(Channels::One(one));
    }
    Ok(channel_names(names)?.to_vec().into())
}

/// Like [`channels`], for the channels of a message.
pub(crate) fn channel_names(names: &str) -> Result<ChannelNames, Refusal> {
    if let Ok(one) = ChannelName::parse(names) {
        return Ok(one.into());
    }
    let text = percent_encoding::percent_decode_str(names)
        .decode_utf8()
        .map_err(|_| Refusal::bad("channel", comet_proto::ChannelNameError::NotUtf8))?;
    ChannelNames::parse(text.split(',')).map_err(|e| {
        let code = if matches!(e, ChannelNamesError::Name(_)) {
            "channel"
        } else {
            "channels"
        };
        Refusal::bad(code, e)
    })
}

/// Parses `Idempotency-Key`: visible ASCII, given at most once.
pub(crate) fn idempotency_key(request: &Request<'_>) -> Result<Option<String>, Refusal> {
    let max = comet_proto::line::MAX_KEY;
    let only = request.only("idempotency-key");
    let value = only.map_err(|Repeated| Refusal::bad("idempotency-key", "more than one key"))?;
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match text(value) {
        Some(text) if text.len() <= max && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(text.to_owned()))
        }
        _ => Err(Refusal::bad(
            "idempotency-key",
            format!("key must be visible ASCII without blanks, {max} bytes at most"),
        )),
    }
}
