//! The subscribers' paths: `/sub/ch1.b5/ch2`, in five modes.

use std::{sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor};
use hyper::StatusCode;

use super::{
    path,
    publishing::PublishingWebSocket,
    render::Templates,
    start::{self, EachStart, Start},
    transports::{EventSource, Poll, StreamParts, Streaming, WebSocket},
};
use crate::{
    access::{Caller, permission::Credentials},
    api::channel::hold,
    config::PushStreamConfig,
    http::{
        answer::Answer,
        refusal::Refusal,
        request::Request,
        route::{Route, Upgrade},
        upgrade,
    },
    hub::{Hub, READ_BYTES},
    session::websocket::open_session,
    transport::{
        Format, Subscription,
        iframe::Callback,
        websocket::{Handshake, PROTOCOL},
    },
};

/// How a client gets its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Streaming,
    EventSource,
    LongPolling,
    /// Like a long-poll that does not wait.
    Polling,
    WebSocket,
}

pub(super) struct Subscribers {
    templates: Arc<Templates>,
    /// The longest wait of a long-poll.
    wait: Duration,
    /// Whether the clients of WebSockets publish.
    websocket_publish: bool,
}

impl Subscribers {
    pub(super) fn new(config: &PushStreamConfig) -> Self {
        Self {
            templates: Arc::new(Templates::new(config)),
            wait: config.wait,
            websocket_publish: config.websocket_publish,
        }
    }

    /// Routes a request for the channels of `path`, which is decoded.
    pub(super) fn route(
        &self,
        caller: &Caller<'_>,
        hub: &Hub,
        mode: Mode,
        path: &[u8],
    ) -> Result<Route, Refusal> {
        let request = caller.request;
        let requested = path::channels(path)?;
        let channels = requested.iter().map(|requested| requested.channel.clone());
        let channels: Vec<ChannelName> = channels.collect();
        let right = caller.may_read(&channels)?;
        let start = start::of(request, caller.query, hub, &requested, &channels);
        let mode = mode_of(caller, mode);
        if mode == Mode::WebSocket && self.websocket_publish {
            return self.publishing_websocket(caller, start, channels);
        }
        let handshake = match mode {
            Mode::WebSocket => Some(handshake(caller)?),
            _ => None,
        };
        let Start { since, each } = start;
        let starts = each.as_ref().map(|each| each.cursors());
        let mut subscription = Subscription {
            channels: channels.into(),
            since: Some(since),
            wait: match mode {
                Mode::Polling => Some(Duration::ZERO),
                _ => Some(self.wait),
            },
            format: self.format(caller, mode, each)?,
            handshake,
            expires: None,
            gap: false,
        };
        right.bound(hub, &mut subscription);
        Ok(match (subscription.format.kind().is_poll(), starts) {
            (true, Some(starts)) => poll_from_each(hub, request, subscription, &starts),
            _ => hold(hub, request, subscription),
        })
    }

    fn publishing_websocket(
        &self,
        caller: &Caller<'_>,
        start: Start,
        channels: Vec<ChannelName>,
    ) -> Result<Route, Refusal> {
        let handshake = handshake(caller)?;
        let starts = match start.each {
            Some(each) => each.cursors(),
            None => vec![start.since; channels.len()],
        };
        let dialect = PublishingWebSocket {
            templates: self.templates.clone(),
            channels: channels.into_iter().zip(starts).collect(),
        };
        let open = open_session(Credentials::of(caller)?, dialect);
        Ok(Route::Upgrade(Upgrade { handshake, open }))
    }

    fn format(
        &self,
        caller: &Caller<'_>,
        mode: Mode,
        each: Option<Box<EachStart>>,
    ) -> Result<Box<dyn Format>, Refusal> {
        let templates = self.templates.clone();
        let parts = StreamParts {
            templates: templates.clone(),
            heartbeat: caller.site.config.heartbeat,
            each,
        };
        Ok(match mode {
            Mode::Polling | Mode::LongPolling => Box::new(Poll {
                templates,
                callback: callback(caller)?,
            }),
            Mode::Streaming => Box::new(Streaming(parts)),
            Mode::EventSource => Box::new(EventSource(parts)),
            Mode::WebSocket => Box::new(WebSocket(parts)),
        })
    }
}

/// The mode of a request. The path decides, and `mode` is the mode of the path. At every path but that of WebSockets, the header
/// `X-Nginx-PushStream-Mode` can choose polling or long-polling instead.
fn mode_of(caller: &Caller<'_>, mode: Mode) -> Mode {
    let asked = caller.request.texts("x-nginx-pushstream-mode").next();
    match asked.map(str::to_ascii_lowercase).as_deref() {
        _ if mode == Mode::WebSocket => mode,
        Some("polling") => Mode::Polling,
        Some("long-polling") => Mode::LongPolling,
        _ => mode,
    }
}

fn handshake(caller: &Caller<'_>) -> Result<Box<Handshake>, Refusal> {
    caller.may_open_websocket()?;
    let handshake = upgrade::check(caller.request, PROTOCOL);
    handshake.map_err(|error| Refusal::bad("websocket", error))
}

/// `callback=`: the function that a script calls (JSONP). A page of any origin can load a script, so the page is checked.
fn callback(caller: &Caller<'_>) -> Result<Option<Callback>, Refusal> {
    let Some(text) = caller.query.filled("callback") else {
        return Ok(None);
    };
    caller.may_load_script()?;
    let callback = Callback::parse(text).map_err(|error| Refusal::bad("callback", error))?;
    Ok(Some(callback))
}

/// A poll whose channels begin at different messages. If there are messages, they are the answer. Otherwise all channels begin
/// now.
fn poll_from_each(
    hub: &Hub,
    request: &Request<'_>,
    mut subscription: Subscription,
    starts: &[Cursor],
) -> Route {
    let since = subscription.since.unwrap_or_default();
    let mut backlog = hub.since_each(&subscription.channels, starts, since);
    if backlog.messages.is_empty() {
        subscription.since = Some(backlog.cursor);
        return hold(hub, request, subscription);
    }
    backlog.cut(READ_BYTES);
    let mut body = Vec::new();
    subscription.format.news(&backlog, &mut body);
    let mut answer = Answer::empty(StatusCode::OK);
    answer.body = body.into();
    Route::Answer(answer.with_headers_of(&*subscription.format, backlog.cursor, &backlog.messages))
}
