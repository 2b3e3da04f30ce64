//! Where a subscription begins: after the last message that the client has seen, with the last messages of some channels, or
//! now.

use std::{cell::Cell, sync::Arc};

use comet_proto::{ChannelName, Cursor, Message, Since};

use super::{path::RequestedChannel, render::EVENT_ID};
use crate::{
    compat::http_push::{self, Seen},
    http::{query::Query, request::Request},
    hub::Hub,
};

/// The most messages that one request searches for an `Event-Id`, and the most that it gets of a channel by `.bN`.
const MOST_SEARCHED: usize = 10_000;

/// Where a subscription begins.
pub(super) struct Start {
    pub(super) since: Cursor,
    /// Set if the channels begin at different messages.
    pub(super) each: Option<Box<EachStart>>,
}

/// For each channel the id after which its messages are sent.
pub(super) struct EachStart {
    channels: Box<[(ChannelName, Cursor)]>,
    /// After this id all messages are sent.
    until: Cursor,
    is_over: Cell<bool>,
}

impl EachStart {
    pub(super) fn cursors(&self) -> Vec<Cursor> {
        self.channels.iter().map(|(_, start)| *start).collect()
    }

    /// Whether all further messages are sent.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Notes that the client has got the messages up to this cursor.
    pub(super) fn pass(&self, cursor: Cursor) {
        self.is_over.set(cursor >= self.until);
    }

    /// Whether the client gets this message.
    pub(super) fn includes(&self, message: &Message) -> bool {
        let begins = |name: &ChannelName| {
            let known = self.channels.iter().find(|(known, _)| known == name);
            known.is_some_and(|(_, start)| message.id > start.0)
        };
        message.id > self.until.0 || message.channels.iter().any(begins)
    }
}

/// Finds where the subscription of a request begins. The last message that the client has seen takes precedence over the
/// numbers of messages in the path: otherwise a client that polls again with the same path would get messages twice.
pub(super) fn of(
    request: &Request<'_>,
    query: &Query<'_>,
    hub: &Hub,
    requested: &[RequestedChannel],
    channels: &[ChannelName],
) -> Start {
    if let Some(since) = seen(request, query, hub, channels) {
        return Start { since, each: None };
    }
    let now = hub.last();
    let start = |requested: &RequestedChannel| {
        let messages = hub.newest(&requested.channel, requested.backtrack.min(MOST_SEARCHED));
        let first = messages.first().map(|first| Cursor(first.id - 1));
        first.map_or(now, |start| start.min(now))
    };
    let starts: Vec<Cursor> = requested.iter().map(start).collect();
    let since = starts.iter().copied().min().unwrap_or(now);
    let each = starts.iter().any(|start| *start != since).then(|| {
        Box::new(EachStart {
            channels: channels.iter().cloned().zip(starts).collect(),
            until: now,
            is_over: Cell::new(false),
        })
    });
    Start { since, each }
}

/// The last message that the client has seen. The first of these that says something counts: the header `Last-Event-ID`, which
/// an EventSource sends by itself; the arguments `time` and `tag`; the argument `eventid`; the headers `If-Modified-Since` and
/// `If-None-Match`.
fn seen(
    request: &Request<'_>,
    query: &Query<'_>,
    hub: &Hub,
    channels: &[ChannelName],
) -> Option<Cursor> {
    let event = |id: &str| http_push::parse_pair(id).or_else(|| after_event(hub, channels, id));
    let header = request.values("last-event-id").next();
    let header = header.and_then(|value| str::from_utf8(value).ok());
    let pair = |seen: Seen| match seen {
        Seen::Nothing => None,
        Seen::Second(Cursor(time)) => Some(hub.resolve(Since::Time(time))),
        Seen::Message(cursor) => Some(cursor),
    };
    header
        .and_then(event)
        .or_else(|| pair(Seen::of(query.filled("time"), query.filled("tag"))))
        .or_else(|| query.filled("eventid").and_then(event))
        .or_else(|| pair(Seen::in_headers(request)))
}

/// The first message with this `Event-Id` among the newest messages of the channels. An empty id is none.
fn after_event(hub: &Hub, channels: &[ChannelName], id: &str) -> Option<Cursor> {
    let count = MOST_SEARCHED / channels.len().max(1);
    let is_it = |message: &Arc<Message>| http_push::attribute(message, EVENT_ID) == Some(id);
    let first = |channel: &ChannelName| hub.newest(channel, count).into_iter().find(is_it);
    let found = channels.iter().filter(|_| !id.is_empty()).filter_map(first);
    found.map(|message| Cursor(message.id)).min()
}
