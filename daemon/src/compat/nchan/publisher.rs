//! nchan's publisher: `POST` and `PUT` publish, `GET` returns the facts about the channel, `DELETE` deletes the channel. All of
//! them need the right to publish to the channel.

use std::slice;

use comet_proto::{Attributes, ChannelName, EventName};
use hyper::{Method, StatusCode};

use super::{
    channel,
    info::{Info, InfoForm},
};
use crate::{
    access::Caller,
    api::publish::Publish,
    compat::{http_push::CONTENT_TYPE, names},
    http::{
        answer::Answer,
        refusal::Refusal,
        request::{Request, text},
        route::{Content, Route},
        site::Site,
    },
    hub::Hub,
};

/// Routes a request for the channel with this name.
pub(super) fn route(
    caller: &Caller<'_>,
    content: Content<'_>,
    hub: &Hub,
    name: &str,
) -> Result<Route, Refusal> {
    if name.contains(',') {
        let message = "a publisher has one channel; a comma in its name is written as %2C";
        return Err(Refusal::bad("channel", message));
    }
    let channel = channel(name)?;
    caller.may_publish(slice::from_ref(&channel))?;
    let request = caller.request;
    let form = InfoForm::of(request);
    if matches!(request.method, Method::POST | Method::PUT) {
        let mut message = Publish::to(channel.clone());
        message.name = event_name(request)?;
        message.attributes = attributes(request, &channel, name)?;
        let post = Post {
            message,
            channel,
            form,
        };
        return post.route(caller.site, content, hub);
    }
    let Some(info) = Info::of(hub, &channel) else {
        return Ok(Route::Answer(Answer::empty(StatusCode::NOT_FOUND)));
    };
    let answer = info.answer(StatusCode::OK, form);
    Ok(match request.method {
        Method::DELETE => {
            let receipt = caller.site.broker.delete(&channel);
            Route::Published(receipt, Box::new(|_| answer))
        }
        _ => Route::Answer(answer),
    })
}

/// A request that publishes.
struct Post {
    message: Publish,
    channel: ChannelName,
    form: InfoForm,
}

impl Post {
    fn route(self, site: &Site, content: Content<'_>, hub: &Hub) -> Result<Route, Refusal> {
        match content {
            Content::Empty => self.publish(site, hub, b""),
            Content::Whole(data) => self.publish(site, hub, data),
            Content::Some | Content::Unknown | Content::Unannounced => {
                Ok(Route::Body(Box::new(move |site, hub, data| {
                    // The daemon may have begun to stop while the body was read.
                    match site.is_stopping() {
                        true => Err(Refusal::stopping()),
                        false => self.publish(site, hub, data),
                    }
                })))
            }
        }
    }

    /// The status says whether there was a subscriber. A poll that gets this message is no subscriber any more when the
    /// answer is written, so the subscribers are counted before.
    fn publish(self, site: &Site, hub: &Hub, data: &[u8]) -> Result<Route, Refusal> {
        let before = Info::of(hub, &self.channel).unwrap_or_default();
        let receipt = self.message.send(site, data)?;
        let mut info = Info::of(hub, &self.channel).unwrap_or_default();
        info.subscribers = before.subscribers;
        let status = match info.subscribers {
            0 => StatusCode::ACCEPTED,
            _ => StatusCode::CREATED,
        };
        let answer = info.answer(status, self.form);
        Ok(Route::Published(receipt, Box::new(|_| answer)))
    }
}

/// The label of the message: `X-EventSource-Event`.
fn event_name(request: &Request<'_>) -> Result<EventName, Refusal> {
    let value = request.values("x-eventsource-event").next();
    let name = EventName::parse_bytes(value.unwrap_or_default().trim_ascii());
    name.map_err(|e| Refusal::bad("X-EventSource-Event", e))
}

/// The media type of the message, and its channel's name if this is known only by a hash.
fn attributes(
    request: &Request<'_>,
    channel: &ChannelName,
    name: &str,
) -> Result<Option<Box<Attributes>>, Refusal> {
    let media_type = request.values("content-type").next().and_then(text);
    let media_type = media_type.filter(|media_type| !media_type.is_empty());
    let foreign = percent_encoding::percent_decode_str(name).decode_utf8();
    let foreign = foreign.ok().filter(|_| names::is_hashed(channel));
    let pairs = [
        (CONTENT_TYPE, media_type),
        (names::FOREIGN_NAME, foreign.as_deref()),
    ];
    let pairs = pairs.into_iter();
    let pairs: Vec<_> = pairs
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    Attributes::parse(&pairs).map_err(|e| Refusal::bad("Content-Type", e))
}
