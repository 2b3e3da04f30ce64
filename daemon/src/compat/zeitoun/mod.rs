//! The two zeitoun demos' `backend.php`, at two paths: the chat by long-poll and the clock in an iframe.

pub(crate) mod chat;
mod clock;

use std::slice;

use comet_proto::ChannelName;
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};

use crate::{
    access::Caller,
    api::{
        channel::hold,
        endpoint::{Endpoint, PAGE_METHODS, UrlPath},
        publish::Publish,
    },
    config::CompatConfig,
    http::{
        answer::Answer,
        refusal::Refusal,
        route::{Content, Route},
    },
    hub::Hub,
    transport::Subscription,
};
use chat::ChatRequest;
use clock::ClockFormat;

pub(super) struct ZeitounChat {
    path: String,
    channel: ChannelName,
}

impl ZeitounChat {
    pub(super) fn new(config: &CompatConfig) -> Self {
        Self {
            path: config.zeitoun_chat.clone(),
            channel: config.zeitoun_channel.clone(),
        }
    }

    fn publish(&self, caller: &Caller<'_>, text: &str) -> Result<Route, Refusal> {
        caller.may_publish(slice::from_ref(&self.channel))?;
        let publish = Publish::to(self.channel.clone());
        match caller.request.method == Method::GET {
            true => publish.publish(caller.site, text.as_bytes(), |_| published()),
            false => {
                let length = HeaderValue::from_static("0"); // that of the answer to GET
                Ok(Route::Answer(
                    published().with(header::CONTENT_LENGTH, length),
                ))
            }
        }
    }
}

fn published() -> Answer {
    Answer::new(StatusCode::OK, "text/html; charset=utf-8", "")
}

impl Endpoint for ZeitounChat {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        path.is(&self.path).then_some(PAGE_METHODS)
    }

    fn route(&self, caller: &Caller<'_>, _: Content<'_>, hub: &Hub) -> Result<Route, Refusal> {
        let seen = match ChatRequest::parse(caller.query.pairs()) {
            ChatRequest::Publish(text) => return self.publish(caller, &text),
            ChatRequest::Poll(seen) => seen,
        };
        let right = caller.may_read(slice::from_ref(&self.channel))?;
        Ok(match chat::poll(hub, &self.channel, seen, right.oldest) {
            Ok(body) => Route::Answer(Answer::json(body)),
            Err(mut subscription) => {
                subscription.expires = right.expires;
                hold(hub, caller.request, subscription)
            }
        })
    }
}

pub(super) struct ZeitounClock {
    path: String,
}

impl ZeitounClock {
    pub(super) fn new(config: &CompatConfig) -> Self {
        let path = config.zeitoun_clock.clone();
        Self { path }
    }
}

impl Endpoint for ZeitounClock {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        path.is(&self.path).then_some(PAGE_METHODS)
    }

    fn route(&self, caller: &Caller<'_>, _: Content<'_>, hub: &Hub) -> Result<Route, Refusal> {
        let subscription = Subscription {
            channels: Vec::new().into(),
            since: None,
            wait: None,
            format: Box::new(ClockFormat),
            handshake: None,
            expires: None,
            gap: false,
        };
        Ok(hold(hub, caller.request, subscription))
    }
}
