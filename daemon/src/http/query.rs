//! Parses the parts of a request that `/ch/` understands, each with its rule.

use std::{borrow::Cow, time::Duration};

use comet_proto::{
    Attributes, ChannelName, ChannelNames, ChannelNamesError, Cursor, EventName, Since,
};

use super::{
    answer::Refusal,
    request::{Repeated, Request, text},
};
use crate::transport::{Channels, Transport, iframe::Callback};

/// The longest wait of a poll, and the default wait, in seconds.
const MAX_WAIT: u64 = 60;
const DEFAULT_WAIT: u64 = 25;

/// The cursor for a client that returns an id or a tag which this daemon has not made. It lies after every message,
/// which the hub reports as a gap.
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

/// The decoded pairs of a query.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn of(request: &Request<'a>) -> Self {
        let query = request.query.unwrap_or_default();
        if query.contains(['%', '+']) {
            return Self(form_urlencoded::parse(query.as_bytes()).collect());
        }
        // Nothing is escaped in the query of nearly every poll.
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The pairs of a query. Refuses a query that is not UTF-8, because its bytes would be read as U+FFFD.
    pub(crate) fn of_utf8(request: &Request<'a>) -> Result<Self, Refusal> {
        let query = request.query.unwrap_or_default();
        let is_utf8 = !query.contains('%')
            || percent_encoding::percent_decode_str(query)
                .decode_utf8()
                .is_ok();
        is_utf8
            .then(|| Self::of(request))
            .ok_or_else(|| Refusal::bad("query", "query is not UTF-8"))
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The last value of this parameter.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rfind(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// `wait=`: the longest wait of a poll, in whole seconds.
    pub(crate) fn wait(&self) -> Result<Duration, Refusal> {
        let Some(text) = self.get("wait") else {
            return Ok(Duration::from_secs(DEFAULT_WAIT));
        };
        let wait = text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT);
        let rule = || {
            Refusal::bad(
                "wait",
                format!("wait must be whole seconds from 0 to {MAX_WAIT}"),
            )
        };
        wait.map(Duration::from_secs).ok_or_else(rule)
    }

    /// `since=`: the cursor to start after. An empty value counts as none. The last of several values counts.
    pub(crate) fn since(&self) -> Result<Option<Since>, Refusal> {
        let text = self.last_of("since").map(|(_, text)| text);
        let since = text.map(Since::parse).transpose();
        since.map_err(|e| Refusal::bad("since", e))
    }

    /// The last id that the client was given, or else `since=`. `since=` is not read if there is such an id.
    pub(crate) fn seen_or_since(&self, seen: Option<Since>) -> Result<Option<Since>, Refusal> {
        seen.map_or_else(|| self.since(), |seen| Ok(Some(seen)))
    }

    /// The last id that the client was given: from the header `Last-Event-ID` (HTML standard), or else from one of the
    /// parameters that replace the header. An empty value counts as none. The last of several values with one name
    /// counts.
    pub(crate) fn last_event_id(&self, request: &Request<'_>) -> Result<Option<Since>, Refusal> {
        let lines = request.values("last-event-id");
        let header = lines.filter(|value| !value.is_empty()).last();
        let header = header.map(|value| ("last-event-id", text(value).unwrap_or_default()));
        let parameter = || {
            ID_PARAMETERS
                .into_iter()
                .find_map(|name| self.last_of(name))
        };
        let Some((name, text)) = header.or_else(parameter) else {
            return Ok(None);
        };
        let refuse = |error| Refusal::bad(name, format!("{name}: {error}"));
        Since::parse(text).map(Some).map_err(refuse)
    }

    /// The last value of this parameter that is not empty.
    fn last_of(&self, name: &'static str) -> Option<(&'static str, &str)> {
        let is_one =
            |(known, value): &&(Cow<'_, str>, Cow<'_, str>)| known == name && !value.is_empty();
        self.0
            .iter()
            .rfind(is_one)
            .map(|(_, value)| (name, &**value))
    }

    /// `as=`: the transport.
    pub(crate) fn transport(&self) -> Result<Option<Transport>, Refusal> {
        let refuse = |name: &str| {
            let name: String = name.chars().take(32).collect();
            let known = Transport::NAMES;
            Refusal::bad("as", format!("no transport {name:?} (known: {known})"))
        };
        let transport = |name| Transport::parse(name).ok_or_else(|| refuse(name));
        self.get("as").map(transport).transpose()
    }

    /// `token=`: the token, which is never logged.
    pub(crate) fn token(&self) -> Option<&str> {
        self.get("token").filter(|token| !token.is_empty())
    }

    /// `callback=`: the function that an iframe calls.
    pub(crate) fn callback(&self) -> Result<Callback, Refusal> {
        let text = self.get("callback").ok_or_else(|| {
            Refusal::bad(
                "callback",
                "as=iframe needs callback=, the function to call, such as comet.show",
            )
        })?;
        Callback::parse(text).map_err(|e| Refusal::bad("callback", e))
    }

    /// `name=`: the label of a published message.
    pub(crate) fn event_name(&self) -> Result<EventName, Refusal> {
        let name = EventName::parse(self.get("name").unwrap_or_default());
        name.map_err(|e| Refusal::bad("name", e))
    }

    /// `attribute.KEY=TEXT`: the attributes of a published message.
    pub(crate) fn attributes(&self) -> Result<Option<Box<Attributes>>, Refusal> {
        let pairs = self.pairs();
        let pairs = pairs.filter_map(|(name, text)| Some((name.strip_prefix("attribute.")?, text)));
        let attributes = Attributes::parse(&pairs.collect::<Vec<_>>());
        attributes.map_err(|e| Refusal::bad("attributes", e))
    }
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
