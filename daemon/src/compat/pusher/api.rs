//! The HTTP API of an application: publishes events, and asks about channels and users. Every request is signed.

use std::{borrow::Cow, sync::Arc};

use comet_proto::EventName;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    app::{App, name_in_app},
    channel::{ChannelKind, PusherChannel},
    events::{Event, parse_batch, parse_event},
    frames::TERMINATE,
    signature::SignedRequest,
};
use crate::{
    broker::{NotKept, SourceKind},
    http::{
        answer::Answer,
        date::unix_time,
        request::Request,
        route::{Content, Route},
        site::Site,
    },
    hub::{ChannelFacts, Hub, NewMessage},
};

/// The most channels in one answer.
const MAX_CHANNELS: usize = 10_000;

/// What a request of the API asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Events,
    BatchEvents,
    Channels,
    Channel(String),
    Users(String),
    /// Ends the connections of this user.
    Terminate(String),
}

/// Why a request is refused. The libraries show the text.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    fn new(status: StatusCode, text: impl ToString) -> Self {
        let text = text.to_string();
        Self { status, text }
    }

    pub(crate) fn bad(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn forbidden(text: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    pub(crate) fn too_large(text: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    pub(crate) fn not_found(text: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(crate) fn not_kept(reason: &NotKept) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, reason)
    }

    pub(crate) fn into_answer(self) -> Answer {
        Answer::new(self.status, "text/plain; charset=utf-8", self.text + "\n")
    }
}

impl Call {
    /// The app's id and the call of a path behind `/apps/`. `None`: the API has no such path.
    pub(crate) fn parse(path: &str) -> Option<(Cow<'_, str>, Self)> {
        let parts: Option<Vec<_>> = path
            .split('/')
            .map(|part| {
                percent_encoding::percent_decode_str(part)
                    .decode_utf8()
                    .ok()
            })
            .collect();
        let (app, parts) = parts.as_ref()?.split_first()?;
        let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
        let call = match parts[..] {
            ["events"] => Self::Events,
            ["batch_events"] => Self::BatchEvents,
            ["channels"] => Self::Channels,
            ["channels", name] => Self::Channel(name.into()),
            ["channels", name, "users"] => Self::Users(name.into()),
            ["users", user, "terminate_connections"] => Self::Terminate(user.into()),
            _ => return None,
        };
        Some((app.clone(), call))
    }

    /// The methods of the call, for the header `Allow`.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Self::Events | Self::BatchEvents | Self::Terminate(_) => "POST, OPTIONS",
            Self::Channels | Self::Channel(_) | Self::Users(_) => "GET, HEAD, OPTIONS",
        }
    }
}

/// A request of the API, whose body is still to be read.
pub(crate) struct ApiRequest {
    app: Arc<App>,
    call: Call,
    signed: SignedRequest,
    max_data: usize,
}

impl ApiRequest {
    pub(crate) fn new(app: &Arc<App>, call: Call, request: &Request<'_>, max_data: usize) -> Self {
        Self {
            app: app.clone(),
            call,
            signed: SignedRequest::of(request),
            max_data,
        }
    }

    /// Serves the request, when its body is known.
    pub(crate) fn route(self, content: Content<'_>, site: &Site, hub: &Hub) -> Route {
        match content {
            Content::Empty => self.serve(site, hub, b""),
            Content::Whole(body) => self.serve(site, hub, body),
            Content::Some | Content::Unknown | Content::Unannounced => {
                Route::Body(Box::new(move |site, hub, body| {
                    Ok(self.serve(site, hub, body))
                }))
            }
        }
    }

    fn serve(self, site: &Site, hub: &Hub, body: &[u8]) -> Route {
        let now = unix_time().as_secs();
        if let Err(error) = self.signed.check(&self.app, body, now) {
            let text = format!("not signed by the app: {error}");
            return Route::Answer(ApiError::new(StatusCode::UNAUTHORIZED, text).into_answer());
        }
        let route = match &self.call {
            Call::Events => {
                parse_event(body).and_then(|event| self.publish(&[event], site, hub, single))
            }
            Call::BatchEvents => {
                parse_batch(body).and_then(|batch| self.publish(&batch, site, hub, batched))
            }
            Call::Channels => self.channels(site, hub).map(Route::Answer),
            Call::Channel(name) => self.channel(name, site, hub).map(Route::Answer),
            Call::Users(name) => self.users(name, site).map(Route::Answer),
            Call::Terminate(user) => self.terminate(user, site),
        };
        route.unwrap_or_else(|error| Route::Answer(error.into_answer()))
    }

