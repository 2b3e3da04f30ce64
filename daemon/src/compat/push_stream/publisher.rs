//! The publisher's path: `/pub?id=CHANNEL`, or several channels as `id=a/b`.

use std::fmt::Display;

use comet_proto::{Attributes, ChannelName, ChannelNames, EventName};
use hyper::{Method, StatusCode};

use super::{
    explain,
    info::{self, InfoFormat},
    path,
    render::EVENT_ID,
};
use crate::{
    access::Caller,
    api::publish::Publish,
    compat::names,
    http::{
        answer::Answer,
        refusal::{Reason, Refusal},
        request::Request,
        route::{Content, Route},
        site::Site,
    },
    hub::Hub,
};

/// Routes a request for these channels.
pub(super) fn route(
    caller: &Caller<'_>,
    content: Content<'_>,
    hub: &Hub,
    channels: &[u8],
) -> Result<Route, Refusal> {
    let requested = path::channels(channels)?;
    let channels: Vec<ChannelName> = requested
        .iter()
        .map(|requested| requested.channel.clone())
        .collect();
    caller.may_publish(&channels)?;
    let format = InfoFormat::of(caller.request);
    if caller.request.method == Method::GET {
        let info = info::of_channels(hub, &channels, format);
        return info.map(Route::Answer).ok_or_else(unknown);
    }
    if caller.request.method == Method::DELETE {
        return delete(caller.site, content, hub, channels);
    }
    let hashed = requested
        .iter()
        .find_map(|requested| requested.hashed.as_deref());
    let message = message(caller.request, &channels, hashed)?;
    let publishing = Publishing {
        message,
        channels,
        format,
    };
    match content {
        Content::Empty => publishing.finish(caller.site, hub, b""),
        Content::Whole(data) => publishing.finish(caller.site, hub, data),
        Content::Some | Content::Unknown | Content::Unannounced => {
            Ok(Route::Body(Box::new(move |site, hub, data| {
                // The daemon may have begun to stop while the body was read.
                match site.is_stopping() {
                    true => Err(Refusal::stopping()),
                    false => publishing.finish(site, hub, data),
                }
            })))
        }
    }
}

/// The refusal when none of the channels has a message or a subscriber.
pub(super) fn unknown() -> Refusal {
    Refusal::new(Reason::NoSuchPath, "Channel not found.")
}

/// Deletes those of the channels that exist. Their subscribers get a notice, and their subscriptions end. A body would replace
/// the text of the notice in the original server; here it is read and ignored.
fn delete(
    site: &Site,
    content: Content<'_>,
    hub: &Hub,
    channels: Vec<ChannelName>,
) -> Result<Route, Refusal> {
    if !matches!(content, Content::Empty | Content::Whole(_)) {
        return Ok(Route::Body(Box::new(move |site, hub, _| {
            delete(site, Content::Empty, hub, channels)
        })));
    }
    let exists = |channel: &&ChannelName| hub.channel_facts(channel).is_some();
    let receipts = channels.iter().filter(exists);
    // When the last removal is kept, the others are kept, too.
    let receipt = receipts.map(|channel| site.broker.delete(channel)).last();
    let receipt = receipt.ok_or_else(unknown)?;
    let answer = |_| explain(StatusCode::OK, "Channel deleted.");
    Ok(Route::Published(receipt, Box::new(answer)))
}

/// A message without its data.
struct Publishing {
    message: Publish,
    channels: Vec<ChannelName>,
    /// The format of the answer.
    format: InfoFormat,
}

impl Publishing {
    /// Publishes the message. The answer has the facts of the channels, with the new message.
    fn finish(self, site: &Site, hub: &Hub, data: &[u8]) -> Result<Route, Refusal> {
        if data.is_empty() {
            return Err(Refusal::bad("body", "Empty post requests are not allowed."));
        }
        let route = self
            .message
            .publish(site, data, |_| Answer::empty(StatusCode::OK))?;
        let info = info::of_channels(hub, &self.channels, self.format);
        Ok(match (route, info) {
            (Route::Published(receipt, _), Some(info)) => {
                Route::Published(receipt, Box::new(move |_| info))
            }
            (route, _) => route,
        })
    }
}

/// The message that a request publishes. `hashed`: the foreign name of a channel whose own name is a hash.
fn message(
    request: &Request<'_>,
    channels: &[ChannelName],
    hashed: Option<&str>,
) -> Result<Publish, Refusal> {
    let names = channels.iter().map(|name| &**name);
    let names = ChannelNames::parse(names).map_err(|error| Refusal::bad("channel", error))?;
    let mut publish = Publish::to(names);
    publish.name = event_type(request)?;
    publish.attributes = attributes(request, hashed)?;
    Ok(publish)
}

/// The header `Event-Type`: the label of the message.
fn event_type(request: &Request<'_>) -> Result<EventName, Refusal> {
    let value = request.values("event-type").next().unwrap_or_default();
    EventName::parse_bytes(value).map_err(|error| Refusal::bad("event-type", error))
}

/// The attributes of a message: the header `Event-Id`, and the foreign name.
fn attributes(
    request: &Request<'_>,
    hashed: Option<&str>,
) -> Result<Option<Box<Attributes>>, Refusal> {
    let refuse = |error: &dyn Display| Refusal::bad("event-id", error);
    let event_id = request.values("event-id").next().map(str::from_utf8);
    let event_id = event_id.transpose().map_err(|error| refuse(&error))?;
    let pairs = [(EVENT_ID, event_id), (names::FOREIGN_NAME, hashed)];
    let pairs = pairs
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Attributes::parse(&pairs.collect::<Vec<_>>()).map_err(|error| refuse(&error))
}
