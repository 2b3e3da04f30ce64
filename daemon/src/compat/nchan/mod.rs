//! nchan's publisher and subscriber over HTTP. A publisher posts to `PREFIX/CHANNEL`, a subscriber gets `PREFIX/CHANNEL` or
//! `PREFIX/CHANNEL,CHANNEL` by long-poll, as an event stream, or by WebSocket.
//!
//! nchan lets the operator choose the paths, so the two prefixes are settings. If both are the same, `GET` subscribes and
//! `POST` publishes there. The cursor is that of `http_push`.

mod events;
mod frames;
mod info;
mod poll;
mod publisher;
mod subscriber;

use comet_proto::ChannelName;
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::names;
use crate::{
    access::Caller,
    api::endpoint::{Endpoint, UrlPath},
    config::NchanConfig,
    http::{
        answer::Answer,
        refusal::{ClientKind, Refusal},
        request::Request,
        route::{Content, Route},
    },
    hub::Hub,
};

const PUBLISHER: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
const SUBSCRIBER: &str = "GET, HEAD, OPTIONS";
/// Of a path that is both.
const BOTH: &str = "GET, HEAD, POST, OPTIONS";

pub(super) struct Nchan {
    config: NchanConfig,
}

impl Nchan {
    pub(super) fn new(config: NchanConfig) -> Self {
        Self { config }
    }
}

impl Endpoint for Nchan {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        let is_publisher = path.after(&self.config.publish).is_some();
        let is_subscriber = path.after(&self.config.subscribe).is_some();
        match (is_publisher, is_subscriber) {
            (true, true) => Some(BOTH),
            (true, false) => Some(PUBLISHER),
            (false, true) => Some(SUBSCRIBER),
            (false, false) => None,
        }
    }

    fn route(
        &self,
        caller: &Caller<'_>,
        content: Content<'_>,
        hub: &Hub,
    ) -> Result<Route, Refusal> {
        let path = UrlPath::new(caller.request.path);
        let subscribes = matches!(caller.request.method, Method::GET | Method::HEAD);
        if subscribes && let Some(names) = path.after(&self.config.subscribe) {
            return subscriber::route(&self.config, caller, hub, names);
        }
        let name = path.after(&self.config.publish).unwrap_or_default();
        publisher::route(caller, content, hub, name)
    }

    fn client_kind(&self, request: &Request<'_>) -> ClientKind {
        match request.method == Method::GET && subscriber::wants_events(request) {
            true => ClientKind::EventSource,
            false => ClientKind::OtherProtocol(refusal),
        }
    }
}

/// A refusal is the reason as plain text.
fn refusal(status: StatusCode, message: &str) -> Answer {
    Answer::new(status, "text/plain; charset=utf-8", format!("{message}\n"))
}

/// The channel with this name, which is percent-encoded.
fn channel(name: &str) -> Result<ChannelName, Refusal> {
    let foreign: Vec<u8> = percent_decode_str(name).collect();
    let channel = names::channel_of(&foreign);
    channel.ok_or_else(|| {
        Refusal::bad(
            "channel",
            "the path has no channel: its name follows the prefix",
        )
    })
}