    /// Publishes all events, or none if one of them is refused. `answer` makes the answer from what the events ask for.
    fn publish(
        &self,
        events: &[Event],
        site: &Site,
        hub: &Hub,
        answer: fn(Vec<Map<String, Value>>) -> Value,
    ) -> Result<Route, ApiError> {
        if site.is_stopping() {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the daemon is stopping; publish again when it is back",
            ));
        }
        let checked = events
            .iter()
            .map(|event| event.check(&self.app, site, self.max_data));
        let checked: Vec<_> = checked.collect::<Result<_, _>>()?;
        let mut last = None;
        for event in checked {
            last = Some(event.publish(site)?);
        }
        let facts = events.iter().map(|event| self.facts_of(event, site, hub));
        let body = answer(facts.collect::<Result<_, _>>()?).to_string();
        let Some(receipt) = last else {
            return Ok(Route::Answer(Answer::json(body)));
        };
        // When the last message is kept, the messages before it are kept, too.
        Ok(Route::Published(
            receipt,
            Box::new(move |_| Answer::json(body)),
        ))
    }

    /// What an event asks for about its channels, by the channels' names.
    fn facts_of(
        &self,
        event: &Event,
        site: &Site,
        hub: &Hub,
    ) -> Result<Map<String, Value>, ApiError> {
        let Some(info) = &event.info else {
            return Ok(Map::new());
        };
        let names = event.channel_names().into_iter();
        let facts = names.map(|name| {
            let channel = PusherChannel::parse(&self.app, name).map_err(ApiError::bad)?;
            let facts = hub.channel_facts(&channel.channel);
            Ok((
                name.to_owned(),
                self.info(info, &channel, facts.as_ref(), site, hub),
            ))
        });
        facts.collect()
    }

    /// The facts that `info` lists.
    fn info(
        &self,
        info: &str,
        channel: &PusherChannel<'_>,
        facts: Option<&ChannelFacts>,
        site: &Site,
        hub: &Hub,
    ) -> Value {
        let mut answer = Map::new();
        for wanted in info.split(',') {
            let value = match wanted.trim() {
                "subscription_count" => json!(facts.map_or(0, |facts| facts.subscribers)),
                "user_count" if channel.kind == ChannelKind::Presence => {
                    json!(site.presence.members(&channel.channel, None).count)
                }
                "cache" if channel.is_cache => last_event(channel, hub),
                _ => continue,
            };
            answer.insert(wanted.trim().to_owned(), value);
        }
        Value::Object(answer)
    }

    fn channels(&self, site: &Site, hub: &Hub) -> Result<Answer, ApiError> {
        let prefix = self
            .signed
            .parameter("filter_by_prefix")
            .unwrap_or_default();
        let info = self.signed.parameter("info").unwrap_or_default();
        let is_asked_for = |channel: &comet_proto::ChannelName| {
            !channel.is_internal()
                && self.app.owns(channel)
                && name_in_app(channel.as_str()).starts_with(prefix)
        };
        let mut channels = Map::new();
        for (channel, facts) in hub.facts_of_channels(MAX_CHANNELS, is_asked_for) {
            let name = name_in_app(channel.as_str());
            let Ok(parsed) = PusherChannel::parse(&self.app, &name) else {
                continue; // a channel that Pusher cannot name
            };
            if facts.subscribers > 0 {
                let info = self.info(info, &parsed, Some(&facts), site, hub);
                channels.insert(name, info);
            }
        }
        Ok(Answer::json(json!({"channels": channels}).to_string()))
    }

    fn channel(&self, name: &str, site: &Site, hub: &Hub) -> Result<Answer, ApiError> {
        let channel = PusherChannel::parse(&self.app, name).map_err(ApiError::bad)?;
        let facts = hub.channel_facts(&channel.channel);
        let is_occupied = facts.as_ref().is_some_and(|facts| facts.subscribers > 0);
        let info = self.signed.parameter("info").unwrap_or_default();
        let mut answer = self.info(info, &channel, facts.as_ref(), site, hub);
        answer["occupied"] = is_occupied.into();
        Ok(Answer::json(answer.to_string()))
    }

    fn users(&self, name: &str, site: &Site) -> Result<Answer, ApiError> {
        let channel = PusherChannel::parse(&self.app, name).map_err(ApiError::bad)?;
        if channel.kind != ChannelKind::Presence {
            return Err(ApiError::bad("users are known of presence channels only"));
        }
        let mut users = Vec::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            let members = site.presence.members(&channel.channel, after.as_deref());
            let present = members.list.iter();
            users.extend(present.map(|present| json!({"id": &**present.member.id()})));
            after = members.next;
            if after.is_none() {
                return Ok(Answer::json(json!({"users": users}).to_string()));
            }
        }
    }

    fn terminate(&self, user: &str, site: &Site) -> Result<Route, ApiError> {
        let channel = self.app.user_channel(user);
        let channel = channel.ok_or_else(|| ApiError::bad("the user's id is too long"))?;
        let receipt = site.broker.publish(
            SourceKind::Client,
            NewMessage {
                channels: channel.into(),
                name: EventName::parse(TERMINATE).expect("a short word"),
                data: (&b""[..]).into(),
                attributes: None,
                key: None,
            },
        );
        if let Some(reason) = receipt.refusal() {
            return Err(ApiError::not_kept(reason));
        }
        Ok(Route::Published(receipt, Box::new(|_| Answer::json("{}"))))
    }
}

/// The last event of a cache channel, as the API describes it.
fn last_event(channel: &PusherChannel<'_>, hub: &Hub) -> Value {
    let newest = hub.newest(&channel.channel, 1);
    newest.first().map_or(
        Value::Null,
        |message| json!({"data": String::from_utf8_lossy(&message.data), "ttl": null}),
    )
}

/// The answer to one event: an object, also if it is empty, because PHP's library needs one.
fn single(mut facts: Vec<Map<String, Value>>) -> Value {
    match facts.pop() {
        Some(facts) if !facts.is_empty() => json!({"channels": facts}),
        _ => json!({}),
    }
}

/// The answer to a batch: one object for each event if one of them has asked for something.
fn batched(facts: Vec<Map<String, Value>>) -> Value {
    if facts.iter().all(Map::is_empty) {
        return json!({});
    }
    let one = |facts: Map<String, Value>| {
        facts
            .into_iter()
            .next()
            .map_or(json!({}), |(_, facts)| facts)
    };
    json!({"batch": facts.into_iter().map(one).collect::<Vec<_>>()})
}
